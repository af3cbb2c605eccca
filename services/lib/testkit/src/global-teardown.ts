import { rmSync } from 'node:fs'
import type { EmbeddedPostgres, EmbeddedRedis } from '@haven/embedded'

type TestServers = { postgres: EmbeddedPostgres; redis: EmbeddedRedis; folder: string }

export default async function globalTeardown(): Promise<void> {
  const { havenTestServers } = globalThis as unknown as { havenTestServers: TestServers }
  await Promise.all([havenTestServers.postgres.stop('SIGINT'), havenTestServers.redis.stop('SIGTERM')])
  rmSync(havenTestServers.folder, { recursive: true, force: true })
}
