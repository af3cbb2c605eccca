import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { lacking, titled } from '@haven/testkit/tools'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'
import { Client, digestOf } from './client.ts'
import {
  collectGarbage,
  disagreements,
  filesBelow,
  filesOf,
  newSeed,
  randomOf,
  repositories,
  startReplica,
  until,
  type Replica,
} from './harness.ts'

const [repository] = repositories
const MIB = 1024 * 1024
const UPLOADS = 6
const CHUNKS = 10
const BUCKET = 'haven'

const noS3 = lacking('versitygw')
const stores = [
  { store: 'files', lack: null },
  { store: 's3', lack: noS3 },
] as const

/** What lies in the store, by what it is: complete objects, and what is left of uploads. */
type Contents = { objects: string[]; unfinished: string[] }

describe.each(stores)('two processes on one store: $store', ({ store, lack }) => {
  const test = lack === null ? it : it.skip
  let haven: HavenInstallation
  let s3: VersityGw | null = null
  let client: Client

  beforeAll(async () => {
    if (lack !== null) return
    s3 = store === 's3' ? await startVersityGw() : null
    const env = {
      REGISTRY_UPLOAD_LEASE: '2s',
      HAVEN_TRASH: '0s',
      ...(s3 && { ...s3.settings, S3_BUCKET: BUCKET }),
    }
    haven = await startHaven({ env })
    client = new Client(haven.url)
    expect((await client.signIn(repositories)).status).toBe(200)
  }, 120_000)

  afterAll(async () => {
    client?.close()
    await haven?.[Symbol.asyncDispose]()
    await s3?.[Symbol.asyncDispose]()
  }, 60_000)

  const contents = (): Contents => {
    if (!s3) {
      const { objects, incoming } = filesOf(haven)
      return { objects: [...objects.keys()], unfinished: incoming }
    }
    // Beside the bucket lies what the server keeps for itself.
    const files = [...filesBelow(join(s3.folder, BUCKET)).keys()]
    const objects = files.filter((name) => name.startsWith('o/'))
    return { objects, unfinished: files.filter((name) => !objects.includes(name)) }
  }

  /** One upload whose chunks go to processes drawn at random; after a failure it asks where the upload is, as the spec says. */
  async function upload(
    bytes: Buffer,
    random: (below: number) => number,
    through: () => Client,
    afterChunk: () => Promise<void>,
  ) {
    const cuts = Array.from({ length: CHUNKS - 1 }, () => random(bytes.length)).toSorted((a, b) => a - b)
    const started = await through().startUpload(repository)
    expect(started.status).toBe(202)
    const { location } = started
    let failures = 0
    let at = 0
    while (at < bytes.length) {
      const end = cuts.find((cut) => cut > at) ?? bytes.length
      const sent = await through()
        .patch(location, bytes.subarray(at, end), at)
        .catch(() => null)
      const status = sent ?? (await client.send('GET', location))
      if (!sent) failures++
      else expect({ status: sent.status, range: sent.headers.range }).toEqual({ status: 202, range: `0-${end - 1}` })
      at = status.headers.range === '0-0' ? 0 : Number(status.headers.range!.slice(2)) + 1
      await afterChunk()
    }
    const finished = await through()
      .finish(location, digestOf(bytes))
      .catch(() => client.finish(location, digestOf(bytes)))
    expect(finished.status).toBe(201)
    return failures
  }

  async function expectReadable(bytes: Buffer, through: Client = client) {
    const { status, body } = await through.getBlob(repository, digestOf(bytes))
    expect({ status, same: body.equals(bytes) }).toEqual({ status: 200, same: true })
  }

  test(
    titled('take the chunks of each upload in turn, in any order of processes (F03)', lack),
    async () => {
      const random = randomOf(newSeed(`hopping, ${store}`))
      await using replica = await startReplica(haven)
      const both = [client, client.at(replica.url)]
      const blobs = Array.from({ length: UPLOADS }, (_, n) =>
        randomBytes(n % 2 ? 100_000 + random(MIB) : 11 * MIB + random(MIB)),
      )
      const failures = await Promise.all(
        blobs.map((bytes) =>
          upload(
            bytes,
            random,
            () => both[random(2)]!,
            () => Promise.resolve(),
          ),
        ),
      )
      expect(failures).toEqual(blobs.map(() => 0))
      for (const bytes of blobs) for (const each of both) await expectReadable(bytes, each)
      expect(contents().unfinished).toEqual([])
      both[1]!.close()
    },
    120_000,
  )

  test(
    titled('go on when one of them is killed half-way: every upload ends on the other (F03)', lack),
    async () => {
      const random = randomOf(newSeed(`killed half-way, ${store}`))
      let replica: Replica | null = await startReplica(haven)
      const beside = client.at(replica.url)
      const blobs = Array.from({ length: UPLOADS }, (_, n) =>
        randomBytes(n % 2 ? 100_000 + random(MIB) : 11 * MIB + random(MIB)),
      )
      let chunks = 0
      const through = () => (replica && random(3) > 0 ? beside : client)
      const afterChunk = async () => {
        if (++chunks < (UPLOADS * CHUNKS) / 2 || !replica) return
        const dead = replica
        replica = null
        await dead[Symbol.asyncDispose]()
      }
      await Promise.all(blobs.map((bytes) => upload(bytes, random, through, afterChunk)))
      expect(replica).toBeNull()
      for (const bytes of blobs) await expectReadable(bytes)
      beside.close()
    },
    120_000,
  )

  test(
    titled('let exactly one of them write each offset, and one finish (F05)', lack),
    async () => {
      await using replica = await startReplica(haven)
      const both = [client, client.at(replica.url)]
      for (let race = 0; race < 12; race++) {
        const { location } = await client.startUpload(repository)
        let bytes = Buffer.alloc(0)
        for (let n = 0; n < 3; n++) {
          const pieces = both.map(() => randomBytes(1 + race * 10_000))
          const answers = await Promise.all(both.map((each, side) => each.patch(location, pieces[side]!, bytes.length)))
          expect(answers.map(({ status }) => status).toSorted()).toEqual([202, 416])
          const won = answers.findIndex(({ status }) => status === 202)
          bytes = Buffer.concat([bytes, pieces[won]!])
          const range = `0-${bytes.length - 1}`
          expect(answers.map(({ headers }) => headers.range)).toEqual([range, range])
          expect((await both[1 - won]!.send('GET', location)).headers.range).toBe(range)
        }
        const ends = await Promise.all(both.map((each) => each.finish(location, digestOf(bytes))))
        expect(ends.map(({ status }) => status).toSorted()).toEqual([201, 404])
        await expectReadable(bytes, both[race % 2])
      }
      both[1]!.close()
    },
    120_000,
  )

  test(
    titled('leave nothing of an upload that nobody goes on with: row, bytes and parts are swept (I8, I9)', lack),
    async () => {
      const replica = await startReplica(haven)
      const doomed = client.at(replica.url)
      const left: string[] = []
      const open = async (through: Client, ...sizes: number[]) => {
        const { location } = await through.startUpload(repository)
        let at = 0
        for (const size of sizes) {
          expect((await through.patch(location, randomBytes(size), at)).status).toBe(202)
          at += size
        }
        left.push(location)
        return { location, at }
      }
      await open(client) // without a byte
      await open(doomed, 1000)
      await open(client, 1000, 2000) // less than a part
      await open(doomed, 6 * MIB, 7 * MIB, 100) // parts, and a tail
      const { location, at } = await open(doomed, 6 * MIB)
      const broken = doomed.patch(location, randomBytes(40 * MIB), at).catch(() => null)
      await replica[Symbol.asyncDispose]()
      await broken
      const kept = await open(client, 6 * MIB, 100)
      left.pop()
      expect(contents().unfinished.length).toBeGreaterThan(0)

      const ids = left.map((each) => new URL(each, haven.url).pathname.split('/').at(-1)!)
      await haven.query(
        `update artifacts.uploads set updated_at = now() - interval '2 days', locked_until = now() where id = any($1::uuid[])`,
        [ids],
      )
      expect(await collectGarbage(client)).toBe('Success')
      for (const each of left) {
        expect((await client.send('GET', each)).status).toBe(404)
        expect((await client.patch(each, randomBytes(10))).status).toBe(404)
      }
      const rows = await haven.query<{ id: string; key: string }>('select id, key from artifacts.uploads')
      expect(rows).toHaveLength(1)
      // Of the one that goes on, all is there; it ends as if nothing had been.
      const tail = randomBytes(10)
      expect((await client.patch(kept.location, tail, kept.at)).status).toBe(202)
      expect((await client.send('DELETE', kept.location)).status).toBe(204)
      // Also of uploads that became blobs: what a process had written when it was killed. It is told from a probe of the store by its age.
      const nothingIsLeft = async () => {
        expect(await collectGarbage(client)).toBe('Success')
        return contents().unfinished.length === 0
      }
      await until('what uploads left is gone', nothingIsLeft, 30_000)
      expect(await haven.query('select id from artifacts.uploads')).toEqual([])
      expect(await haven.query('select key from artifacts.trash')).toEqual([])
      // The whole store, after all that happened here: what is recorded is there, and nothing else.
      const recorded = await haven.query<{ key: string }>('select key from artifacts.blob_locations order by key')
      expect(contents().objects.toSorted()).toEqual(recorded.map(({ key }) => key).toSorted())
      if (!s3) expect(await disagreements(haven)).toEqual([])
      doomed.close()
    },
    120_000,
  )
})
