import type { Database } from '@haven/db'
import { harborEnvelope } from '@haven/errors'
import {
  ensureSigningKey,
  TokenIssuer,
  type Authorities,
  type ProjectNode,
  type Sealer,
  type SignInDeps,
  type SigningKeys,
} from '@haven/identity'
import { finish, serviceApp, type Logger, type Metrics, type Service, type Trust } from '@haven/runtime'
import type { SettingsReader } from '@haven/settings'
import { mountRoutes } from './routes.ts'

export type TokenDeps = {
  readonly settings: SettingsReader
  readonly db: Database
  /** Opened with the sealer: they sign. */
  readonly keys: SigningKeys
  readonly sealer: Sealer
  readonly authorities: Pick<Authorities, 'of'>
  readonly signIn: SignInDeps
  readonly projects: { byName(name: string): Promise<ProjectNode | null> }
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
}

/** Bearer tokens for `/v2` under `/service/token`. What it is given stays the caller's to close. */
export function createToken(deps: TokenDeps): Service {
  const { log, metrics, trust, db, keys } = deps
  const app = serviceApp({ name: 'token', log, metrics, trust, envelope: harborEnvelope })
  mountRoutes(app, { ...deps, issuer: new TokenIssuer(keys) })

  return {
    name: 'token',
    handler: finish(app),
    checks: {
      database: () => db.check(),
      'signing-key': async () => void (await keys.signing()),
    },
    start: () => ensureSigningKey(db, deps.sealer),
    async [Symbol.asyncDispose]() {
      // Everything that it uses was opened by who gave it.
    },
  }
}
