import type { ConfigOf } from '@haven/config'
import { openDatabase } from '@haven/db'
import { Authorities, signInDeps, SigningKeys, TokenVerifier } from '@haven/identity'
import { ProjectDirectory } from '@haven/projects'
import type { Host, Service } from '@haven/runtime'
import { openStorage, readStorageConfig } from '@haven/storage'
import { Redis } from 'ioredis'
import type { registryConfig } from './config.ts'
import { createRegistry } from './service.ts'

/** The registry with everything of its own, for a process that runs nothing else. */
export async function openRegistry({
  config,
  log,
  metrics,
  trust,
  use,
}: Host<ConfigOf<typeof registryConfig>>): Promise<Service> {
  const db = use(
    openDatabase({ url: config.databaseUrl, applicationName: 'haven-registry', poolSize: config.databasePool }),
  )
  const storage = use(await openStorage(readStorageConfig(process.env)))
  const redis =
    config.redisUrl === undefined
      ? null
      : use(connectRedis(config.redisUrl, (err) => log.warn({ err }, 'Redis is away')))
  return createRegistry({
    settings: config,
    db,
    storage,
    projects: new ProjectDirectory(db),
    authorities: new Authorities(db),
    tokens: new TokenVerifier(new SigningKeys(db)),
    signIn: signInDeps(db, { redis: redis?.client ?? null, redisPrefix: config.redisPrefix }),
    log,
    metrics,
    trust,
  })
}

function connectRedis(url: string, onError: (error: Error) => void) {
  // Finite, since a login waits for it: without Redis each replica counts alone.
  const client = new Redis(url, { maxRetriesPerRequest: 1, enableOfflineQueue: false })
  client.on('error', onError)
  return {
    client,
    async [Symbol.asyncDispose]() {
      client.disconnect()
    },
  }
}
