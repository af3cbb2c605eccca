import { createHash, randomBytes } from 'node:crypto'
import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { AppendOptions, BlobStorage, UploadState } from './blob-storage.ts'
import { ObjectMissing, ObjectTruncated, UploadLost } from './failures.ts'
import { newObjectKey, type ObjectKey } from './object-key.ts'

const MiB = 1024 * 1024

/** Two instances on one store, as two replicas have them, and what removes the store afterwards. */
export interface StorageUnderTest {
  readonly storage: BlobStorage
  readonly peer: BlobStorage
  close(): Promise<void>
}

/** What every driver promises, as tests. */
export function blobStorageContract(name: string, make: () => Promise<StorageUnderTest>): void {
  describe(`${name}: a blob storage`, () => {
    let storage: BlobStorage
    let peer: BlobStorage
    let close: () => Promise<void>

    beforeAll(async () => {
      const made = await make()
      ;({ storage, peer } = made)
      close = () => made.close()
    })
    afterAll(() => close?.())

    const put = async (bytes: Buffer, options: AppendOptions = {}) => {
      const key = newObjectKey()
      const { state } = await storage.append(key, null, 0, inPieces(bytes), { last: true, ...options })
      await storage.complete(key, state, bytes.length)
      return key
    }
    const bytesOf = async (key: ObjectKey) => collect(peer.read(key))

    describe('storing', () => {
      it.each([0, 1, 65_537, 3 * MiB, 16 * MiB, 16 * MiB + 1, 41 * MiB])(
        'keeps %d bytes as they came',
        async (size) => {
          const bytes = randomBytes(size)
          const key = await put(bytes)
          expect(await storage.stat(key)).toEqual({ sizeBytes: size })
          expect(digest(await bytesOf(key))).toBe(digest(bytes))
        },
      )

      it('completes an upload that never got a byte', async () => {
        const key = newObjectKey()
        await storage.complete(key, null, 0)
        expect(await peer.stat(key)).toEqual({ sizeBytes: 0 })
        expect(await bytesOf(key)).toHaveLength(0)
      })

      it('shows each buffer once and in order, and lets the source reuse it', async () => {
        const bytes = randomBytes(2 * MiB + 5)
        const hash = createHash('sha256')
        const reused = Buffer.alloc(10_000)
        const source = async function* () {
          for (let at = 0; at < bytes.length; at += reused.length) {
            const length = bytes.copy(reused, 0, at)
            yield reused.subarray(0, length)
            reused.fill(0)
          }
        }
        const key = newObjectKey()
        const { state, written } = await storage.append(key, null, 0, source(), {
          onChunk: (chunk) => hash.update(chunk),
        })
        expect(written).toBe(bytes.length)
        expect(hash.digest('hex')).toBe(digest(bytes))
        await storage.complete(key, state, bytes.length)
        expect(digest(await bytesOf(key))).toBe(digest(bytes))
      })

      it('joins chunks of any size that arrive at different replicas', async () => {
        const sizes = [1, 3 * MiB, 6 * MiB, 0, 17 * MiB, 4 * MiB, 2]
        const bytes = randomBytes(sizes.reduce((sum, size) => sum + size))
        const key = newObjectKey()
        let state: UploadState | null = null
        let offset = 0
        for (const [i, size] of sizes.entries()) {
          const replica = i % 2 ? peer : storage
          const appended: { state: UploadState; written: number } = await replica.append(
            key,
            asStored(state),
            offset,
            inPieces(bytes.subarray(offset, offset + size)),
          )
          expect(appended.written).toBe(size)
          state = appended.state
          offset += size
        }
        await storage.complete(key, asStored(state), bytes.length)
        expect(digest(await bytesOf(key))).toBe(digest(bytes))
        expect(await unfinished(storage, key)).toBe(0)
      })

      it('may be asked to complete again, by anybody', async () => {
        const bytes = randomBytes(1000)
        const key = newObjectKey()
        const { state } = await storage.append(key, null, 0, inPieces(bytes))
        await storage.complete(key, state, bytes.length)
        await storage.complete(key, state, bytes.length)
        await peer.complete(key, asStored(state), bytes.length)
        expect((await bytesOf(key)).equals(bytes)).toBe(true)
      })

      it.each([100, 20 * MiB])('refuses to complete an upload of another size than it has (%d bytes)', async (size) => {
        const key = newObjectKey()
        const { state } = await storage.append(key, null, 0, inPieces(randomBytes(size)))
        await expect(storage.complete(key, state, size + 1)).rejects.toThrow(/bytes/)
        await storage.discard(key, state)
        expect(await storage.stat(key)).toBeNull()
      })
    })

    describe('failing in the middle', () => {
      it.each([
        ['before one part', 3 * MiB],
        ['after some parts', 37 * MiB],
      ])('goes on from the old offset when the source breaks %s', async (_, broken) => {
        const bytes = randomBytes(5 * MiB)
        const key = newObjectKey()
        const first = await storage.append(key, null, 0, inPieces(bytes.subarray(0, MiB)))
        const failure = new Error('the client hung up')
        await expect(storage.append(key, first.state, MiB, breaking(randomBytes(broken), failure))).rejects.toBe(
          failure,
        )
        const second = await peer.append(key, asStored(first.state), MiB, inPieces(bytes.subarray(MiB)), { last: true })
        await peer.complete(key, second.state, bytes.length)
        expect(digest(await bytesOf(key))).toBe(digest(bytes))
      })

      it('leaves nothing when the first append breaks', async () => {
        const key = newObjectKey()
        await expect(storage.append(key, null, 0, breaking(randomBytes(33 * MiB), new Error('gone')))).rejects.toThrow(
          'gone',
        )
        expect(await storage.stat(key)).toBeNull()
        expect(await unfinished(storage, key)).toBe(0)
      })

      it('stops by signal while the source is silent', async () => {
        const key = newObjectKey()
        const stop = new AbortController()
        const source = silentAfter(randomBytes(MiB))
        const appending = storage.append(key, null, 0, source.chunks(), { signal: stop.signal })
        await source.silent
        stop.abort(new Error('time is up'))
        await expect(appending).rejects.toThrow('time is up')
        await storage.discard(key, null)
        expect(await unfinished(storage, key)).toBe(0)
      })

      it.each([
        ['at once', 0, 3 * MiB],
        ['at once, with several parts', 0, 37 * MiB],
        ['in the middle', 6 * MiB, 22 * MiB],
      ])('never mixes the bytes of a writer given up %s with those of its successor', async (_, offset, size) => {
        const bytes = randomBytes(size)
        const wrong = randomBytes(size - offset)
        const key = newObjectKey()
        const start =
          offset === 0 ? null : (await storage.append(key, null, 0, inPieces(bytes.subarray(0, offset)))).state
        const source = silentAfter(wrong.subarray(0, -1000), wrong.subarray(-1000))
        const stalled = storage.append(key, start, offset, source.chunks()).then(
          ({ state }) => state,
          () => null,
        )
        await source.silent
        const taken = await peer.append(key, asStored(start), offset, inPieces(bytes.subarray(offset)))
        const completing = async () => {
          await peer.complete(key, taken.state, bytes.length)
          return true
        }
        const early = offset === 0 && (await completing())
        source.wake()
        await stalled
        const completed = early || (await completing().catch(() => false))
        // A store may refuse to complete (S3: the stalled writer replaced a part), it may not complete something else.
        if (completed) expect(digest(await bytesOf(key))).toBe(digest(bytes))
        else expect(await peer.stat(key)).toBeNull()
        expect(completed || storage.name === 's3').toBe(true)
        await peer.discard(key, null)
      })

      it('says so when the bytes of an upload are gone', async () => {
        const key = newObjectKey()
        const { state } = await storage.append(key, null, 0, inPieces(randomBytes(17 * MiB)))
        await storage.discard(key, state)
        const goingOn = storage.append(key, state, 17 * MiB, inPieces(randomBytes(17 * MiB)))
        await expect(goingOn).rejects.toBeInstanceOf(UploadLost)
        await expect(storage.complete(key, state, 17 * MiB)).rejects.toBeInstanceOf(UploadLost)
      })
    })

    describe('discarding', () => {
      it.each([100, 6 * MiB, 20 * MiB])(
        'removes what an upload of %d bytes left, as often as it is asked',
        async (size) => {
          const key = newObjectKey()
          const { state } = await storage.append(key, null, 0, inPieces(randomBytes(size)))
          expect((await unfinished(storage, key)) > 0 || (await storage.stat(key)) !== null).toBe(true)
          await storage.discard(key, state)
          await peer.discard(key, asStored(state))
          expect(await unfinished(storage, key)).toBe(0)
          expect(await storage.stat(key)).toBeNull()
        },
      )

      it('finds what it must remove without the state, as a sweeper has none', async () => {
        const key = newObjectKey()
        await storage.append(key, null, 0, inPieces(randomBytes(18 * MiB)))
        await storage.discard(key, null)
        expect(await unfinished(storage, key)).toBe(0)
      })

      it('spares the object of a completed upload from a sweeper', async () => {
        const key = newObjectKey()
        const { state } = await storage.append(key, null, 0, inPieces(randomBytes(18 * MiB)), { last: true })
        await storage.complete(key, state, 18 * MiB)
        await storage.discard(key, null)
        expect(await storage.stat(key)).toEqual({ sizeBytes: 18 * MiB })
      })
    })

    describe('sending', () => {
      const bytes = randomBytes(5 * MiB + 123)
      let key: ObjectKey

      beforeAll(async () => {
        key = await put(bytes)
      })

      it.each([
        ['all', 0, bytes.length],
        ['nothing', 17, 0],
        ['the first byte', 0, 1],
        ['the last byte', bytes.length - 1, 1],
        ['the middle', 1_000_003, 2_500_001],
      ])('sends %s to an HTTP client', async (_, offset, length) => {
        const body = await overHttp(length, (res) => storage.send(key, { offset, length }, res))
        expect(digest(body)).toBe(digest(bytes.subarray(offset, offset + length)))
      })

      it('keeps many readers of different pace apart', async () => {
        const others = await Promise.all([1, 2, 3].map(async () => randomBytes(3 * MiB)))
        const keys = await Promise.all(others.map((other) => put(other)))
        const reads = Array.from({ length: 12 }, async (_, i) => {
          const body = await overHttp(3 * MiB, (res) => peer.send(keys[i % 3] as string, whole(3 * MiB), res), i * 2)
          return digest(body) === digest(others[i % 3] as Buffer)
        })
        expect(await Promise.all(reads)).toEqual(reads.map(() => true))
      })

      it('may send into a hash, and into a stream that passes buffers on', async () => {
        const hash = createHash('sha256')
        await storage.send(key, whole(bytes.length), hash)
        expect(hash.digest('hex')).toBe(digest(bytes))
        const passing = new PassThrough()
        const received = collect(passing)
        await storage.send(key, whole(bytes.length), passing)
        passing.end()
        expect(digest(await received)).toBe(digest(bytes))
      })

      it('waits for a reader that does not read, and stops when it goes away', async () => {
        const big = await put(randomBytes(30 * MiB))
        let outcome: unknown = 'waiting'
        await expect(
          overHttp(
            30 * MiB,
            (res) =>
              storage.send(big, whole(30 * MiB), res).then(
                () => (outcome = 'sent'),
                (error: unknown) => (outcome = error),
              ),
            'leave',
          ),
        ).rejects.toThrow()
        await until(() => outcome !== 'waiting')
        expect(outcome).toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' })
      })

      it('stops by signal', async () => {
        const stop = new AbortController()
        const stuck = new PassThrough({ highWaterMark: 1 })
        const sending = storage.send(key, whole(bytes.length), stuck, stop.signal)
        setImmediate(() => stop.abort(new Error('draining')))
        await expect(sending).rejects.toThrow('draining')
        stuck.destroy()
      })

      it('fails when bytes are missing, so that the caller can break the connection off', async () => {
        const sink = new PassThrough().resume()
        await expect(storage.send(key, whole(bytes.length + 1), sink)).rejects.toBeInstanceOf(ObjectTruncated)
        await expect(collect(storage.read(key, whole(bytes.length + 1)))).rejects.toBeInstanceOf(ObjectTruncated)
      })

      it('fails before the first byte when there is no object', async () => {
        const written: unknown[] = []
        const sink = new PassThrough().on('data', (chunk) => written.push(chunk))
        await expect(storage.send(newObjectKey(), whole(1), sink)).rejects.toBeInstanceOf(ObjectMissing)
        await expect(collect(storage.read(newObjectKey()))).rejects.toBeInstanceOf(ObjectMissing)
        expect(written).toEqual([])
        expect(await storage.stat(newObjectKey())).toBeNull()
      })

      it('reads ranges as a stream', async () => {
        expect((await collect(storage.read(key, { offset: 5, length: 7 }))).equals(bytes.subarray(5, 12))).toBe(true)
      })

      it.each(['../secret', 'o/../../secret', '/etc/passwd', 'o//x', '', 'o/\0', '.'])(
        'refuses the key %j',
        async (bad) => {
          await expect(storage.stat(bad)).rejects.toThrow(TypeError)
          await expect(storage.send(bad, whole(1), new PassThrough())).rejects.toThrow(TypeError)
          await expect(storage.append(bad, null, 0, inPieces(Buffer.alloc(1)))).rejects.toThrow(TypeError)
          expect((await storage.remove([bad])).failed).toHaveLength(1)
        },
      )
    })

    describe('listing and removing', () => {
      it('lists objects in the order of their keys, from any point', async () => {
        const keys = (await Promise.all(Array.from({ length: 30 }, () => put(randomBytes(10))))).sort()
        const listed = await all(storage.list())
        const ours = listed.filter(({ key }) => keys.includes(key))
        expect(ours.map(({ key }) => key)).toEqual(keys)
        expect(ours[0]?.sizeBytes).toBe(10)
        expect(Math.abs(Date.now() - Number(ours[0]?.modifiedAt))).toBeLessThan(60_000)
        expect(listed.map(({ key }) => key)).toEqual(listed.map(({ key }) => key).sort())
        const rest = await all(storage.list(keys[9]))
        expect(rest.map(({ key }) => key).filter((key) => keys.includes(key))).toEqual(keys.slice(10))
      })

      it('does not list uploads as objects, nor objects as uploads', async () => {
        const open = newObjectKey()
        const { state } = await storage.append(open, null, 0, inPieces(randomBytes(18 * MiB)))
        const done = await put(randomBytes(10))
        const objects = (await all(peer.list())).map(({ key }) => key)
        expect(objects).toContain(done)
        expect(objects).not.toContain(open)
        const uploads = await all(peer.listUnfinished())
        expect(uploads.map(({ key }) => key)).not.toContain(done)
        const started = uploads.find(({ key }) => key === open)?.startedAt
        expect(Math.abs(Date.now() - Number(started))).toBeLessThan(60_000)
        await storage.discard(open, state)
      })

      it('removes objects, and counts one that is not there as removed', async () => {
        const keys = await Promise.all([put(randomBytes(10)), put(randomBytes(20))])
        const { removed, failed } = await storage.remove([...keys, newObjectKey()])
        expect(removed).toHaveLength(3)
        expect(failed).toEqual([])
        expect(await Promise.all(keys.map((key) => peer.stat(key)))).toEqual([null, null])
        expect(await storage.remove([])).toEqual({ removed: [], failed: [] })
      })
    })

    it('finds itself in order, and leaves nothing of the probe', async () => {
      const before = (await all(storage.list())).length
      await storage.check()
      expect(await all(storage.list())).toHaveLength(before)
    })

    it('leaves no unfinished upload behind after all this', async () => {
      expect(await all(storage.listUnfinished())).toEqual([])
    })
  })
}

