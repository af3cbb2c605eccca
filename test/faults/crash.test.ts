import { rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { Client } from './client.ts'
import { check, History } from './history.ts'
import {
  collectGarbage,
  endPromises,
  disagreements,
  garbageCollectionEnded,
  isHealthy,
  kill,
  newSeed,
  randomOf,
  repositories,
  sleep,
  startGarbageCollection,
  startLoad,
  until,
} from './harness.ts'

/** Reliability.md F02: whatever was killed, everything is healthy again by then. */
const RECOVERY_MS = 10_000

/** Each name twice, in an order drawn from the seed. */
function victims(names: readonly string[], random: (below: number) => number): string[] {
  return [...names, ...names]
    .map((name) => ({ name, at: random(2 ** 20) }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ name }) => name)
}

async function killInTurn(haven: HavenInstallation, client: Client, names: readonly string[], seed: number) {
  const random = randomOf(seed)
  const took: Record<string, number> = {}
  for (const name of victims(names, random)) {
    await sleep(300 + random(1500))
    kill(haven, name)
    await until(`${name} is gone`, () => haven.processes()[name] === null, 5000)
    const ms = await until(`all is healthy after ${name}`, () => isHealthy(haven, client), RECOVERY_MS)
    took[name] = Math.max(took[name] ?? 0, Math.round(ms))
  }
  process.stderr.write(`healthy again after at most ${JSON.stringify(took)} ms\n`)
}

/** Answers that a client would take for a mistake of its own or for a bug of ours, though it is only that something is away. */
const blamed = (history: History) =>
  history.operations.filter(({ result, status }) => result === 'fail' || status === 500)

/** What an upload of a crashed client left is ended now instead of a day later; then the store and the record must agree. */
async function expectCleanStore(haven: HavenInstallation, client: Client) {
  await haven.query(`update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now()`)
  expect(await collectGarbage(client)).toBe('Success')
  expect(await disagreements(haven)).toEqual([])
}

async function expectAllWorks(client: Client, history: History, seed: number) {
  const before = history.operations.length
  const load = startLoad(client, seed, { history })
  await sleep(1500)
  await load.stop()
  const since = history.operations.slice(before)
  expect(since.length).toBeGreaterThan(20)
  expect(since.filter(({ result }) => result !== 'ok')).toEqual([])
}

describe('one process for requests, one for the rest', () => {
  let haven: HavenInstallation
  let client: Client
  // One for all: a tag is what anybody in these tests wrote last.
  const history = new History()

  beforeAll(async () => {
    const env = {
      REGISTRY_UPLOAD_LEASE: '2s',
      REGISTRY_UPLOAD_EXPIRY: '24h',
      HAVEN_TRASH: '0s',
      JOBSERVICE_LEASE: '5s',
      JOBSERVICE_RECONCILE: '1s',
    }
    haven = await startHaven({ env })
    client = new Client(haven.url)
    expect((await client.signIn(repositories)).status).toBe(200)
  }, 120_000)

  afterAll(async () => {
    client?.close()
    await haven?.[Symbol.asyncDispose]()
  }, 60_000)

  it('loses nothing acknowledged when front, back, Postgres and Redis are killed (F02, F12)', async () => {
    const seed = newSeed('F02')
    const load = startLoad(client, seed, { signIn: true, history })
    try {
      await killInTurn(haven, client, ['front', 'back', 'postgres', 'redis'], seed)
    } finally {
      await load.stop()
    }
    process.stderr.write(`F02: ${JSON.stringify(history.statuses())}\n`)
    expect(history.of('push manifest', 'ok').length).toBeGreaterThan(50)
    expect(history.of('push manifest', 'unknown').length).toBeGreaterThan(0)
    expect(blamed(history)).toEqual([])
    const slowest = Math.max(...history.operations.map(({ invokedAt, returnedAt }) => returnedAt - invokedAt))
    expect(slowest).toBeLessThan(RECOVERY_MS)
    await expectAllWorks(client, history, seed + 100)
    expect(await check(history, [client])).toEqual([])
    await expectCleanStore(haven, client)
  }, 120_000)

  it('loses nothing and forgets no schedule when Redis is emptied, or loses its files (F18, I19)', async () => {
    const seed = newSeed('F18')
    await client.api('POST', '/system/gc/schedule', { schedule: { type: 'Weekly', cron: '0 0 0 * * 0' } })
    const schedule = await client.api('GET', '/system/gc/schedule')
    const before = history.operations.length
    const load = startLoad(client, seed, { history })
    const runs: number[] = []
    try {
      await sleep(500)
      for (const loss of [emptyRedis, loseRedis, emptyRedis]) {
        const run = await startGarbageCollection(client)
        runs.push(run)
        await sleep(randomOf(run)(120)) // while it waits for a worker, or while it runs
        await loss(haven)
        await until('Redis', () => isHealthy(haven, client), RECOVERY_MS)
        expect(await garbageCollectionEnded(client, run)).toBe('Success')
      }
      await haven.query(`update jobs.schedules set next_run_at = now() where vendor_type = 'GARBAGE_COLLECTION'`)
      await emptyRedis(haven)
      const scheduled = async () => {
        const [last] = await client.api<{ id: number; job_kind: string; job_status: string }[]>(
          'GET',
          '/system/gc?sort=-id',
        )
        return last!.id > runs.at(-1)! && last!.job_kind.toUpperCase() === 'SCHEDULE' && last!.job_status === 'Success'
      }
      await until('the scheduled run', scheduled, 60_000)
    } finally {
      await load.stop()
    }
    expect(await client.api('GET', '/system/gc/schedule')).toMatchObject({
      schedule: (schedule as { schedule: object }).schedule,
    })
    const since = history.operations.slice(before)
    expect(since.filter(({ kind, result }) => kind === 'push manifest' && result === 'ok').length).toBeGreaterThan(20)
    // The path of a push or pull does not need Redis.
    expect(since.filter(({ result }) => result !== 'ok')).toEqual([])
    expect(await check(history, [client])).toEqual([])
    await expectCleanStore(haven, client)
  }, 180_000)

  it('never removes what is referenced when garbage collection is killed while clients push', async () => {
    const seed = newSeed('garbage collection')
    const random = randomOf(seed)
    const before = history.operations.length
    const load = startLoad(client, seed, { history })
    const statuses: string[] = []
    try {
      for (let round = 0; round < 4; round++) {
        await sleep(1000)
        await endPromises(haven)
        const run = await startGarbageCollection(client)
        await sleep(random(400))
        kill(haven, 'back')
        statuses.push(await garbageCollectionEnded(client, run))
      }
    } finally {
      await load.stop()
    }
    expect(statuses).toEqual(['Success', 'Success', 'Success', 'Success'])
    const [removed] = await haven.query<{ count: number }>('select count(*)::int from artifacts.removals')
    expect(removed!.count).toBeGreaterThan(0)
    const pushed = history.operations.slice(before).filter(({ kind }) => kind === 'push manifest')
    expect(pushed.filter(({ result }) => result === 'ok').length).toBeGreaterThan(20)
    // A client may be told that a blob it has just sent is gone, and sends it again; nothing fails without an answer.
    expect(pushed.filter(({ status }) => ![201, 400, 404].includes(status))).toEqual([])
    expect(await check(history, [client], { unreferencedMayGo: true })).toEqual([])
    await expectCleanStore(haven, client)
  }, 180_000)
})

