import { createHash, randomBytes } from 'node:crypto'
import { PassThrough, Writable } from 'node:stream'
import { problems } from '@haven/errors'
import { FakeS3, type S3Fault, type S3Operation } from '@haven/testkit/fake-s3'
import { lacking } from '@haven/testkit/tools'
import { startVersityGw } from '@haven/testkit/versitygw'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import type { AppendOptions, UploadState } from './blob-storage.ts'
import { blobStorageContract, inPieces } from './contract.ts'
import { S3Storage, type S3StorageOptions } from './drivers/s3.ts'
import { partSizeAt } from './drivers/s3/part-writer.ts'
import { ObjectMissing, ObjectTruncated, UploadLost } from './failures.ts'
import { newObjectKey, type ObjectKey } from './object-key.ts'

const MiB = 1024 ** 2
const GiB = 1024 ** 3
const quick = { attempts: 6, baseDelayMs: 2, maxDelayMs: 20 }
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

const settingsOf = (fake: FakeS3): S3StorageOptions => ({
  endpoint: fake.endpoint,
  region: 'us-east-1',
  bucket: 'blobs',
  accessKey: 'key',
  secretKey: 'secret',
  retry: quick,
})

blobStorageContract('S3 (a fake)', async () => {
  const fake = await FakeS3.start({ pageSize: 7 })
  const [storage, peer] = [await S3Storage.open(settingsOf(fake)), await S3Storage.open(settingsOf(fake))]
  return {
    storage,
    peer,
    close: async () => {
      await storage[Symbol.asyncDispose]()
      await peer[Symbol.asyncDispose]()
      await fake[Symbol.asyncDispose]()
    },
  }
})

