import { artifactDeps, expireUploads, foldListings, forgetChanges, projectPolicies } from '@haven/artifacts'
import { gcDeps } from '@haven/artifacts/gc'
import type { Database } from '@haven/db'
import {
  AuditForwarder,
  auditPolicy,
  auditWriter,
  ensureAuditPartitions,
  foldAuditNames,
  forgetDispatchedEvents,
  forgetUnsentAudit,
  OutboxDispatcher,
} from '@haven/events'
import { rotateAgedSigningKey, type Authorities, type Sealer } from '@haven/identity'
import type { OutboundClient } from '@haven/outbound'
import { charge, foldQuotas, ProjectDirectory } from '@haven/projects'
import {
  Queue,
  Reconciler,
  Scheduler,
  startExecution,
  sweepExecutions,
  Workers,
  type ScheduledWork,
} from '@haven/queue'
import { checkRegistries } from '@haven/registries'
import { finish, serviceApp, type Logger, type Metrics, type Service, type Trust } from '@haven/runtime'
import type { SettingsReader } from '@haven/settings'
import { jobserviceEnvelope } from './api/envelope.ts'
import { mountApi } from './api/routes.ts'
import type { JobserviceSettings } from './config.ts'
import { jobs } from './gen/jobs.ts'
import { Housekeeping, type Chore } from './housekeeping.ts'
import type { Job, JobDeps } from './job-deps.ts'
import { registryControlClient } from './registry-control.ts'
import { toldJobs } from './told-jobs.ts'

export type JobserviceDeps = {
  readonly config: JobserviceSettings
  readonly settings: SettingsReader
  readonly db: Database
  readonly authorities: Authorities
  /** Seals the keys that sign tokens, and the secrets of other registries. */
  readonly sealer: Sealer
  /** The only way to other servers. */
  readonly outbound: OutboundClient
  readonly redisUrl: string
  /** What the keys of this installation begin with. */
  readonly redisPrefix: string
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
}

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
/** Jobs get this long to end by themselves before they are asked to; all of it must fit in what a stopping process has. */
const DRAIN_MS = 3_000
const DISPATCHED_EVENTS_KEPT_HOURS = 7 * 24
/** How long lines of the audit log wait for a syslog server that is away. */
const UNSENT_AUDIT_KEPT_HOURS = 7 * 24

/** Runs jobs and schedules, moves events from the outbox, keeps house. The database that it is given stays the caller's to close. */
export function createJobservice(given: JobserviceDeps): Service {
  const { config, settings, db, sealer, outbound, redisUrl, redisPrefix: prefix, log, metrics, trust } = given
  const { leaseMs } = config
  const onFailure = (err: Error) => log.warn({ err }, 'background work failed and will be tried again')
  const projects = new ProjectDirectory(db)
  const jobDeps: JobDeps = {
    db,
    projects,
    authorities: given.authorities,
    artifacts: artifactDeps({
      db,
      storage: { name: config.storageName },
      policies: { ...projectPolicies, readOnly: async () => (await settings.read()).read_only },
    }),
    gc: gcDeps({
      db,
      projects,
      quota: charge,
      settings: { promiseSeconds: config.blobGraceMs / 1000, trashSeconds: config.trashMs / 1000 },
    }),
    registryControl: registryControlClient(config.registryctlUrl, config.registryctlSecret),
    uploadExpirySeconds: config.uploadExpiryMs / 1000,
  }

  const queue = new Queue({ db, redisUrl, prefix, onFailure })
  const times = { leaseMs, beatMs: Math.min(2000, leaseMs / 5) }
  const workers = new Workers({
    db,
    redisUrl,
    prefix,
    queue,
    jobs,
    deps: jobDeps,
    onFailure,
    onEnded: toldJobs(metrics, log, config.workers),
    poolSize: config.workers,
    times,
  })
  const jobTypes = jobs.map((job) => job.type)
  const reconciler = new Reconciler({ db, queue, jobTypes, onFailure, intervalMs: config.reconcileMs })
  const scheduler = new Scheduler({ db, queue, work: scheduledWork(jobs), onFailure })
  const writeAudit = auditWriter(async () => auditPolicy(await settings.read()))
  const dispatcher = new OutboxDispatcher({ db, handlers: [writeAudit], onFailure })
  const forwarder = new AuditForwarder({
    db,
    outbound,
    endpoint: async () => (await settings.read()).audit_log_forward_endpoint,
    onFailure,
  })
  const housekeeping = new Housekeeping(
    [
      ...chores(db, jobDeps, config),
      keyRotation(db, sealer, config, settings, log),
      {
        name: 'asking after other registries',
        everyMs: 5 * MINUTE_MS,
        run: (signal) => checkRegistries({ db, sealer, outbound }, signal),
      },
    ],
    onFailure,
  )

  const app = serviceApp({ name: 'jobservice', log, metrics, trust, envelope: jobserviceEnvelope })
  mountApi(app, { db, queue, jobs, secret: config.coreSecret, workers: config.workers, prefix })

  return {
    name: 'jobservice',
    handler: finish(app),
    checks: { database: () => db.check(), redis: () => queue.check() },
    async start() {
      await workers.start()
      for (const loop of [reconciler, scheduler, dispatcher, forwarder, housekeeping]) loop.start()
    },
    async [Symbol.asyncDispose]() {
      const loops = [reconciler, scheduler, dispatcher, forwarder, housekeeping]
      await Promise.all([...loops.map((loop) => loop[Symbol.asyncDispose]()), workers.drain(DRAIN_MS)])
      await queue[Symbol.asyncDispose]()
      projects[Symbol.dispose]()
    },
  }
}

