import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { freePort, startHaven, type HavenInstallation } from '@haven/testkit'
import { TcpProxy } from '@haven/testkit/tcp-proxy'
import { Client, digestOf, newImage, pushImage, type Answer } from './client.ts'
import { check, History } from './history.ts'
import { isHealthy, kill, newSeed, randomOf, repositories, sleep, startLoad, startReplica, until } from './harness.ts'

const [repository] = repositories
const RECOVERY_MS = 10_000

let haven: HavenInstallation
let client: Client
const history = new History()

beforeAll(async () => {
  haven = await startHaven({ env: { REGISTRY_UPLOAD_LEASE: '2s', HAVEN_TRASH: '0s' } })
  client = new Client(haven.url)
  expect((await client.signIn(repositories)).status).toBe(200)
}, 120_000)

afterAll(async () => {
  client?.close()
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

/** The status, 0 for no answer, and after how many ms it came. */
async function timed(ask: Promise<Answer>): Promise<{ status: number; ms: number; answer: Answer | null }> {
  const startedAt = performance.now()
  const answer = await ask.catch(() => null)
  return { status: answer?.status ?? 0, ms: performance.now() - startedAt, answer }
}

/** A tag nobody else writes, so that its manifest is not asked for by anybody else at the same time. */
async function pushed(tag: string) {
  const image = newImage()
  expect((await pushImage(client, repository, tag, image)).status).toBe(201)
  return image
}

describe('Postgres', () => {
  it('crashes again and again under load: nothing acknowledged is lost, and the same processes go on (F12)', async () => {
    const seed = newSeed('F12')
    const random = randomOf(seed)
    const { front, back } = haven.processes()
    const before = history.operations.length
    const load = startLoad(client, seed, { history })
    try {
      for (let crash = 0; crash < Number(process.env.FAULTS_CRASHES ?? 4); crash++) {
        await sleep(300 + random(1000))
        kill(haven, 'postgres')
        await until('Postgres is gone', () => haven.processes().postgres === null, 5000)
        await until('all is healthy', () => isHealthy(haven, client), RECOVERY_MS)
      }
    } finally {
      await load.stop()
    }
    const since = history.operations.slice(before)
    expect(since.filter(({ kind, result }) => kind === 'push manifest' && result === 'ok').length).toBeGreaterThan(20)
    // Told to come back: never left without an answer, never told of a bug.
    expect(since.filter(({ result, status }) => result !== 'ok' && status !== 503)).toEqual([])
    expect(haven.processes()).toMatchObject({ front, back })
    expect(await check(history, [client])).toEqual([])
  }, 120_000)

  it('loses single connections: most requests never notice (F13)', async () => {
    const seed = newSeed('F13')
    const before = history.operations.length
    const load = startLoad(client, seed, { history, actors: 16 })
    let ended = 0
    try {
      for (let n = 0; n < 16; n++) {
        await sleep(500)
        const rows = await haven.query(`
          select pg_terminate_backend(pid) from pg_stat_activity
           where backend_type = 'client backend' and pid <> pg_backend_pid() and datname = current_database()
           order by random() limit 1`)
        ended += rows.length
      }
    } finally {
      await load.stop()
    }
    expect(ended).toBe(16)
    const since = history.operations.slice(before)
    const failed = since.filter(({ result }) => result !== 'ok')
    process.stderr.write(`F13: ${failed.length} of ${since.length} failed: ${JSON.stringify(history.statuses())}\n`)
    expect(since.filter(({ status }) => status === 500 || status === 0)).toEqual([])
    expect(failed.length).toBeLessThan(since.length * 0.05)
    // What only reads is asked again by us, not by the client.
    expect(failed.filter(({ kind }) => kind === 'read tag' || kind === 'list tags')).toEqual([])
    expect(await check(history, [client])).toEqual([])
  }, 120_000)

  it('is behind a firewall that drops: an answer in time, not ready, alive, and back without a restart (F14)', async () => {
    await using network = await TcpProxy.start(haven.servers().databaseUrl)
    const metricsPort = String(await freePort())
    await using replica = await startReplica(haven, {
      DATABASE_URL: network.before(haven.servers().databaseUrl),
      PROXY_METRICS_PORT: metricsPort,
    })
    const beside = client.at(replica.url)
    const health = new Client(`http://127.0.0.1:${metricsPort}`)
    const image = await pushed('dropped')
    expect((await beside.getManifest(repository, 'dropped')).status).toBe(200)

    network.mode = 'black hole'
    const asks = async () =>
      Promise.all([
        timed(beside.getManifest(repository, 'dropped')),
        timed(beside.headBlob(repository, image.layers.map(digestOf)[1]!)),
        timed(beside.startUpload(repository)),
        timed(beside.putManifest(repository, 'dropped', image.manifest)),
        timed(beside.send('GET', '/api/v2.0/projects', { headers: { authorization: client.basic } })),
      ])
    for (const round of [1, 2]) {
      const answers = await asks()
      process.stderr.write(
        `F14, round ${round}: ${answers.map(({ status, ms }) => `${status} ${Math.round(ms)} ms`).join(', ')}\n`,
      )
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 503))
    }
    expect((await health.send('GET', '/readyz')).status).toBe(503)
    expect((await health.send('GET', '/healthz')).status).toBe(200)

    network.mode = 'pass'
    await until('it is ready', async () => (await health.send('GET', '/readyz')).status === 200, RECOVERY_MS)
    expect((await beside.getManifest(repository, 'dropped')).body.equals(image.manifest)).toBe(true)
    expect((await pushImage(beside, repository, 'dropped', newImage())).status).toBe(201)
    beside.close()
    health.close()
  }, 120_000)

  it('has a table locked: who needs it is told to come back, others are served (F15)', async () => {
    const image = await pushed('locked')
    const small = randomBytes(100)
    await using session = await haven.session()
    await session.query('begin')
    await session.query('lock table artifacts.blobs in access exclusive mode')
    const waiting = [
      ...Array.from({ length: 4 }, () => timed(client.headBlob(repository, digestOf(image.layers[1]!)))),
      timed(client.pushBlob(repository, small)),
    ]
    let given = 0
    const allGiven = Promise.all(waiting.map((each) => each.finally(() => given++)))
    let [servedMeanwhile, slowest] = [0, 0]
    while (given === 0) {
      for (const ask of [
        () => client.getManifest(repository, 'locked'),
        () => client.send('GET', `/v2/${repository}/tags/list`),
        () => client.send('GET', '/api/v2.0/projects', { headers: { authorization: client.basic } }),
      ]) {
        const { status, ms } = await timed(ask())
        expect(status).toBe(200)
        slowest = Math.max(slowest, ms)
        if (given === 0) servedMeanwhile++
      }
    }
    const answers = await allGiven
    process.stderr.write(
      `F15: ${servedMeanwhile} others served in at most ${Math.round(slowest)} ms; ${answers.map(({ status, ms }) => `${status} ${Math.round(ms)} ms`).join(', ')}\n`,
    )
    for (const { status, answer } of answers) {
      expect(status).toBe(503)
      expect(Number(answer!.headers['retry-after'])).toBeGreaterThan(0)
    }
    // Served while others wait, not after they were given up.
    expect(servedMeanwhile).toBeGreaterThan(3)
    await session.query('rollback')
    expect((await client.pushBlob(repository, small)).status).toBe(201)
  }, 60_000)

  it('commits and its answer is lost: the repetition finds it done, and nothing is counted twice (F16)', async () => {
    await using network = await TcpProxy.start(haven.servers().databaseUrl)
    await using replica = await startReplica(haven, { DATABASE_URL: network.before(haven.servers().databaseUrl) })
    const beside = client.at(replica.url)
    const used = async () => {
      type Summary = { quota: { used: { storage: number } } }
      return (await client.api<Summary>('GET', '/projects/library/summary')).quota.used.storage
    }
    const image = newImage()
    const before = await used()
    const loseNextCommit = () => {
      let lost = 0
      network.onSent = (bytes) => {
        if (lost > 0 || !/\bcommit\b/i.test(bytes.toString('latin1'))) return 'pass'
        lost++
        return 'cut the answer'
      }
      return () => lost
    }
    for (const bytes of image.layers) {
      const lost = loseNextCommit()
      const answer = await beside.pushBlob(repository, bytes)
      expect({ status: answer.status, lost: lost() }).toEqual({ status: 503, lost: 1 })
      // The cut came while Postgres still committed, perhaps.
      const isThere = async () => (await beside.headBlob(repository, digestOf(bytes))).status === 200
      await until('the blob is there', isThere, 10_000)
      expect((await beside.pushBlob(repository, bytes)).status).toBe(201)
    }
    const lost = loseNextCommit()
    const answer = await beside.putManifest(repository, 'twice', image.manifest)
    expect({ status: answer.status, lost: lost() }).toEqual({ status: 503, lost: 1 })
    const isThere = async () => (await client.getManifest(repository, 'twice')).body.equals(image.manifest)
    await until('the manifest is there', isThere, 10_000)
    expect((await beside.putManifest(repository, 'twice', image.manifest)).status).toBe(201)
    const size = image.layers.reduce((sum, { length }) => sum + length, image.manifest.length)
    expect((await used()) - before).toBe(size)
    const moves = await haven.query(
      `select h.id from artifacts.tag_history h where h.tag = 'twice' and h.to_digest = $1`,
      [image.digest],
    )
    expect(moves).toHaveLength(1)
    beside.close()
  }, 60_000)
})