describe('S3 storage', () => {
  let fake: FakeS3
  let storage: S3Storage
  /** Where a store that falls silent is part of the test. Elsewhere a busy machine would look like one. */
  let hasty: S3Storage

  beforeAll(async () => {
    fake = await FakeS3.start()
    storage = await S3Storage.open(settingsOf(fake))
    hasty = await S3Storage.open({ ...settingsOf(fake), idleTimeoutMs: 500 })
  })
  afterEach(() => fake.reset())
  afterAll(async () => {
    await storage[Symbol.asyncDispose]()
    await hasty[Symbol.asyncDispose]()
    await fake[Symbol.asyncDispose]()
  })

  const push = async (bytes: Buffer, options: AppendOptions = {}, to = storage) => {
    const key = newObjectKey()
    const { state } = await to.append(key, null, 0, inPieces(bytes), options)
    await to.complete(key, JSON.parse(JSON.stringify(state)) as UploadState, bytes.length)
    return key
  }
  const pull = async (key: ObjectKey) => Buffer.concat(await storage.read(key).toArray())
  const counts = () => Object.fromEntries(fake.requests)

  describe('spends as few requests as it can', () => {
    it.each([
      ['in one go', { last: true }],
      ['as docker does, by a PATCH and an empty PUT', {}],
    ])('one for up to a part, pushed %s', async (_, options) => {
      for (const size of [1, 5 * MiB, 16 * MiB]) {
        fake.reset()
        await push(randomBytes(size), options)
        expect(counts()).toEqual({ PutObject: 1 })
      }
    })

    it.each([
      [16 * MiB + 1, 1],
      [21 * MiB + 1, 2],
      [70 * MiB, 5],
    ])('n + 2 above: %d bytes in %d parts, however they are pushed', async (size, parts) => {
      const bytes = randomBytes(size)
      for (const options of [{ last: true }, {}]) {
        fake.reset()
        const key = await push(bytes, options)
        expect(counts()).toEqual({ CreateMultipartUpload: 1, UploadPart: parts, CompleteMultipartUpload: 1 })
        expect(fake.objects.get(key)?.bytes.equals(bytes)).toBe(true)
      }
    })

    it('one for a GET, none for no bytes', async () => {
      const key = await push(randomBytes(3 * MiB))
      fake.reset()
      await storage.send(key, { offset: 0, length: 3 * MiB }, new PassThrough().resume())
      await storage.send(key, { offset: 0, length: 0 }, new PassThrough())
      expect(counts()).toEqual({ GetObject: 1 })
    })

    it('reaches 1 TiB within 10,000 parts', () => {
      let offset = 0
      for (let part = 0; part < 10_000; part += 1) offset += partSizeAt(offset)
      expect(partSizeAt(0)).toBe(16 * MiB)
      expect(partSizeAt(8 * GiB)).toBe(64 * MiB)
      expect(offset).toBeGreaterThan(1024 * GiB)
    })
  })

  describe('when the store fails', () => {
    const anyRequest: S3Fault[] = ['slow down', 'error before', 'error after', 'hang up before', 'hang up after']
    const silences: S3Fault[] = ['silence before', 'silence after']

    it.each([...anyRequest, ...silences])('stores a short blob in spite of "%s"', async (fault) => {
      const bytes = randomBytes(MiB)
      fake.fail('PutObject', fault, 2)
      const key = await push(bytes, {}, silences.includes(fault) ? hasty : storage)
      expect(fake.objects.get(key)?.bytes.equals(bytes)).toBe(true)
      expect(fake.total).toBeLessThanOrEqual(6)
    })

    const steps: S3Operation[] = ['CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload']
    it.each(steps.flatMap((step) => anyRequest.map((fault) => [step, fault] as const)))(
      'stores a long blob in spite of %s: "%s"',
      async (step, fault) => {
        const bytes = randomBytes(22 * MiB)
        fake.fail(step, fault, step === 'CompleteMultipartUpload' ? 1 : 2)
        const key = await push(bytes, { last: true })
        expect(digest(await pull(key))).toBe(digest(bytes))
      },
    )

    it.each(steps)('stores a long blob although the store falls silent after %s', async (step) => {
      const bytes = randomBytes(22 * MiB)
      fake.fail(step, 'silence after')
      const key = await push(bytes, { last: true }, hasty)
      expect(digest(await pull(key))).toBe(digest(bytes))
    })

    it('does not ask a second time while the store joins many bytes in silence', async () => {
      const key = newObjectKey()
      const { state } = await hasty.append(key, null, 0, inPieces(randomBytes(40 * MiB)), { last: true })
      fake.gate = (operation) =>
        // Longer than the 500 ms of other requests, shorter than 40 MiB may take.
        operation === 'CompleteMultipartUpload' ? new Promise((resolve) => setTimeout(resolve, 1200)) : undefined
      fake.requests.clear()
      await hasty.complete(key, state, 40 * MiB)
      expect(counts()).toEqual({ CompleteMultipartUpload: 1 })
    })

    it('asks for the object before it completes again: the first time may have counted', async () => {
      fake.fail('CompleteMultipartUpload', 'error after')
      await push(randomBytes(22 * MiB), { last: true })
      expect(counts()).toMatchObject({ CompleteMultipartUpload: 1, HeadObject: 1 })
    })

    it('is not taken in by 200 with an error document', async () => {
      const bytes = randomBytes(22 * MiB)
      fake.fail('CompleteMultipartUpload', 'error in 200', 2)
      const key = await push(bytes, { last: true })
      expect(fake.objects.get(key)?.bytes.equals(bytes)).toBe(true)
      expect(counts()).toMatchObject({ CompleteMultipartUpload: 3 })

      fake.fail('CompleteMultipartUpload', 'error in 200', 99)
      const other = newObjectKey()
      const { state } = await storage.append(other, null, 0, inPieces(bytes), { last: true })
      await expect(storage.complete(other, state, bytes.length)).rejects.toMatchObject({ status: 503 })
      expect(fake.objects.has(other)).toBe(false)
    })

    it('gives an upload up when the store has other parts than it acknowledged', async () => {
      fake.fail('UploadPart', 'wrong etag')
      const key = newObjectKey()
      const { state } = await storage.append(key, null, 0, inPieces(randomBytes(22 * MiB)), { last: true })
      await expect(storage.complete(key, state, 22 * MiB)).rejects.toBeInstanceOf(UploadLost)
      expect(await storage.stat(key)).toBeNull()
      await storage.discard(key, state)
      expect([...fake.uploads.values()].filter((upload) => upload.key === key)).toEqual([])
    })

    it('finds what an append left that never reported back, and removes it without touching the object (F03)', async () => {
      const key = newObjectKey()
      const bytes = randomBytes(17 * MiB)
      const { state } = await storage.append(key, null, 0, inPieces(bytes.subarray(0, 6 * MiB)))
      await storage.append(key, state, 6 * MiB, inPieces(bytes.subarray(6 * MiB, 6 * MiB + 100))) // its process died then
      const next = await storage.append(key, state, 6 * MiB, inPieces(bytes.subarray(6 * MiB)))
      await storage.complete(key, next.state, bytes.length)
      const unfinished = async () => {
        const keys = []
        for await (const upload of storage.listUnfinished()) keys.push(upload.key)
        return keys.filter((each) => each === key)
      }
      expect((await unfinished()).length).toBeGreaterThan(0)
      await storage.discard(key, null)
      expect(await unfinished()).toEqual([])
      expect(digest(await pull(key))).toBe(digest(bytes))
    })

    it('asks for the length when the joined ETag does not prove it', async () => {
      const bytes = randomBytes(22 * MiB)
      fake.fail('CompleteMultipartUpload', 'wrong etag')
      const key = await push(bytes, { last: true })
      expect(fake.objects.get(key)?.bytes.length).toBe(bytes.length)
      expect(counts()).toMatchObject({ CompleteMultipartUpload: 1, HeadObject: 1 })
    })

    it('does not accept a joined object of another length', async () => {
      const key = newObjectKey()
      const { state } = await storage.append(key, null, 0, inPieces(randomBytes(22 * MiB)), { last: true })
      fake.gate = (operation) => {
        // The store damages the upload silently while it joins it.
        for (const upload of operation === 'CompleteMultipartUpload' ? fake.uploads.values() : []) {
          const part = upload.parts.get(1)
          if (part) upload.parts.set(1, { ...part, etag: part.etag, bytes: part.bytes.subarray(0, 6 * MiB) })
        }
      }
      fake.fail('CompleteMultipartUpload', 'error after')
      await expect(storage.complete(key, state, 22 * MiB)).rejects.toBeInstanceOf(UploadLost)
      await storage.discard(key, state)
    })

    it('goes on reading where a connection broke, a few times', async () => {
      const bytes = randomBytes(3 * MiB)
      const key = await push(bytes)
      fake.fail('GetObject', 'truncated', 2)
      fake.fail('GetObject', 'slow down')
      expect(digest(await pull(key))).toBe(digest(bytes))

      fake.fail('GetObject', 'truncated', 99)
      const sink = new PassThrough().resume()
      const sending = storage.send(key, { offset: 0, length: bytes.length }, sink)
      await expect(sending).rejects.toBeInstanceOf(ObjectTruncated)
    })

    it('does not take a lost bucket for lost objects', async () => {
      const lost = await S3Storage.open({ ...settingsOf(fake), bucket: 'other' })
      const key = await push(randomBytes(1000), {}, lost)
      expect(await lost.stat(key)).toEqual({ sizeBytes: 1000 })
      fake.dropBucket('other')
      await expect(lost.stat(key)).rejects.toThrow('bucket')
      await expect(lost.read(key).toArray()).rejects.not.toBeInstanceOf(ObjectMissing)
      await lost[Symbol.asyncDispose]()
    })

    it('never sends more than an object of the wrong length has', async () => {
      const key = await push(randomBytes(1000))
      const object = fake.objects.get(key)
      if (object) fake.objects.set(key, { ...object, bytes: object.bytes.subarray(0, 400) })
      const reading = storage.send(key, { offset: 0, length: 1000 }, new PassThrough().resume())
      await expect(reading).rejects.toBeInstanceOf(ObjectTruncated)
    })

    it('answers 503 with a time to come back when nothing helps, and leaves no upload behind', async () => {
      fake.fail('UploadPart', 'slow down', 99)
      const key = newObjectKey()
      const failure = await storage
        .append(key, null, 0, inPieces(randomBytes(40 * MiB)))
        .catch((error: unknown) => error)
      expect(problems.serviceUnavailable.is(failure)).toBe(true)
      expect(failure).toMatchObject({ headers: { 'Retry-After': '5' } })
      expect([...fake.uploads.values()].filter((upload) => upload.key === key)).toEqual([])
    })

    it('keeps every push right under 30 % SlowDown and 10 % errors, half of them after the fact', async () => {
      fake.chance = { slowDown: 0.3, errorBefore: 0.05, errorAfter: 0.05 }
      const patient = await S3Storage.open({ ...settingsOf(fake), retry: { ...quick, attempts: 12 } })
      const outcomes = await Promise.all(
        [1, 3 * MiB, 17 * MiB, 40 * MiB, 1, 3 * MiB, 17 * MiB, 40 * MiB].map(async (size, i) => {
          const bytes = randomBytes(size)
          const key = await push(bytes, { last: i < 4 }, patient)
          return fake.objects.get(key)?.bytes.equals(bytes)
        }),
      )
      const { removed } = await patient.remove([newObjectKey()])
      expect([...outcomes, removed.length]).toEqual([true, true, true, true, true, true, true, true, 1])
      await patient[Symbol.asyncDispose]()
    })
  })

  describe('under pressure for memory', () => {
    it('lets many uploads through a small budget, with parts as short as it takes', async () => {
      const narrow = await S3Storage.open({ ...settingsOf(fake), uploadMemoryBytes: 16 * MiB })
      const all = await Promise.all(
        Array.from({ length: 12 }, async (_, i) => {
          const bytes = Buffer.alloc(18 * MiB, i)
          const key = await push(bytes, { last: i % 2 === 0 }, narrow)
          const same = fake.objects.get(key)?.bytes.equals(bytes)
          await narrow.remove([key])
          return same
        }),
      )
      expect(all).toEqual(all.map(() => true))
      await narrow[Symbol.asyncDispose]()
    })

    it('refuses what waits too long, and serves on when memory comes back', async () => {
      const narrow = await S3Storage.open({
        ...settingsOf(fake),
        uploadMemoryBytes: 5 * MiB,
        uploadPatienceMs: 30,
      })
      const stop = new AbortController()
      const silent = async function* () {
        yield randomBytes(10)
        await new Promise(() => {})
      }
      const holding = narrow.append(newObjectKey(), null, 0, silent(), { signal: stop.signal })
      await expect(push(randomBytes(10), {}, narrow)).rejects.toMatchObject({ status: 503 })
      stop.abort(new Error('enough'))
      await expect(holding).rejects.toThrow('enough')
      await push(randomBytes(10), {}, narrow)
      await narrow[Symbol.asyncDispose]()
    })
  })

  it('says why it cannot be used', async () => {
    const gone = await FakeS3.start()
    const settings = settingsOf(gone)
    const once = { ...settings, retry: { ...quick, attempts: 3 } }
    const lone = await S3Storage.open(once)
    await gone[Symbol.asyncDispose]()
    await expect(lone.check()).rejects.toThrow('nothing listens at S3_ENDPOINT')
    await expect(S3Storage.open(once)).rejects.toMatchObject({ kind: problems.storageUnreachable.kind })
    await lone[Symbol.asyncDispose]()
  })
})

