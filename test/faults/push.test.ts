import { createHash, randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
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
    120_000,
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

/** Files of unfinished uploads that a process has open. */
const openUploads = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${fd}`)
      return target.includes('/incoming/') ? [target] : []
    } catch {
      return [] // closed meanwhile
    }
  })

const residentMib = (pid: number): number =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024

describe('clients of all kinds', () => {
  it('vanish at each tenth of an upload: nothing stays open, and nothing stays in the store (F10, I8)', async () => {
    const pid = haven.processes().front!
    const piece = randomBytes(MIB)
    /** Sends so many of ten pieces, and is gone. */
    const vanish = async (tenths: number) => {
      const { location } = await client.startUpload(repository)
      await new Promise<void>((resolve) => {
        const req = request(new URL(location, haven.url), {
          method: 'PATCH',
          headers: {
            authorization: client.authorization,
            'content-type': 'application/octet-stream',
            'content-length': String(10 * MIB),
          },
        })
        req.once('error', () => resolve())
        req.once('close', () => resolve())
        const send = (n: number) => {
          if (n === tenths) req.destroy()
          else req.write(piece, () => send(n + 1))
        }
        req.flushHeaders()
        send(0)
      })
      return location
    }
    const locations: string[] = []
    for (let round = 0; round < 4; round++) {
      locations.push(...(await Promise.all(Array.from({ length: 10 }, (_, tenths) => vanish(tenths)))))
    }
    // Each is where it was before its only chunk, and goes on from there.
    for (const location of locations.slice(0, 10)) {
      expect((await client.send('GET', location)).headers.range).toBe('0-0')
    }
    expect((await client.patch(locations[3]!, piece, 0)).status).toBe(202)
    expect((await client.finish(locations[3]!, digestOf(piece))).status).toBe(201)
    await until('nothing of them is open', () => openUploads(pid).length === 0, 20_000)
    await sweep()
    expect(filesOf(haven).incoming).toEqual([])
    expect(await disagreements(haven)).toEqual([])
  }, 120_000)

  it('send nothing, single bytes, or more than there is memory (F11)', async () => {
    const empty = Buffer.alloc(0)
    expect((await client.pushBlob(repository, empty)).status).toBe(201)
    expect(await client.getBlob(repository, digestOf(empty))).toMatchObject({ status: 200, body: empty })

    const bytes = randomBytes(60)
    const { location } = await client.startUpload(repository)
    for (let at = 0; at < bytes.length; at++) {
      const sent = await client.patch(location, bytes.subarray(at, at + 1), at)
      expect({ status: sent.status, range: sent.headers.range }).toEqual({ status: 202, range: `0-${at}` })
    }
    expect((await client.finish(location, digestOf(bytes))).status).toBe(201)
    expect((await client.getBlob(repository, digestOf(bytes))).body.equals(bytes)).toBe(true)

    const pieces = Number(process.env.FAULTS_LARGE_MIB ?? 600)
    const pid = haven.processes().front!
    const [piece, sum] = [randomBytes(MIB), createHash('sha256')]
    const large = await client.startUpload(repository)
    let highest = 0
    await new Promise<void>((resolve, reject) => {
      const headers = { authorization: client.authorization, 'content-type': 'application/octet-stream' }
      const req = request(new URL(large.location, haven.url), { method: 'PATCH', headers })
      req.once('error', reject)
      req.once('response', (res) => {
        res.resume()
        if (res.statusCode === 202) resolve()
        else reject(new Error(`answered ${res.statusCode}`))
      })
      const send = (n: number) => {
        if (n === pieces) return void req.end()
        if (n % 20 === 0) highest = Math.max(highest, residentMib(pid))
        sum.update(piece)
        req.write(piece, () => send(n + 1))
      }
      send(0)
    })
    process.stderr.write(`F11: at most ${Math.round(highest)} MiB resident while ${pieces} MiB came\n`)
    expect(highest).toBeLessThan(300)
    const digest = `sha256:${sum.digest('hex')}`
    expect((await client.finish(large.location, digest)).status).toBe(201)
    expect((await client.headBlob(repository, digest)).headers['content-length']).toBe(String(pieces * MIB))
    expect((await client.send('DELETE', `/v2/${repository}/blobs/${digest}`)).status).toBe(202)
    await haven.query(`update artifacts.blobs set promised_until = now() where digest = $1`, [digest])
    await sweep()
  }, 180_000)
})

describe('the checker itself', () => {
  it('sees an object that was taken away, a changed one, and a history that lies', async () => {
    const history = new History()
    // Of small blobs the registry keeps the bytes in memory: damage to the store would show after its next start.
    const images = Array.from({ length: 3 }, () => imageOf([...newImage().layers.slice(0, 1), randomBytes(1_300_000)]))
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
