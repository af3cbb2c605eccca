import type { ArtifactDeps } from '@haven/artifacts'
import type { Database } from '@haven/db'
import type { AuditDays } from '@haven/events'
import type { Authorities, LdapClient, Sealer, Sessions, SignInDeps } from '@haven/identity'
import type { OutboundClient } from '@haven/outbound'
import type { ProjectDirectory } from '@haven/projects'
import type { Queue } from '@haven/queue'
import type { Logger, Metrics, Trust } from '@haven/runtime'
import type { Settings } from '@haven/settings'
import type { EventHub } from './events/hub.ts'
import type { Csrf } from './csrf.ts'
import type { PlatformHealth } from './health.ts'
import type { LogSearch } from './log-search.ts'
import type { OidcFlows } from './oidc-flows.ts'

export type Facts = {
  /** How clients reach the platform; null when nobody has said it. */
  externalUrl: string | null
  version: string
  storageName: string
  /** The types of jobs that the job service knows. */
  jobTypes: readonly string[]
  /** What deleting a user takes with it. */
  gdpr: { deleteUser: boolean; auditLogs: boolean }
  /** Secrets that prove our own services, by the name that they then have. */
  serviceSecrets: Readonly<Record<string, string>>
}

/** What handlers work with: one for each core. */
export type CoreContext = {
  db: Database
  /** Where in the audit log lines are. */
  auditDays: AuditDays
  log: Logger
  metrics: Metrics
  trust: Trust
  facts: Facts
  /** What administrators change while the platform runs. */
  settings: Settings
  sealer: Sealer
  /** CONFIG_OVERWRITE_JSON says how everything is set. */
  settingsAreFixed: boolean
  signIn: SignInDeps
  authorities: Authorities
  sessions: Sessions
  oidcFlows: OidcFlows
  csrf: Csrf
  /** Also told of what handlers change. */
  directory: ProjectDirectory
  artifacts: ArtifactDeps
  countRepositories(projectIds: readonly number[]): Promise<Map<number, number>>
  queue: Queue
  /** Streams of live events. */
  events: EventHub
  /** The only way to other servers. */
  outbound: OutboundClient
  /** The way to directories. */
  ldap: LdapClient
  health: PlatformHealth
  /** Lines of all services. */
  searchLogs: LogSearch
  /** PEM for clients to trust: of the authority that signed the platform's certificate, or of that itself. Null: nothing to download. */
  caCertificate(): Promise<string | null>
  /** Bytes of the volumes that hold blobs. */
  volumes(): Promise<{ total: number; free: number }[]>
}