const lack = lacking('versitygw')
if (lack) {
  describe('S3 (versitygw)', () => {
    it.skip(lack, () => {})
  })
} else {
  blobStorageContract('S3 (versitygw)', async () => {
    const server = await startVersityGw()
    const { endpoint, region, accessKey, secretKey } = server
    const options = { endpoint, region, accessKey, secretKey, bucket: 'blobs', prefix: 'haven/', retry: quick }
    const [storage, peer] = [await S3Storage.open(options), await S3Storage.open(options)]
    return {
      storage,
      peer,
      close: async () => {
        await storage[Symbol.asyncDispose]()
        await peer[Symbol.asyncDispose]()
        await server[Symbol.asyncDispose]()
      },
    }
  })

  describe('S3 (versitygw), which checks signatures', () => {
    it('gives out URLs that any client can use, the same within a quarter of an hour', async () => {
      await using server = await startVersityGw()
      const { endpoint, region, accessKey, secretKey } = server
      await using storage = await S3Storage.open({ endpoint, region, accessKey, secretKey, bucket: 'blobs' })
      const key = newObjectKey()
      const bytes = randomBytes(1000)
      const { state } = await storage.append(key, null, 0, inPieces(bytes), { last: true })
      await storage.complete(key, state, bytes.length)

      const options = { contentType: 'application/vnd.test', fileName: 'a b.tar' }
      const url = await storage.signedUrl(key, 600, options)
      const again = await storage.signedUrl(key, 600, options)
      if (sameQuarter(url, again)) expect(again).toBe(url)
      const response = await fetch(url, { headers: { Range: 'bytes=10-19' } })
      expect(response.status).toBe(206)
      expect(response.headers.get('content-type')).toBe('application/vnd.test')
      expect(response.headers.get('content-disposition')).toContain('a%20b.tar')
      expect(Buffer.from(await response.arrayBuffer()).equals(bytes.subarray(10, 20))).toBe(true)
      expect((await fetch(url.replace(key, newObjectKey()))).status).toBe(403)
    })

    it('leaves no piece of a download to the collector, and takes what comes next over the connection whole', async () => {
      await using server = await startVersityGw()
      const { endpoint, region, accessKey, secretKey } = server
      await using storage = await S3Storage.open({ endpoint, region, accessKey, secretKey, bucket: 'blobs' })
      const put = async (bytes: Buffer) => {
        const key = newObjectKey()
        const { state } = await storage.append(key, null, 0, inPieces(bytes), { last: true })
        await storage.complete(key, state, bytes.length)
        return key
      }
      const small = await Promise.all(Array.from({ length: 120 }, () => put(randomBytes(10))))
      const bytes = randomBytes(48 * MiB)
      const key = await put(bytes)
      for (let turn = 0; turn < 2; turn += 1) {
        const before = process.memoryUsage().arrayBuffers
        let most = 0
        const sum = createHash('sha256')
        const to = new Writable({
          write(chunk: Buffer, _encoding, done) {
            sum.update(chunk)
            most = Math.max(most, process.memoryUsage().arrayBuffers - before)
            done()
          },
        })
        await storage.send(key, { offset: 0, length: bytes.length }, to)
        expect(sum.digest('hex')).toBe(digest(bytes))
        expect(most).toBeLessThan(8 * MiB)
        // An answer of more than 16 KiB, which the same rule meets.
        const listed: string[] = []
        for await (const object of storage.list()) listed.push(object.key)
        expect(listed.toSorted()).toEqual([key, ...small].toSorted())
      }
    })

    it('says that the key is wrong', async () => {
      await using server = await startVersityGw()
      const { endpoint, region, accessKey } = server
      const opening = (given: { accessKey: string; secretKey: string }) =>
        S3Storage.open({ endpoint, region, bucket: 'blobs', retry: quick, ...given })
      await expect(opening({ accessKey, secretKey: 'wrong' })).rejects.toMatchObject({
        kind: problems.storageUnreachable.kind,
        message: expect.stringMatching(/S3_(SECRET|ACCESS)_KEY/),
      })
    })
  })
}

function sameQuarter(...urls: string[]): boolean {
  return new Set(urls.map((url) => new URL(url).searchParams.get('X-Amz-Date'))).size === 1
}
