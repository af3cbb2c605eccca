import { randomInt } from 'node:crypto'

/** A Redis URL with a prefix of the caller's own, since all spec files share one server. */
export function testRedis(): { url: string; prefix: string } {
  const url = process.env.HAVEN_TEST_REDIS
  if (!url) throw new Error('HAVEN_TEST_REDIS is not set: run the tests with `pnpm test`, whose set-up starts a Redis')
  return { url, prefix: `t${randomInt(2 ** 40).toString(36)}` }
}
