import { randomBytes } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { Client, digestOf, imageOf, newImage, pushImage, type Answer } from './client.ts'
import { check, History, tagValue } from './history.ts'
import {
  collectGarbage,
  disagreements,
  filesOf,
  isHealthy,
  kill,
  repositories,
  startReplica,
  until,
} from './harness.ts'

const [repository, other] = repositories
const MIB = 1024 * 1024

let haven: HavenInstallation
let client: Client

beforeAll(async () => {
  haven = await startHaven({ env: { REGISTRY_UPLOAD_LEASE: '2s', REGISTRY_UPLOAD_EXPIRY: '1m', HAVEN_TRASH: '0s' } })
  client = new Client(haven.url)
  // Before the token: it grants nothing on what is not there yet.
  await client.api('POST', '/projects', { project_name: 'second', metadata: { public: 'false' } })
  const all = [...repositories, 'library/register', 'library/first', 'second/copy']
  expect((await client.signIn(all)).status).toBe(200)
}, 120_000)

afterAll(async () => {
  client?.close()
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

/** Ends what uploads crashed clients left and erases the trash, as garbage collection does after their time. */
async function sweep(): Promise<void> {
  await haven.query(`update artifacts.uploads set updated_at = now() - interval '1 day', locked_until = now()`)
  expect(await collectGarbage(client)).toBe('Success')
}

describe('a process killed between two steps of a push (F01)', () => {
  const points = [
    'session.create',
    'chunk.beforeStage',
    'chunk.afterStage',
    'chunk.afterDb',
    'finish.beforeHash',
    'finish.afterVerify',
    'finish.afterMove',
    'finish.beforeDb',
    'finish.afterDb',
    'finish.beforeAnswer',
    'mount.beforeDb',
    'manifest.beforeDb',
    'manifest.afterCheck',
    'manifest.afterDb',
    'blob.beforeUnlink',
  ]
  const history = new History()

  it.each(points)(
    '%s: the client repeats the whole push and it succeeds',
    async (point) => {
      await using replica = await startReplica(haven, { FAULT: `${point}:1:exit` })
      const doomed = client.at(replica.url)
      const image = newImage()
      const extra = randomBytes(1000)
      const attempt = async (through: Client) => {
        const done: (Answer | null)[] = []
        for (const bytes of [...image.layers, extra]) {
          const what = { client: 0, kind: 'push blob' as const, repository, subject: history.remember(bytes) }
          done.push(await history.attempt(what, () => through.pushBlob(repository, bytes)))
        }
        const mounted = digestOf(image.layers[1]!)
        const mount = { client: 0, kind: 'push blob' as const, repository: other, subject: mounted }
        done.push(await history.attempt(mount, () => through.mount(other, mounted, repository)))
        const what = { client: 0, repository }
        const tagged = [
          { ...what, kind: 'push manifest' as const, subject: history.remember(image.manifest) },
          { ...what, kind: 'write tag' as const, subject: point, value: image.digest },
        ]
        done.push(await history.attempt(tagged, () => through.putManifest(repository, point, image.manifest)))
        return done.map((answer) => answer?.status ?? 0)
      }
      const first = await attempt(doomed)
      const unlink = async (through: Client) =>
        (await through.send('DELETE', `/v2/${repository}/blobs/${digestOf(extra)}`).catch(() => null))?.status ?? 0
      if (point === 'blob.beforeUnlink') {
        expect(first).toEqual([201, 201, 201, 201, 201])
        expect(await unlink(doomed)).toBe(0)
      } else {
        expect(first).toContain(0)
      }
      expect(await replica.exited).toBe('SIGKILL')
      expect(await attempt(client)).toEqual([201, 201, 201, 201, 201])
      doomed.close()
    },
    60_000,
  )

  it('leaves nothing in the store and nothing half-done', async () => {
    expect(await check(history, [client])).toEqual([])
    await sweep()
    expect(filesOf(haven).incoming).toEqual([])
    expect(await disagreements(haven)).toEqual([])
    expect(await haven.query('select id from artifacts.uploads')).toEqual([])
  }, 60_000)
})

describe('an upload that is broken off', () => {
  const chunk = 256 * 1024
  const bytes = randomBytes(5 * chunk)
  const part = (n: number) => bytes.subarray(n * chunk, (n + 1) * chunk)

  it('goes on after the crash from the last acknowledged byte (F03)', async () => {
    const { location } = await client.startUpload(repository)
    for (const n of [0, 1, 2]) expect((await client.patch(location, part(n), n * chunk)).status).toBe(202)
    kill(haven, 'front')
    kill(haven, 'back')
    await until('the front after its crash', () => isHealthy(haven, client), 20_000)
    const status = await client.send('GET', location)
    expect(status).toMatchObject({ status: 204, headers: { range: `0-${3 * chunk - 1}` } })
    for (const n of [3, 4]) expect((await client.patch(location, part(n), n * chunk)).status).toBe(202)
    expect((await client.finish(location, digestOf(bytes))).status).toBe(201)
    expect((await client.getBlob(repository, digestOf(bytes))).body.equals(bytes)).toBe(true)
  }, 60_000)

  it('refuses a chunk that is repeated, overlaps or leaves a gap, and says where it is (F04)', async () => {
    const { location } = await client.startUpload(repository)
    for (const n of [0, 1]) await client.patch(location, part(n), n * chunk)
    for (const offset of [chunk, chunk + 100, 3 * chunk, 0]) {
      const refused = await client.patch(location, part(1), offset)
      expect(refused).toMatchObject({ status: 416, headers: { range: `0-${2 * chunk - 1}` } })
    }
    for (const n of [2, 3, 4]) expect((await client.patch(location, part(n), n * chunk)).status).toBe(202)
    expect((await client.finish(location, digestOf(bytes))).status).toBe(201)
    expect(digestOf((await client.getBlob(repository, digestOf(bytes))).body)).toBe(digestOf(bytes))
  })
})

describe('many clients at once', () => {
  it('lets one of two processes write an offset, and one finish (F05)', async () => {
    await using replica = await startReplica(haven)
    const beside = client.at(replica.url)
    for (let race = 0; race < 50; race++) {
      const [left, right] = [randomBytes(2000), randomBytes(2000)]
      const { location } = await client.startUpload(repository)
      const patches = await Promise.all([client.patch(location, left, 0), beside.patch(location, right, 0)])
      expect(patches.map(({ status }) => status).toSorted()).toEqual([202, 416])
      const winner = patches[0].status === 202 ? left : right
      const ends = await Promise.all([client, beside].map((each) => each.finish(location, digestOf(winner))))
      expect(ends.map(({ status }) => status).toSorted()).toEqual([201, 404])
      expect((await beside.getBlob(repository, digestOf(winner))).body.equals(winner)).toBe(true)
    }
    beside.close()
  }, 60_000)

  it('keeps one object of 32 pushes of the same 20 MiB, and charges each project once (F06)', async () => {
    const used = async (project: string) => {
      type Summary = { quota: { used: { storage: number } } }
      return (await client.api<Summary>('GET', `/projects/${project}/summary`)).quota.used.storage
    }
    const before = { library: await used('library'), second: await used('second') }
    const bytes = randomBytes(20 * MIB)
    const digest = digestOf(bytes)
    const pushes = await Promise.all(
      Array.from({ length: 32 }, (_, n) =>
        client.pushBlob(n % 4 === 0 ? 'second/copy' : [repository, other][n % 2]!, bytes),
      ),
    )
    expect(pushes.map(({ status }) => status)).toEqual(Array.from({ length: 32 }, () => 201))
    for (const name of [repository, other, 'second/copy']) {
      expect(digestOf((await client.getBlob(name, digest)).body)).toBe(digest)
    }
    expect({ library: await used('library'), second: await used('second') }).toEqual({
      library: before.library + bytes.length,
      second: before.second + bytes.length,
    })
    await sweep()
    const locations = await haven.query(
      'select l.key from artifacts.blobs b join artifacts.blob_locations l on l.blob_id = b.id where b.digest = $1',
      [digest],
    )
    expect(locations).toHaveLength(1)
    expect(await disagreements(haven)).toEqual([])
    expect(await haven.query('select key from artifacts.trash')).toEqual([])
  }, 120_000)

  it('moves one tag for 32 writers as a register, read from two processes (F07)', async () => {
    await using replica = await startReplica(haven)
    const beside = client.at(replica.url)
    const history = new History()
    const shared = [randomBytes(100), randomBytes(100)]
    for (const bytes of shared) await client.pushBlob('library/register', bytes)
    const endsAt = performance.now() + 4000
    const writer = async (_: unknown, number: number) => {
      for (let n = 0; performance.now() < endsAt; n++) {
        const image = imageOf([...shared, ...Array.from({ length: 1 + (n % 3) }, () => shared[1]!)])
        const manifest = Buffer.from(image.manifest.toString().replace('{', `{"annotations":{"by":"${number}.${n}"},`))
        const digest = history.remember(manifest)
        const what = { client: number, repository: 'library/register' }
        const written = [
          { ...what, kind: 'push manifest' as const, subject: digest },
          { ...what, kind: 'write tag' as const, subject: 'tag', value: digest },
        ]
        const through = number % 2 ? client : beside
        await history.attempt(written, () => through.putManifest('library/register', 'tag', manifest))
      }
    }
    const reader = async (through: Client, number: number) => {
      while (performance.now() < endsAt) {
        const what = { client: 100 + number, kind: 'read tag' as const, repository: 'library/register', subject: 'tag' }
        await history.attempt(what, () => through.getManifest('library/register', 'tag'), tagValue)
      }
    }
    await Promise.all([...Array.from({ length: 32 }, writer), ...[client, beside, client, beside].map(reader)])
    const statuses = history.statuses()
    expect(Object.keys(statuses).filter((status) => !['200', '201', '404'].includes(status))).toEqual([])
    expect(history.of('read tag').length).toBeGreaterThan(20)
    expect(await check(history, [client, beside])).toEqual([])
    beside.close()
  }, 120_000)

  it('makes one repository of 64 first pushes at once (F08)', async () => {
    const images = Array.from({ length: 64 }, () => newImage())
    const pushed = await Promise.all(images.map((image, n) => pushImage(client, 'library/first', `t${n}`, image)))
    expect(pushed.map(({ status }) => status)).toEqual(images.map(() => 201))
    const rows = await haven.query(`select id from artifacts.repositories where path = 'first'`)
    expect(rows).toHaveLength(1)
    const { tags } = JSON.parse((await client.send('GET', '/v2/library/first/tags/list?n=100')).body.toString()) as {
      tags: string[]
    }
    expect(tags).toHaveLength(64)
  }, 60_000)
})

describe('the checker itself', () => {
  it('sees an object that was taken away, a changed one, and a history that lies', async () => {
    const history = new History()
    const images = Array.from({ length: 3 }, () => newImage())
    const what = { client: 0, repository }
    for (const image of images) {
      for (const bytes of image.layers) {
        const blob = { ...what, kind: 'push blob' as const, subject: history.remember(bytes) }
        await history.attempt(blob, () => client.pushBlob(repository, bytes))
      }
      const tagged = [
        { ...what, kind: 'push manifest' as const, subject: history.remember(image.manifest) },
        { ...what, kind: 'write tag' as const, subject: 'control', value: image.digest },
      ]
      await history.attempt(tagged, () => client.putManifest(repository, 'control', image.manifest))
    }
    expect(history.operations.every(({ result }) => result === 'ok')).toBe(true)
    expect(await check(history, [client])).toEqual([])

    const pathOf = async (digest: string) => {
      const [row] = await haven.query<{ key: string }>(
        'select l.key from artifacts.blobs b join artifacts.blob_locations l on l.blob_id = b.id where b.digest = $1',
        [digest],
      )
      return join(haven.home, 'blobs', row!.key)
    }
    const [dropped, changed] = [digestOf(images[0]!.layers[1]!), digestOf(images[1]!.layers[1]!)]
    rmSync(await pathOf(dropped))
    writeFileSync(await pathOf(changed), randomBytes(images[1]!.layers[1]!.length))
    const never = newImage()
    const last = history.operations.at(-1)!
    history.operations.push({ ...last, kind: 'push manifest', subject: history.remember(never.manifest), value: null })
    // A reader is told of the first image after the third was acknowledged; and a delete is claimed that never was.
    const now = performance.now()
    history.operations.push({ ...last, kind: 'read tag', value: images[0]!.digest, invokedAt: now, returnedAt: now })
    history.operations.push({ ...last, kind: 'delete manifest', subject: images[2]!.digest, value: null })
    const found = await check(history, [client])
    const said = (start: string, about: string) =>
      found.filter((text) => text.startsWith(start) && text.includes(about))
    expect(said('I1', dropped)).toHaveLength(1)
    expect(said('I1', changed)).toHaveLength(1)
    expect(said('I4', dropped)).toHaveLength(1)
    expect(said('I2', digestOf(never.manifest))).toHaveLength(1)
    expect(said('I3', images[0]!.digest)).toHaveLength(1)
    expect(said('I11', images[2]!.digest)).toHaveLength(1)
    expect(await disagreements(haven)).toContainEqual(expect.stringMatching(/is recorded and missing/))
  }, 60_000)
})
