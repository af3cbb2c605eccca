import { isIP } from 'node:net'
import { RecentAnswers } from '@haven/artifacts'
import { defineConfig, int, readConfig, secret, secretsOf, text, type ConfigOf } from '@haven/config'
import { openDatabase, type Database } from '@haven/db'
import {
  adminGroupOf,
  Authorities,
  LdapClient,
  OidcClient,
  oidcProviderOf,
  signInDeps,
  signInDirectory,
  SigningKeys,
  TokenVerifier,
  type Sealer,
  type SignInDeps,
} from '@haven/identity'
import { OutboundClient, outboundConfig } from '@haven/outbound'
import { ProjectDirectory } from '@haven/projects'
import { Queue } from '@haven/queue'
import { encryptionKey, open, seal, type Host } from '@haven/runtime'
import { Settings } from '@haven/settings'
import { openStorage, readStorageConfig, type BlobStorage } from '@haven/storage'
import { Redis } from 'ioredis'
import { meterDatabase, meterStorage } from './metered.ts'

/** Where the record of truth and the queues are: the same for all services of an installation. */
export const foundationConfig = defineConfig('FOUNDATION', {
  databaseUrl: secret({ env: 'DATABASE_URL', doc: 'URL of the Postgres database.' }),
  databasePool: int({
    env: 'DATABASE_POOL',
    default: 8,
    min: 2,
    max: 100,
    doc: 'Connections of a process for writes; as many again for everything else.',
  }),
  redisUrl: secret({ env: 'REDIS_URL', doc: 'URL of Redis.' }),
  redisPrefix: text({ env: 'REDIS_PREFIX', default: 'haven', doc: 'What the keys of this installation begin with.' }),
  encryptionKey: secret({
    env: 'HAVEN_ENCRYPTION_KEY',
    doc: 'Base64 of the 32 bytes that seal secrets at rest. The same in all services.',
  }),
})

type FoundationHost = Pick<Host<unknown>, 'env' | 'log' | 'metrics' | 'use' | 'hide'>

/**
 * What the services of one process share. Each part is opened when the first service asks for it and closed after the last has stopped, so
 * that a process holds one pool and one cache of each kind, whichever services it runs.
 */
export class Foundation {
  readonly #host: FoundationHost
  readonly config: ConfigOf<typeof foundationConfig>

  /** @throws ConfigProblem */
  constructor(host: FoundationHost) {
    this.#host = host
    this.config = readConfig(foundationConfig, host.env)
    host.hide(secretsOf(this.config))
  }

  readonly db = once((): Database => {
    const { databaseUrl: url, databasePool: poolSize } = this.config
    const db = this.#host.use(openDatabase({ url, applicationName: 'haven', poolSize }))
    meterDatabase(this.#host.metrics, db)
    return db
  })

  /** For requests: a command gives up soon when Redis is away. */
  readonly redis = once((): Redis => {
    const client = new Redis(this.config.redisUrl, { maxRetriesPerRequest: 1, commandTimeout: 3_000 })
    client.on('error', (err: Error) => this.#host.log.warn({ err }, 'Redis is away'))
    this.#host.use({
      async [Symbol.asyncDispose]() {
        client.disconnect()
      },
    })
    return client
  })

  readonly storage = once(async (): Promise<BlobStorage> => {
    const config = readStorageConfig(this.#host.env)
    this.#host.hide(secretsOf(config))
    const storage = this.#host.use(await openStorage(config))
    meterStorage(this.#host.metrics, storage)
    return storage
  })

  readonly queue = once((): Queue => {
    const { redisUrl, redisPrefix: prefix } = this.config
    const onFailure = (err: Error) => this.#host.log.warn({ err }, 'the queue has trouble')
    return this.#host.use(new Queue({ db: this.db(), redisUrl, prefix, onFailure }))
  })

  readonly sealer = once((): Sealer => {
    const key = encryptionKey(this.config.encryptionKey)
    return { seal: (plain) => seal(key, plain), open: (sealed) => open(key, sealed) }
  })

  /** The only way to other servers. What the platform itself stands on is never one of them, whatever networks are allowed. */
  readonly outbound = once((): OutboundClient => {
    const { databaseUrl, redisUrl } = this.config
    const { allow } = readConfig(outboundConfig, this.#host.env)
    return new OutboundClient({ allow, ownAddresses: [databaseUrl, redisUrl].flatMap(addressesOf) })
  })

  readonly ldap = once(() => new LdapClient(this.outbound()))
  readonly settings = once(() => new Settings(this.db(), this.sealer()))
  readonly projects = once(() => new ProjectDirectory(this.db()))
  readonly authorities = once(() => {
    const adminGroup = async () => adminGroupOf(await this.settings().read())
    return new Authorities(this.db(), { adminGroup })
  })
  readonly recentAnswers = once(() => this.#host.use(new RecentAnswers(this.db())))
  readonly signingKeys = once(() => new SigningKeys(this.db(), this.sealer()))
  readonly tokens = once(() => new TokenVerifier(this.signingKeys()))

  readonly signIn = once((): SignInDeps => {
    const { redisPrefix } = this.config
    const robotPrefix = async () => (await this.settings().read()).robot_name_prefix
    const ldap = {
      client: this.ldap(),
      directory: async () => signInDirectory(await this.settings().read()),
    }
    const oidc = {
      client: new OidcClient(this.outbound()),
      sealer: this.sealer(),
      provider: async () => oidcProviderOf(await this.settings().read()),
    }
    return this.#host.use(signInDeps(this.db(), { redis: this.redis(), redisPrefix, robotPrefix, ldap, oidc }))
  })
}

/** `address:port` of a server that is named by its address; a name is looked up too late to be compared. */
function addressesOf(url: string): string[] {
  const { hostname = '', port = '', protocol = '' } = URL.parse(url) ?? {}
  const at = port || (protocol.startsWith('redis') ? '6379' : '5432')
  const hosts = hostname === 'localhost' ? ['127.0.0.1', '[::1]'] : [hostname]
  return hosts.filter((host) => isIP(host.replace(/^\[|\]$/g, '')) !== 0).map((host) => `${host}:${at}`)
}

/** Makes it the first time and gives the same ever after. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null
  return () => (made ??= { value: make() }).value
}
