import {
  artifactDeps,
  projectPolicies,
  PullCounter,
  PullLog,
  type ArtifactPolicies,
  type RecentAnswers,
} from '@haven/artifacts'
import type { Database } from '@haven/db'
import { ociEnvelope } from '@haven/errors'
import { signIn, type Authorities, type SignInDeps, type TokenVerifier } from '@haven/identity'
import { apiVersion } from '@haven/oci'
import type { ProjectDirectory } from '@haven/projects'
import {
  answerProblem,
  enterDirectly,
  serviceShortcut,
  type Logger,
  type Metrics,
  type RequestHandler,
  type Service,
  type Trust,
} from '@haven/runtime'
import type { SettingsReader } from '@haven/settings'
import type { BlobStorage } from '@haven/storage'
import { causedBy } from '@haven/telemetry'
import { Access } from './access.ts'
import type { RegistryContext } from './call.ts'
import { blobReadsOf, type RegistrySettings } from './config.ts'
import { RegistryMetrics } from './registry-metrics.ts'
import { isPull, route } from './routes.ts'
import { shortAnswers } from './short-answers.ts'
import { SmallBlobs } from './small-blobs.ts'

export type RegistryDeps = {
  config: RegistrySettings
  db: Database
  storage: BlobStorage
  /** Shared by the services of a process; without, it has its own. */
  recentAnswers?: RecentAnswers
  /** What administrators change while it runs. */
  settings: SettingsReader
  projects: Pick<ProjectDirectory, 'byName' | 'byId' | 'remembered'>
  authorities: Pick<Authorities, 'of' | 'remembered'>
  tokens: Pick<TokenVerifier, 'verify' | 'remembered'>
  signIn: SignInDeps
  log: Logger
  metrics: Metrics
  trust: Trust
  /** Beside those that each project carries. */
  policies?: ArtifactPolicies
}

const seconds = (ms: number) => Math.ceil(ms / 1000)

/** The OCI Distribution API under `/v2`. What it is given stays the caller's to close. */
export function createRegistry(deps: RegistryDeps): Service {
  const { config, db, storage, projects, log } = deps
  const pulls = new PullCounter(db, (err) => log.warn({ err }, 'pulls are not counted at the moment'))
  const pullsAreTold = async () => !(await deps.settings.read()).pull_audit_log_disable
  const pullLog = new PullLog(db, pullsAreTold, (err) => log.warn({ err }, 'pulls are missing in the audit log'))
  const context: RegistryContext = {
    pulls,
    pullLog,
    smallBlobs: new SmallBlobs(storage),
    artifacts: artifactDeps({
      db,
      storage,
      settings: {
        promiseSeconds: seconds(config.blobGraceMs),
        uploadLeaseSeconds: seconds(config.uploadLeaseMs),
        maxUploadsPerPrincipal: config.uploadsPerPrincipal,
        maxUploadsPerProject: config.uploadsPerProject,
        sparseIndexes: config.sparseIndexes,
      },
      policies: { ...projectPolicies, ...deps.policies },
      recent: deps.recentAnswers,
    }),
    access: new Access({
      projects,
      authorities: deps.authorities,
      tokens: deps.tokens,
      signIn: (given) => signIn(deps.signIn, given),
      externalUrl: config.externalUrl ?? null,
    }),
    blobReads: blobReadsOf(config),
    settings: deps.settings,
    metrics: new RegistryMetrics(deps.metrics),
    projectName: async (id) => (await projects.byId(id))?.name ?? null,
  }

  const { metrics, trust } = deps
  const gate = { name: 'registry', log, metrics, trust, headers: apiVersion, tells: 'changes' } as const
  const answer: RequestHandler = (req, res) =>
    void context.metrics.follow(req.socket, (moved) =>
      route(req, res, context, moved).catch((error: unknown) => answerProblem(req, res, error, ociEnvelope)),
    )
  const handler: RequestHandler = (req, res) => {
    const { requestId } = enterDirectly(req, res, gate)
    // Behind everything that arrived with it: answers leave together then, which saves a fifth of a pull.
    if (isPull(req)) setImmediate(answer, req, res)
    else causedBy(requestId, () => answer(req, res))
  }

  const short = shortAnswers(context, { log, metrics, ofEvery: `${apiVersion.join(': ')}\r\n` })
  // At the level debug each request leaves a line.
  const shortAnswer: typeof short = (asked) => (log.isLevelEnabled('debug') ? null : short(asked))

  return {
    name: 'registry',
    handler,
    shortAnswer,
    shortcut: serviceShortcut(shortAnswer, trust),
    checks: { database: () => db.check(), storage: () => storage.check() },
    async [Symbol.asyncDispose]() {
      await Promise.all([pulls[Symbol.asyncDispose](), pullLog[Symbol.asyncDispose]()])
    },
  }
}
