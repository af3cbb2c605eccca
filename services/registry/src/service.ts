import { artifactDeps, PullCounter, type ArtifactPolicies } from '@haven/artifacts'
import type { Database } from '@haven/db'
import { ociEnvelope } from '@haven/errors'
import { signIn, type Authorities, type SignInDeps, type TokenVerifier } from '@haven/identity'
import { charge, type ProjectDirectory } from '@haven/projects'
import { finish, serviceApp, type Logger, type Metrics, type Service, type Trust } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'
import { Access } from './access.ts'
import type { RegistryContext } from './call.ts'
import { blobReadsOf, type RegistrySettings } from './config.ts'
import { route } from './routes.ts'

export type RegistryDeps = {
  settings: RegistrySettings
  db: Database
  storage: BlobStorage
  projects: Pick<ProjectDirectory, 'byName' | 'byId'>
  authorities: Pick<Authorities, 'of'>
  tokens: Pick<TokenVerifier, 'verify'>
  signIn: SignInDeps
  log: Logger
  metrics: Metrics
  trust: Trust
  /** Beside quota, which is always counted. */
  policies?: ArtifactPolicies
}

const seconds = (ms: number) => Math.ceil(ms / 1000)

/** The OCI Distribution API under `/v2`. What it is given stays the caller's to close. */
export function createRegistry(deps: RegistryDeps): Service {
  const { settings, db, storage, projects, log } = deps
  const pulls = new PullCounter(db, (err) => log.warn({ err }, 'pulls are not counted at the moment'))
  const context: RegistryContext = {
    pulls,
    artifacts: artifactDeps({
      db,
      storage,
      settings: {
        promiseSeconds: seconds(settings.blobGraceMs),
        uploadLeaseSeconds: seconds(settings.uploadLeaseMs),
        maxUploadsPerPrincipal: settings.uploadsPerPrincipal,
        maxUploadsPerProject: settings.uploadsPerProject,
        sparseIndexes: settings.sparseIndexes,
      },
      policies: { quota: charge, ...deps.policies },
    }),
    access: new Access({
      projects,
      authorities: deps.authorities,
      tokens: deps.tokens,
      signIn: (given) => signIn(deps.signIn, given),
      externalUrl: settings.externalUrl ?? null,
    }),
    blobReads: blobReadsOf(settings),
    readOnly: settings.readOnly,
    projectName: async (id) => (await projects.byId(id))?.name ?? null,
  }

  const app = serviceApp({ name: 'registry', log, metrics: deps.metrics, trust: deps.trust, envelope: ociEnvelope })
  app.use((req, res) => route(req, res, context))
  finish(app)

  return {
    name: 'registry',
    handler: app,
    checks: { database: () => db.check(), storage: () => storage.check() },
    [Symbol.asyncDispose]: () => pulls[Symbol.asyncDispose](),
  }
}
