import type { ConfigOf } from '@haven/config'
import { openDatabase } from '@haven/db'
import { Authorities, signInDeps, SigningKeys } from '@haven/identity'
import { ProjectDirectory } from '@haven/projects'
import { encryptionKey, open, seal, type Host, type Service } from '@haven/runtime'
import { Redis } from 'ioredis'
import type { tokenConfig } from './config.ts'
import { createToken } from './service.ts'

/** The token service with everything of its own, for a process that runs nothing else. */
export function openToken({ config, log, metrics, trust, use }: Host<ConfigOf<typeof tokenConfig>>): Service {
  const key = encryptionKey(config.encryptionKey)
  const sealer = { seal: (plain: string) => seal(key, plain), open: (sealed: string) => open(key, sealed) }
  const db = use(
    openDatabase({ url: config.databaseUrl, applicationName: 'haven-token', poolSize: config.databasePool }),
  )
  const redis =
    config.redisUrl === undefined
      ? null
      : use(connectRedis(config.redisUrl, (err) => log.warn({ err }, 'Redis is away')))
  return createToken({
    settings: config,
    db,
    keys: new SigningKeys(db, sealer),
    sealer,
    authorities: new Authorities(db),
    signIn: signInDeps(db, { redis: redis?.client ?? null, redisPrefix: config.redisPrefix }),
    projects: new ProjectDirectory(db),
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
