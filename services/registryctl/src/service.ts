import { expressConnectMiddleware } from '@connectrpc/connect-express'
import { gcDeps } from '@haven/artifacts/gc'
import type { Database } from '@haven/db'
import { harborEnvelope } from '@haven/errors'
import { charge, ProjectDirectory } from '@haven/projects'
import { finish, serviceApp, type Logger, type Metrics, type Service, type Trust } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'
import { requireSecret } from './access.ts'
import type { RegistryctlSettings } from './config.ts'
import { registryControl } from './registry-control.ts'
import { mountHarborPaths } from './harbor-paths.ts'

export type RegistryctlDeps = {
  readonly settings: RegistryctlSettings
  readonly db: Database
  readonly storage: BlobStorage
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
}

/** The only service that deletes bytes. What it is given stays the caller's to close. */
export function createRegistryctl(deps: RegistryctlDeps): Service {
  const { settings, db, storage, log, metrics, trust } = deps
  const projects = new ProjectDirectory(db)
  const context = {
    db,
    storage,
    projects,
    log,
    trashSeconds: settings.trashMs / 1000,
    gc: gcDeps({ db, projects, quota: charge }),
  }

  const app = serviceApp({ name: 'registryctl', log, metrics, trust, envelope: harborEnvelope })
  app.get('/api/health', (_req, res) => {
    res.json('healthy')
  })
  app.use(requireSecret(settings.secret))
  mountHarborPaths(app, context)
  app.use(
    expressConnectMiddleware({
      routes: (router) => registryControl(router, context),
      connect: true,
      grpc: false,
      grpcWeb: false,
    }),
  )

  return {
    name: 'registryctl',
    handler: finish(app),
    checks: { database: () => db.check(), storage: () => storage.check() },
    async [Symbol.asyncDispose]() {
      projects[Symbol.dispose]()
    },
  }
}
