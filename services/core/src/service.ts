import { statfs } from 'node:fs/promises'
import { countRepositories } from '@haven/artifacts'
import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import { ensureAdmin, ensurePresets, ownerFor, Sessions, type Authorities, type SignInDeps } from '@haven/identity'
import { ensureLibrary, UNLIMITED, type ProjectDirectory } from '@haven/projects'
import type { Queue } from '@haven/queue'
import type { Logger, Metrics, Service, Trust } from '@haven/runtime'
import type { Redis } from 'ioredis'
import { coreApp } from './app.ts'
import type { CoreSettings } from './config.ts'
import type { CoreContext, Policy } from './context.ts'
import { Csrf } from './csrf.ts'
import { PlatformHealth } from './health.ts'
import { logSearch } from './log-search.ts'
import { version } from './version.ts'

export type CoreDeps = {
  settings: CoreSettings
  db: Database
  redis: Redis
  redisPrefix: string
  projects: ProjectDirectory
  authorities: Authorities
  signIn: SignInDeps
  queue: Queue
  log: Logger
  metrics: Metrics
  trust: Trust
  /** How to ask after parts of the platform that are not asked over HTTP at their address: those in this process. */
  checks?: Readonly<Record<string, () => Promise<void>>>
}

/** The job types of the platform, as its job monitor lists them. */
const JOB_TYPES = ['GARBAGE_COLLECTION'] as const

/** The management API under `/api`, and the sessions of browsers under `/c`. What it is given stays the caller's to close. */
export function createCore(deps: CoreDeps): Service {
  const { settings, db, redis } = deps
  const policy: Policy = {
    authMode: 'db_auth',
    selfRegistration: settings.selfRegistration,
    projectCreation: settings.projectCreation,
    readOnly: settings.readOnly,
    defaultQuotaBytes: settings.defaultQuotaBytes ?? UNLIMITED,
  }
  const context: CoreContext = {
    db,
    log: deps.log,
    metrics: deps.metrics,
    trust: deps.trust,
    facts: {
      externalUrl: settings.externalUrl ?? null,
      version,
      storageName: settings.storageName === 's3' ? 's3' : 'filesystem',
      caCertificate: settings.caCertificate?.text ?? null,
      jobTypes: JOB_TYPES,
      serviceSecrets: { 'harbor-core': settings.coreSecret, 'harbor-jobservice': settings.jobserviceSecret },
    },
    policy: () => policy,
    signIn: deps.signIn,
    authorities: deps.authorities,
    sessions: new Sessions(redis, deps.authorities, {
      prefix: deps.redisPrefix,
      lifetimeMs: () => settings.sessionTimeoutMs,
    }),
    csrf: new Csrf(Buffer.from(settings.encryptionKey)),
    directory: deps.projects,
    countRepositories: (projectIds) => countRepositories(db.reads, projectIds),
    queue: deps.queue,
    health: new PlatformHealth({
      database: () => db.check(),
      redis: () => checkRedis(redis),
      ...remoteChecks(settings),
      ...deps.checks,
    }),
    searchLogs: logSearch(settings.logCollectorUrl, settings.logCollectorSecret),
    volumes: () => volumesOf(settings.storageFolder ?? null),
  }

  return {
    name: 'core',
    handler: coreApp(context),
    checks: { database: () => db.check(), redis: () => checkRedis(redis) },
    async start() {
      await ensurePresets(db)
      if (settings.adminPassword !== undefined) await ensureAdmin(db, settings.adminPassword)
      await ensureLibrary(
        { db, directory: deps.projects },
        { ownerId: await ownerFor({ db }, { kind: 'service', name: 'core' }) },
      )
      deps.authorities.forget()
    },
    async [Symbol.asyncDispose]() {
      // Everything that core uses is its caller's.
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
function remoteChecks(settings: CoreSettings): Record<string, () => Promise<void>> {
  const addresses = {
    jobservice: settings.jobserviceUrl,
    portal: settings.portalUrl,
    registry: settings.registryUrl,
    registryctl: settings.registryctlUrl,
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