it('collects garbage without a pause, of a promise of a second, and loses nothing that is referenced (F36, I4, I12)', async () => {
  const seed = newSeed('F36')
  await using haven = await startHaven({
    env: { REGISTRY_BLOB_GRACE: '1s', HAVEN_TRASH: '0s', REGISTRY_UPLOAD_LEASE: '2s' },
  })
  const client = new Client(haven.url)
  expect((await client.signIn(repositories)).status).toBe(200)
  const load = startLoad(client, seed, { actors: 16 })
  const endsAt = performance.now() + Number(process.env.FAULTS_SECONDS ?? 8) * 1000
  let runs = 0
  try {
    do {
      expect(await collectGarbage(client)).toBe('Success')
      runs++
    } while (performance.now() < endsAt || runs < 3)
  } finally {
    await load.stop()
  }
  const { history } = load
  const pushed = history.of('push manifest')
  process.stderr.write(`F36: ${runs} runs, ${JSON.stringify(history.statuses())}\n`)
  expect(pushed.filter(({ result }) => result === 'ok').length).toBeGreaterThan(20)
  // A push that takes longer than the promise is told that a blob of it is gone; nothing is left without an answer.
  expect(pushed.filter(({ status }) => ![201, 400, 404].includes(status))).toEqual([])
  expect(await check(history, [client], { unreferencedMayGo: true })).toEqual([])
  await sleep(1100)
  expect(await collectGarbage(client)).toBe('Success')
  await expectCleanStore(haven, client)
  const [idle] = await haven.query<{ links: number; blobs: number }>(`
    select (select count(*)::int from artifacts.blob_links k join artifacts.blobs b on b.id = k.blob_id where not exists (
             select from artifacts.manifest_edges e where e.repository_id = k.repository_id and e.digest = b.digest)) as links,
           (select count(*)::int from artifacts.blobs b where not exists (
             select from artifacts.blob_links k where k.blob_id = b.id)) as blobs`)
  expect(idle).toEqual({ links: 0, blobs: 0 })
  client.close()
}, 180_000)

describe('one process a service', () => {
  it('loses nothing acknowledged when proxy, registry, token and core are killed (F02)', async () => {
    const seed = newSeed('F02, split')
    await using haven = await startHaven({ shape: 'split', env: { REGISTRY_UPLOAD_LEASE: '2s', HAVEN_TRASH: '0s' } })
    const client = new Client(haven.url)
    expect((await client.signIn(repositories)).status).toBe(200)
    const load = startLoad(client, seed, { signIn: true })
    try {
      await killInTurn(haven, client, ['proxy', 'registry', 'token', 'core'], seed)
    } finally {
      await load.stop()
    }
    process.stderr.write(`F02, split: ${JSON.stringify(load.history.statuses())}\n`)
    expect(load.history.of('push manifest', 'ok').length).toBeGreaterThan(20)
    expect(blamed(load.history)).toEqual([])
    await expectAllWorks(client, load.history, seed + 100)
    expect(await check(load.history, [client])).toEqual([])
    await expectCleanStore(haven, client)
    client.close()
  }, 120_000)
})

function emptyRedis(haven: HavenInstallation): Promise<void> {
  const { hostname, port } = new URL(haven.servers().redisUrl)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write('FLUSHALL\r\n'))
    socket.once('error', reject)
    socket.once('data', (data) => {
      socket.destroy()
      if (data.toString().startsWith('+OK')) resolve()
      else reject(new Error(`Redis answered ${data.toString()}`))
    })
  })
}

/** kill -9, and nothing of what it had written is there when it starts again. */
async function loseRedis(haven: HavenInstallation): Promise<void> {
  kill(haven, 'redis')
  rmSync(join(haven.home, 'redis'), { recursive: true })
  await until('Redis is gone', () => haven.processes().redis === null, 5000)
}
