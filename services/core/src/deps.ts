import type { Database } from '@haven/db'
import type { Authorities, SignInDeps } from '@haven/identity'
import type { ProjectDirectory } from '@haven/projects'
import type { Logger, Metrics, Trust } from '@haven/runtime'
import type { Csrf } from './csrf.ts'
import type { PlatformHealth } from './handlers/health.ts'
import type { People } from './people.ts'
import type { Sessions } from './sessions.ts'

/** What people may change while the platform runs; asked anew by each request. */
export type Policy = {
  authMode: 'db_auth'
  selfRegistration: boolean
  projectCreation: 'everyone' | 'adminonly'
  readOnly: boolean
  /** -1: none */
  defaultQuotaBytes: number
}

export type CoreSettings = {
  /** How clients reach the platform; links are built from it and never from a Host header (threats.md R7). */
  externalUrl: string
  version: string
  storageName: string
  /** PEM of the authority that signed the platform's certificate, for clients to trust. */
  caCertificate: string | null
  /** Secrets that prove our own services, by the name that they then have. */
  serviceSecrets: Readonly<Record<string, string>>
}

export type CoreDeps = {
  db: Database
  log: Logger
  metrics: Metrics
  trust: Trust
  settings: CoreSettings
  policy: () => Policy
  signIn: SignInDeps
  authorities: Authorities
  sessions: Sessions
  csrf: Csrf
  people: People
  projects: ProjectDirectory
  directory: ProjectDirectory
  repositories: { count(projectIds: readonly number[]): Promise<Map<number, number>> }
  health: PlatformHealth
  /** Bytes of the volumes that hold blobs. */
  volumes(): Promise<{ total: number; free: number }[]>
}