/** An execution of its vendor type for each schedule of a job that has schedules. */
function scheduledWork(all: readonly Job[]): Record<string, ScheduledWork> {
  const work: Record<string, ScheduledWork> = {}
  for (const { type, scheduledTask } of all) {
    if (!scheduledTask) continue
    work[type] = async (tx, { vendorId, parameters, actor }) => {
      const tasks = [scheduledTask(parameters)]
      const started = await startExecution(tx, {
        vendorType: type,
        vendorId,
        trigger: 'SCHEDULE',
        parameters,
        actor,
        tasks,
      })
      return started.tasks
    }
  }
  return work
}

function chores(db: Database, { registryControl, uploadExpirySeconds }: JobDeps, config: JobserviceSettings): Chore[] {
  return [
    { name: 'making partitions of the audit log', everyMs: 12 * HOUR_MS, run: () => ensureAuditPartitions(db) },
    {
      name: 'forgetting events that were dispatched',
      everyMs: 10 * MINUTE_MS,
      run: () => forgetDispatchedEvents(db, DISPATCHED_EVENTS_KEPT_HOURS),
    },
    {
      name: 'forgetting lines of the audit log that no syslog server took',
      everyMs: HOUR_MS,
      run: () => forgetUnsentAudit(db, UNSENT_AUDIT_KEPT_HOURS),
    },
    { name: 'folding quotas', everyMs: MINUTE_MS, run: (signal) => foldQuotas(db, signal) },
    { name: 'folding the names of the audit log', everyMs: MINUTE_MS, run: (signal) => foldAuditNames(db, signal) },
    { name: 'forgetting changes', everyMs: MINUTE_MS, run: () => forgetChanges(db) },
    { name: 'folding listings', everyMs: MINUTE_MS, run: (signal) => foldListings(db, signal) },
    {
      name: 'ending abandoned uploads',
      everyMs: 10 * MINUTE_MS,
      run: (signal) => expireUploads({ db }, uploadExpirySeconds, signal),
    },
    {
      name: 'erasing trash',
      everyMs: 10 * MINUTE_MS,
      async run(signal) {
        // Failures stay in the trash with their reason, and registryctl logs them.
        for await (const _ of registryControl.erase({}, { signal }));
      },
    },
    {
      name: 'sweeping old executions',
      everyMs: HOUR_MS,
      run: (signal) => sweepExecutions(db, { defaultKeep: config.executionsKept, signal }),
    },
  ]
}

function keyRotation(
  db: Database,
  sealer: Sealer,
  { signingKeyAgeMs: maxAgeMs }: JobserviceSettings,
  settings: SettingsReader,
  log: Logger,
): Chore {
  return {
    name: 'rotating the key that signs tokens',
    everyMs: HOUR_MS,
    async run() {
      const source = { principal: { kind: 'service', name: 'jobservice' } } as const
      const tokenLifetimeMs = (await settings.read()).token_expiration * MINUTE_MS
      const rotated = await rotateAgedSigningKey(db, sealer, { maxAgeMs, tokenLifetimeMs, source })
      if (rotated) log.info({ kid: rotated.kid }, 'a new key signs tokens')
    },
  }
}
