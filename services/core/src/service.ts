import { statfs } from 'node:fs/promises'
import { artifactDeps, countRepositories, projectPolicies, type RecentAnswers } from '@haven/artifacts'
import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import { AuditDays } from '@haven/events'
import {
  ensureAdmin,
  ensurePresets,
  ownerFor,
  Sessions,
  type Authorities,
  type LdapClient,
  type Sealer,
  type SignInDeps,
} from '@haven/identity'
import type { OutboundClient } from '@haven/outbound'
import { version } from '@haven/proto'
import { ensureLibrary, type ProjectDirectory } from '@haven/projects'
import type { Queue } from '@haven/queue'
import type { Logger, Metrics, Service, Trust } from '@haven/runtime'
import { overwriteSettings, type Settings } from '@haven/settings'
import type { BlobStorage } from '@haven/storage'
import type { Redis } from 'ioredis'
import { coreApp } from './app.ts'
import { caCertificate } from './ca-certificate.ts'
import type { CoreSettings } from './config.ts'
import type { CoreContext } from './context.ts'
import { Csrf } from './csrf.ts'
import { EventHub } from './events/hub.ts'
import { harborMetrics } from './harbor-metrics.ts'
import { PlatformHealth } from './health.ts'
import { logSearch } from './log-search.ts'
import { OidcFlows } from './oidc-flows.ts'

export type CoreDeps = {
  config: CoreSettings
  db: Database
  storage: BlobStorage
  /** Shared by the services of a process; without, it has its own. */
  recentAnswers?: RecentAnswers
  sealer: Sealer
  settings: Settings
  redis: Redis
  redisPrefix: string
  projects: ProjectDirectory
  authorities: Authorities
  signIn: SignInDeps
  queue: Queue
  outbound: OutboundClient
  ldap: LdapClient
  log: Logger
  metrics: Metrics
  trust: Trust
  /** How to ask after parts of the platform that are not asked over HTTP at their address: those in this process. */
  checks?: Readonly<Record<string, () => Promise<void>>>
}

/** The job types of the platform, as its job monitor lists them. */
const JOB_TYPES = ['GARBAGE_COLLECTION', 'PURGE_AUDIT_LOG', 'BULK_OPERATION'] as const

/** The management API under `/api`, and the sessions of browsers under `/c`. What it is given stays the caller's to close. */
export function createCore(deps: CoreDeps): Service {
  const { config, db, redis, settings } = deps
  deps.metrics.derive(harborMetrics(deps.metrics))
  const sessions = new Sessions(redis, deps.authorities, {
    prefix: deps.redisPrefix,
    lifetimeMs: async () => (await settings.read()).session_timeout * 60_000,
  })
  const events = new EventHub({
    db,
    authorities: deps.authorities,
    sessions,
    directory: deps.projects,
    onFailure: (err) => deps.log.warn({ err }, 'listeners to events may miss some'),
  })
  const context: CoreContext = {
    db,
    auditDays: new AuditDays(),
    log: deps.log,
    metrics: deps.metrics,
    trust: deps.trust,
    facts: {
      externalUrl: config.externalUrl ?? null,
      version,
      storageName: config.storageName === 's3' ? 's3' : 'filesystem',
      jobTypes: JOB_TYPES,
      gdpr: { deleteUser: config.gdprDeleteUser, auditLogs: config.gdprDeleteUser && config.gdprAuditLogs },
      serviceSecrets: { 'harbor-core': config.coreSecret, 'harbor-jobservice': config.jobserviceSecret },
    },
    settings,
    sealer: deps.sealer,
    settingsAreFixed: config.configOverwrite !== undefined,
    signIn: deps.signIn,
    authorities: deps.authorities,
    sessions,
    events,
    oidcFlows: new OidcFlows(redis, deps.sealer, deps.redisPrefix),
    csrf: new Csrf(Buffer.from(config.encryptionKey)),
    directory: deps.projects,
    artifacts: artifactDeps({
      db,
      storage: deps.storage,
      policies: projectPolicies,
      recent: deps.recentAnswers,
    }),
    countRepositories: (projectIds) => countRepositories(db.writes, projectIds),
    queue: deps.queue,
    outbound: deps.outbound,
    ldap: deps.ldap,
    health: new PlatformHealth({
      database: () => db.check(),
      redis: () => checkRedis(redis),
      ...remoteChecks(config),
      ...deps.checks,
    }),
    searchLogs: logSearch(config.logCollectorUrl, config.logCollectorSecret),
    caCertificate: () => caCertificate(config),
    volumes: () => volumesOf(config.storageFolder ?? null),
  }

  return {
    name: 'core',
    handler: coreApp(context),
    checks: { database: () => db.check(), redis: () => checkRedis(redis) },
    async start() {
      await ensurePresets(db)
      if (config.adminPassword !== undefined) await ensureAdmin(db, config.adminPassword)
      if (config.configOverwrite !== undefined) {
        await overwriteSettings({ db, settings, sealer: deps.sealer }, 'CONFIG_OVERWRITE_JSON', config.configOverwrite)
      }
      await ensureLibrary(
        { db, directory: deps.projects },
        { ownerId: await ownerFor({ db }, { kind: 'service', name: 'core' }) },
      )
      deps.authorities.forget()
    },
    async [Symbol.asyncDispose]() {
      // Everything else that core uses is its caller's.
      await events[Symbol.asyncDispose]()
    },
  }
}

async function checkRedis(redis: Redis): Promise<void> {
  await redis.ping().catch((cause: unknown) => {
    throw problems.redisUnreachable({ reason: 'no answer to PING' }, { cause })
  })
}

const CHECK_MS = 3_000

/** Services in processes of their own say themselves whether they are ready. */
function remoteChecks(config: CoreSettings): Record<string, () => Promise<void>> {
  const addresses = {
    jobservice: config.jobserviceUrl,
    portal: config.portalUrl,
    registry: config.registryUrl,
    registryctl: config.registryctlUrl,
  }
  return Object.fromEntries(
    Object.entries(addresses).flatMap(([name, url]) => (url === undefined ? [] : [[name, () => askReady(name, url)]])),
  )
}

async function askReady(name: string, url: string): Promise<void> {
  const answer = await fetch(name === 'portal' ? url : new URL('/readyz', url), {
    signal: AbortSignal.timeout(CHECK_MS),
  })
  await answer.body?.cancel()
  if (!answer.ok) throw problems.serviceUnavailable({ message: `${name} answered ${answer.status}` })
}

async function volumesOf(folder: string | null): Promise<{ total: number; free: number }[]> {
  if (folder === null) return []
  const { blocks, bavail, bsize } = await statfs(folder)
  return [{ total: blocks * bsize, free: bavail * bsize }]
}
