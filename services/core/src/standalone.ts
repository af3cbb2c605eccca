import type { ConfigOf } from '@haven/config'
import { openDatabase } from '@haven/db'
import { Authorities, signInDeps } from '@haven/identity'
import { ProjectDirectory } from '@haven/projects'
import { Queue } from '@haven/queue'
import type { Host, Service } from '@haven/runtime'
import { Redis } from 'ioredis'
import type { coreConfig } from './config.ts'
import { createCore } from './service.ts'

/** Core with everything of its own, for a process that runs nothing else. */
export async function openCore({
  config,
  log,
  metrics,
  trust,
  use,
}: Host<ConfigOf<typeof coreConfig>>): Promise<Service> {
  const { redisUrl, redisPrefix } = config
  const db = use(
    openDatabase({ url: config.databaseUrl, applicationName: 'haven-core', poolSize: config.databasePool }),
  )
  const redis = use(connectRedis(redisUrl, (err) => log.warn({ err }, 'Redis is away')))
  const queue = use(
    new Queue({ db, redisUrl, prefix: redisPrefix, onFailure: (err) => log.warn({ err }, 'the queue has trouble') }),
  )
  return createCore({
    settings: config,
    db,
    redis: redis.client,
    redisPrefix,
    projects: new ProjectDirectory(db),
    authorities: new Authorities(db),
    signIn: signInDeps(db, { redis: redis.client, redisPrefix, robotPrefix: () => 'robot$' }),
    queue,
    log,
    metrics,
    trust,
  })
}

function connectRedis(url: string, onError: (error: Error) => void) {
  // Finite, since a request waits for it.
  const client = new Redis(url, { maxRetriesPerRequest: 1, commandTimeout: 3_000 })
  client.on('error', onError)
  return {
    client,
    async [Symbol.asyncDispose]() {
      client.disconnect()
    },
  }
}