const whole = (length: number) => ({ offset: 0, length })
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
/** A state as it comes back from the database. */
const asStored = (state: UploadState | null) => JSON.parse(JSON.stringify(state)) as UploadState | null

/** Bytes in the uneven buffers of a socket. */
export async function* inPieces(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0, size = 50_000; at < bytes.length; at += size, size = 100_000 - size + 1) {
    yield bytes.subarray(at, at + size)
  }
}

async function* breaking(bytes: Buffer, failure: Error) {
  yield* inPieces(bytes)
  throw failure
}

/** A source that sends some bytes, stops until it is woken, and sends the rest. */
function silentAfter(bytes: Buffer, rest = Buffer.alloc(0)) {
  const { promise: silent, resolve: fellSilent } = Promise.withResolvers<void>()
  const { promise: woken, resolve: wake } = Promise.withResolvers<void>()
  return {
    silent,
    wake,
    chunks: async function* () {
      yield* inPieces(bytes)
      fellSilent()
      await woken
      yield* inPieces(rest)
    },
  }
}

async function unfinished(storage: BlobStorage, key: ObjectKey) {
  return (await all(storage.listUnfinished())).filter((upload) => upload.key === key).length
}

async function collect(stream: AsyncIterable<Uint8Array>) {
  return Buffer.concat(await all(stream))
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

async function until(condition: () => boolean) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

/** The body that an HTTP client gets from `answer`; a number makes it pause that many ms a buffer, 'leave' makes it hang up. */
async function overHttp(
  length: number,
  answer: (res: ServerResponse) => Promise<unknown>,
  pace: number | 'leave' = 0,
): Promise<Buffer> {
  const server = createServer((_, res) => {
    res.setHeader('Content-Length', length)
    answer(res).then(
      () => res.end(),
      (error: Error) => res.destroy(error),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    const { port } = server.address() as AddressInfo
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      get({ port, host: '127.0.0.1', agent: false }, resolve).on('error', reject)
    })
    if (pace === 'leave') response.once('readable', () => response.destroy(new Error('left')))
    const chunks: Buffer[] = []
    for await (const chunk of response) {
      chunks.push(chunk as Buffer)
      if (typeof pace === 'number') await new Promise((resolve) => setTimeout(resolve, pace))
    }
    return Buffer.concat(chunks)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}
