import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrate } from '@haven/db'
import { freePort, startPostgres, startRedis } from '@haven/embedded'

/**
 * One Postgres and one Redis for the whole run, not durable, and a migrated database that spec files clone.
 * Spec files find them by HAVEN_TEST_POSTGRES and HAVEN_TEST_REDIS.
 */
export default async function globalSetup(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-test-'))
  const [postgres, redis] = await Promise.all([
    startPostgres({ folder: join(folder, 'postgres'), port: await freePort(), durable: false, maxConnections: 400 }),
    startRedis({ folder: join(folder, 'redis'), port: await freePort(), durable: false }),
  ])
  process.env.HAVEN_TEST_POSTGRES = postgres.url('')
  process.env.HAVEN_TEST_REDIS = redis.url
  await migrate(postgres.url('haven_template'))
  Object.assign(globalThis, { havenTestServers: { postgres, redis, folder } })
}
