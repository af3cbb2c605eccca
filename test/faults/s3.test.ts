import { randomBytes } from 'node:crypto'
import { readFileSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { S3Proxy } from '@haven/testkit/s3-proxy'
import { lacking, titled } from '@haven/testkit/tools'
import { startVersityGw, type VersityGw } from '@haven/testkit/versitygw'
import { Client, digestOf, newImage, pushImage, type Answer } from './client.ts'
import { collectGarbage, filesBelow, startLoad, startReplica, until, type Replica } from './harness.ts'
import { check, History } from './history.ts'

const MIB = 1024 * 1024
const repository = 'library/one'
const lack = lacking('versitygw')
const run = lack ? describe.skip : describe

let store: VersityGw
let proxy: S3Proxy
let haven: HavenInstallation
let client: Client
/** Gives a silent store up after a second. A busy store is silent for as long over a large part, so only silence is tested by way of it. */
let hasty: Client
let hastyReplica: Replica
/** Of both loads: the second moves the tags of the first. */
const history = new History()

/** Requests for bytes and for objects: what the readiness probe and the sweeps ask at any time is not a push's or a pull's. */
async function requestsOf(act: () => Promise<unknown>): Promise<Record<string, number>> {
  const probes = new Set<string>()
  const before = proxy.seen.length
  await act()
  const seen = proxy.seen.slice(before)
  for (const { key, operation, bytesIn } of seen) if (operation === 'PutObject' && bytesIn < 100) probes.add(key)
  const counted = seen.filter(
    ({ key, operation }) => !probes.has(key) && !/^(Head|Create)Bucket$|DeleteObjects/.test(operation),
  )
  const byOperation = Map.groupBy(counted, ({ operation }) => operation)
  return Object.fromEntries([...byOperation].map(([name, all]) => [name, all.length]))
}

const keyOf = async (digest: string) => {
  const [row] = await haven.query<{ key: string }>(
    'select l.key from artifacts.blob_locations l join artifacts.blobs b on b.id = l.blob_id where b.digest = $1',
    [digest],
  )
  return row!.key
}
const fileOf = async (digest: string) => join(store.folder, 'haven', await keyOf(digest))

const pull = (digest: string) => client.getBlob(repository, digest)
/** The same for a pull that may break off. */
const outcomeOf = (pulling: Promise<Answer>): Promise<Answer | 'broken off'> => pulling.catch(() => 'broken off')

/** I5, I7, I8 and I9 at rest. */
async function disagreements(): Promise<string[]> {
  const rows = await haven.query<{ key: string; size: string | null }>(`
    select l.key, b.size_bytes::text as size from artifacts.blob_locations l join artifacts.blobs b on b.id = l.blob_id
    union all select key, null from artifacts.uploads union all select key, null from artifacts.trash`)
  const known = new Map(rows.map(({ key, size }) => [key, size]))
  const files = filesBelow(join(store.folder, 'haven'))
  const said: string[] = []
  for (const [key, size] of known) {
    if (size === null) continue
    if (!files.has(key)) said.push(`I5: ${key} is recorded and missing`)
    else if (files.get(key) !== Number(size)) said.push(`I7: ${key} is partial`)
  }
  for (const name of files.keys()) {
    if (name.startsWith('o/') && !known.has(name)) said.push(`I5: ${name} is an orphan`)
    else if (!name.startsWith('o/')) said.push(`I8, I9: ${name} belongs to no object`)
  }
  return said
}

/** Ends what uploads were left and erases what is due, as garbage collection does after their time. */
async function sweep(): Promise<void> {
  await haven.query(`update artifacts.uploads set updated_at = now() - interval '1 day', locked_until = now()`)
  expect(await collectGarbage(client)).toBe('Success')
  await haven.query(`update artifacts.trash set erase_after = now()`)
  expect(await collectGarbage(client)).toBe('Success')
}

run(titled('the registry on S3', lack), () => {
  beforeAll(async () => {
    store = await startVersityGw()
    proxy = await S3Proxy.start(store.endpoint)
    haven = await startHaven({
      env: {
        ...store.settings,
        S3_ENDPOINT: proxy.endpoint,
        // Clients know the store by another name than Haven, or their token would go along.
        S3_PUBLIC_ENDPOINT: `http://localhost:${proxy.port}`,
        HAVEN_TRASH: '0s',
        REGISTRY_UPLOAD_LEASE: '2s',
        REGISTRY_UPLOAD_EXPIRY: '1m',
      },
    })
    client = new Client(haven.url)
    const names = [repository, 'library/two', 'library/three', 'library/fresh']
    expect((await client.signIn(names)).status).toBe(200)
    hastyReplica = await startReplica(haven, { S3_TIMEOUT: '1s' })
    hasty = client.at(hastyReplica.url)
  }, 120_000)

  afterEach(() => proxy.reset())

  afterAll(async () => {
    hasty?.close()
    client?.close()
    await hastyReplica?.[Symbol.asyncDispose]()
    await haven?.[Symbol.asyncDispose]()
    await proxy?.[Symbol.asyncDispose]()
    await store?.[Symbol.asyncDispose]()
  }, 60_000)

  describe('asks the store for little (P16)', () => {
    it.each([
      ['up to a part', 16 * MIB, { PutObject: 1 }],
      ['above', 16 * MIB + 1, { CreateMultipartUpload: 1, UploadPart: 1, CompleteMultipartUpload: 1 }],
      ['far above', 40 * MIB, { CreateMultipartUpload: 1, UploadPart: 3, CompleteMultipartUpload: 1 }],
    ])(
      'pushing a blob %s',
      async (_, size, expected) => {
        const bytes = randomBytes(size)
        const requests = await requestsOf(async () =>
          expect((await client.pushBlob(repository, bytes)).status).toBe(201),
        )
        expect(requests).toEqual(expected)
        expect(proxy.seen.some(({ copies }) => copies)).toBe(false)
        const got = await requestsOf(async () =>
          expect(digestOf((await client.getBlob(repository, digestOf(bytes))).body)).toBe(digestOf(bytes)),
        )
        expect(got).toEqual({ GetObject: 1 })
      },
      60_000,
    )

    it('and nothing for a manifest, a HEAD, a mount, a list or a token', async () => {
      const image = newImage()
      expect((await pushImage(client, repository, 'quiet', image)).status).toBe(201)
      const requests = await requestsOf(async () => {
        expect((await client.getManifest(repository, 'quiet')).status).toBe(200)
        expect((await client.getManifest(repository, image.digest)).status).toBe(200)
        for (const blob of image.layers) {
          expect((await client.headBlob(repository, digestOf(blob))).status).toBe(200)
          expect((await client.mount('library/two', digestOf(blob), repository)).status).toBe(201)
        }
        expect((await client.putManifest('library/two', 'quiet', image.manifest)).status).toBe(201)
        expect((await client.send('GET', `/v2/${repository}/tags/list`)).status).toBe(200)
        expect((await client.signIn([repository, 'library/two', 'library/three', 'library/fresh'])).status).toBe(200)
      })
      expect(requests).toEqual({})
    })
  })

  describe('redirects clients to the store when a setting says that they reach it', () => {
    let redirecting: Client
    let replica: Replica

    beforeAll(async () => {
      replica = await startReplica(haven, { REGISTRY_STORAGE_REDIRECT_DISABLE: 'false' })
      redirecting = client.at(replica.url)
    }, 60_000)
    afterAll(async () => {
      redirecting?.close()
      await replica?.[Symbol.asyncDispose]()
    })

    it('by 307 to a URL that needs nothing else, lives 20 minutes and stays the same', async () => {
      const bytes = randomBytes(64 * 1024)
      expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      let location = ''
      const requests = await requestsOf(async () => {
        const [one, two] = [
          await redirecting.getBlob(repository, digestOf(bytes)),
          await redirecting.getBlob(repository, digestOf(bytes)),
        ]
        expect(one).toMatchObject({
          status: 307,
          headers: { 'docker-content-digest': digestOf(bytes), 'cache-control': 'no-store' },
        })
        expect(one.body.length).toBe(0)
        location = one.headers.location!
        const signedAt = (url: string) => new URL(url).searchParams.get('X-Amz-Date')
        if (signedAt(location) === signedAt(two.headers.location!)) expect(two.headers.location).toBe(location)
      })
      expect(requests).toEqual({})
      const url = new URL(location)
      expect([url.hostname, url.searchParams.get('X-Amz-Expires')]).toEqual(['localhost', '1200'])
      const range = { Range: 'bytes=100-199' }
      expect(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(bytes)).toBe(true)
      expect(
        Buffer.from(await (await fetch(url, { headers: range })).arrayBuffer()).equals(bytes.subarray(100, 200)),
      ).toBe(true)
      // For this object only, and only to read it.
      expect((await fetch(location.replace(/\/o\/.*?\?/, '/o/00/other?'))).status).toBe(403)
      expect((await fetch(url, { method: 'DELETE' })).status).toBe(403)
    }, 60_000)

    it('but not a HEAD, a small blob, several ranges, If-Range, nor where the token would go along', async () => {
      const [large, small] = [randomBytes(100_000), randomBytes(60_000)]
      for (const bytes of [large, small]) expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      const path = `/v2/${repository}/blobs/${digestOf(large)}`
      expect((await redirecting.headBlob(repository, digestOf(large))).status).toBe(200)
      expect((await redirecting.getBlob(repository, digestOf(small))).body.equals(small)).toBe(true)
      const ranges = { range: 'bytes=0-9,20-29' }
      expect((await redirecting.send('GET', path, { headers: ranges })).status).toBe(206)
      const ifRange = { range: 'bytes=0-9', 'if-range': `"${digestOf(large)}"` }
      expect((await redirecting.send('GET', path, { headers: ifRange })).body.equals(large.subarray(0, 10))).toBe(true)
      const sameHost = { host: `localhost:${new URL(replica.url).port}` }
      expect((await redirecting.send('GET', path, { headers: sameHost })).body.equals(large)).toBe(true)
      expect((await redirecting.getManifest(repository, 'quiet')).status).toBe(200)
    }, 60_000)

    it('and no log keeps what the URL allows', async () => {
      const logs = readdirSync(join(haven.home, 'logs'), { recursive: true, encoding: 'utf8' })
        .map((name) => join(haven.home, 'logs', name))
        .filter((name) => statSync(name).isFile())
      expect(logs.length).toBeGreaterThan(0)
      for (const log of logs) expect(readFileSync(log, 'utf8')).not.toContain('X-Amz-Signature')
    })
  })

  describe('F27: a store under pressure', () => {
    it('costs a repetition for each failure and no more', async () => {
      proxy.chance = { slowDown: 0.2, errorBefore: 0.05, errorAfter: 0.05 }
      const blobs = Array.from({ length: 20 }, () => randomBytes(200_000))
      const answers = await Promise.all(blobs.map((bytes) => client.pushBlob(repository, bytes)))
      const { failures } = proxy
      const puts = proxy.seen.filter(
        ({ operation, bytesIn }) => operation === 'PutObject' && bytesIn === 200_000,
      ).length
      proxy.chance = { slowDown: 0, errorBefore: 0, errorAfter: 0 }
      for (const [i, { status }] of answers.entries()) {
        expect([201, 503]).toContain(status)
        if (status === 201) expect(digestOf((await pull(digestOf(blobs[i]!))).body)).toBe(digestOf(blobs[i]!))
      }
      expect(answers.filter(({ status }) => status === 201).length).toBeGreaterThan(10)
      expect(puts).toBeLessThanOrEqual(blobs.length + failures)
    }, 60_000)
  })

  describe('F28: the store does what was asked and says that it did not', () => {
    it.each([
      ['PutObject', 'error after', 100_000],
      ['PutObject', 'hang up after', 100_000],
      ['PutObject', 'silence after', 100_000],
      ['CreateMultipartUpload', 'error after', 17 * MIB],
      ['UploadPart', 'hang up after', 17 * MIB],
      ['CompleteMultipartUpload', 'error after', 17 * MIB],
      ['CompleteMultipartUpload', 'silence after', 17 * MIB],
    ] as const)(
      '%s, %s',
      async (operation, fault, size) => {
        const bytes = randomBytes(size)
        proxy.fail(operation, fault)
        const through = fault === 'silence after' ? hasty : client
        const { location } = await client.startUpload(repository)
        const sent = await (operation === 'PutObject' ? through : client).patch(location, bytes)
        expect(sent.status).toBe(202)
        expect((await through.finish(sent.headers.location!, digestOf(bytes))).status).toBe(201)
        // The probe of the store may have had the failure of a PutObject instead; then the push was undisturbed.
        expect(proxy.failures).toBe(1)
        expect(digestOf((await pull(digestOf(bytes))).body)).toBe(digestOf(bytes))
      },
      60_000,
    )

    it('DeleteObjects: what was erased counts as erased', async () => {
      const bytes = randomBytes(1000)
      // The second push finds the blob there, so its object is trash at once.
      const uploads = await Promise.all(['library/two', 'library/three'].map((name) => client.startUpload(name)))
      const sent = await Promise.all(uploads.map(({ location }) => client.patch(location, bytes)))
      for (const { headers } of sent) expect((await client.finish(headers.location!, digestOf(bytes))).status).toBe(201)
      proxy.fail('DeleteObjects', 'error after', 2)
      await sweep()
      expect(await disagreements()).toEqual([])
      expect((await client.getBlob('library/two', digestOf(bytes))).body.equals(bytes)).toBe(true)
    }, 90_000)
  })

  describe('F29: the store answers what is not so', () => {
    it('200 with an error document is no completed upload', async () => {
      const bytes = randomBytes(17 * MIB)
      proxy.fail('CompleteMultipartUpload', 'error in 200', 2)
      expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      expect(digestOf((await pull(digestOf(bytes))).body)).toBe(digestOf(bytes))
    }, 60_000)

    it('an answer that is cut short is asked for again, and never looks whole', async () => {
      // More than the registry keeps in memory.
      const bytes = randomBytes(1_300_000)
      expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      proxy.fail('GetObject', 'truncated', 2)
      expect(digestOf((await pull(digestOf(bytes))).body)).toBe(digestOf(bytes))
      proxy.fail('GetObject', 'truncated', 99)
      await expect(pull(digestOf(bytes))).rejects.toThrow()
    }, 60_000)

    it('an object that is shorter or longer than recorded is never sent as if it were whole', async () => {
      for (const sizeBytes of [1_200_000, 1_400_000]) {
        const bytes = randomBytes(1_300_000)
        expect((await client.pushBlob(repository, bytes)).status).toBe(201)
        truncateSync(await fileOf(digestOf(bytes)), sizeBytes)
        const answer = await outcomeOf(pull(digestOf(bytes)))
        // What is behind the recorded end is not asked for.
        if (sizeBytes > bytes.length) expect(answer).toMatchObject({ status: 200, body: bytes })
        else expect(answer).toBe('broken off')
        expect((await client.pushBlob(repository, bytes)).status).toBe(201)
        writeFileSync(await fileOf(digestOf(bytes)), bytes)
      }
    }, 60_000)

    it('an ETag of other bytes ends the upload, and a push from the beginning gets through', async () => {
      const bytes = randomBytes(17 * MIB)
      proxy.fail('UploadPart', 'wrong etag')
      const refused = await client.pushBlob(repository, bytes)
      expect(refused.status).toBe(404)
      expect(JSON.parse(refused.body.toString()).errors[0].code).toBe('BLOB_UPLOAD_UNKNOWN')
      expect((await client.headBlob(repository, digestOf(bytes))).status).toBe(404)
      expect((await client.pushBlob(repository, bytes)).status).toBe(201)
      expect(digestOf((await pull(digestOf(bytes))).body)).toBe(digestOf(bytes))
    }, 60_000)
  })

  describe('F30: a store that is a black hole', () => {
    it('ends in 503 by a deadline, while what needs no store is answered', async () => {
      const image = newImage()
      expect((await pushImage(hasty, repository, 'awake', image)).status).toBe(201)
      proxy.fail('PutObject', 'silence before', 999)
      proxy.fail('GetObject', 'silence before', 999)
      const pushes = Array.from({ length: 8 }, () => hasty.pushBlob(repository, randomBytes(100_000)))
      const reads = Array.from({ length: 8 }, () => outcomeOf(hasty.getBlob(repository, digestOf(image.layers[1]!))))
      let over = false
      const all = Promise.all([...pushes, ...reads]).finally(() => (over = true))
      let asked = 0
      while (!over) {
        for (const path of [`/v2/${repository}/manifests/awake`, `/v2/${repository}/tags/list`, '/api/v2.0/projects']) {
          expect((await hasty.send('GET', path, { timeoutMs: 5000 })).status).toBe(200)
          asked += 1
        }
      }
      expect(asked).toBeGreaterThan(10)
      for (const answer of (await all).slice(0, 8)) {
        expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': expect.any(String) } })
      }
      for (const answer of (await all).slice(8)) expect(answer === 'broken off' || answer.status >= 500).toBe(true)
      proxy.reset()
      await until(
        'the store to be used again',
        async () => (await hasty.getBlob(repository, digestOf(image.layers[1]!))).status === 200,
        15_000,
      )
    }, 90_000)

    it('a few bytes a second', async () => {
      const bytes = randomBytes(500)
      expect((await hasty.pushBlob(repository, bytes)).status).toBe(201)
      proxy.fail('GetObject', 'drip')
      const slow = hasty.getBlob(repository, digestOf(bytes))
      expect((await hasty.getManifest(repository, 'awake')).status).toBe(200)
      expect(digestOf((await slow).body)).toBe(digestOf(bytes))
    }, 60_000)
  })

  it('F31: a store without room is called that, leaves nothing, and is used again when there is room', async () => {
    const bytes = randomBytes(100_000)
    proxy.fail('PutObject', 'full', 99)
    const refused = await client.pushBlob(repository, bytes)
    expect({ status: refused.status, said: refused.body.toString() }).toEqual({
      status: 503,
      said: expect.stringContaining('no space is left'),
    })
    expect((await client.headBlob(repository, digestOf(bytes))).status).toBe(404)
    proxy.reset()
    const long = randomBytes(17 * MIB)
    proxy.fail('UploadPart', 'error before', 99)
    expect((await client.pushBlob(repository, long)).status).toBe(503)
    proxy.reset()
    for (const blob of [bytes, long]) expect((await client.pushBlob(repository, blob)).status).toBe(201)
    await sweep()
    expect(await disagreements()).toEqual([])
  }, 120_000)

  it('F32: what the store does not confirm is not acknowledged, and goes through when it does', async () => {
    const bytes = randomBytes(17 * MIB)
    const { location } = await client.startUpload(repository)
    const sent = await client.patch(location, bytes)
    proxy.fail('CompleteMultipartUpload', 'error before', 99)
    expect((await client.finish(sent.headers.location!, digestOf(bytes))).status).toBe(503)
    expect((await client.headBlob(repository, digestOf(bytes))).status).toBe(404)
    proxy.reset()
    expect((await client.finish(sent.headers.location!, digestOf(bytes))).status).toBe(201)
    expect(digestOf((await pull(digestOf(bytes))).body)).toBe(digestOf(bytes))
  }, 60_000)

  it('F33: an object that is gone is an error at once, and a push of the same bytes brings it back', async () => {
    const bytes = randomBytes(100_000)
    expect((await client.pushBlob(repository, bytes)).status).toBe(201)
    rmSync(await fileOf(digestOf(bytes)))
    const answer = await outcomeOf(pull(digestOf(bytes)))
    expect(answer === 'broken off' || answer.status >= 400).toBe(true)
    await until(
      'the loss to be marked',
      async () => (await client.headBlob(repository, digestOf(bytes))).status === 404,
      5000,
    )
    expect((await client.pushBlob(repository, bytes)).status).toBe(201)
    expect((await pull(digestOf(bytes))).body.equals(bytes)).toBe(true)
  }, 60_000)

  it('F34: what was acknowledged is there after the store was killed and started again on its folder', async () => {
    const load = startLoad(client, 34, { actors: 4, history })
    await until('some of the load', () => load.history.operations.length > 30, 30_000)
    process.kill(store.pid, 'SIGKILL')
    const again = await startVersityGw({ folder: store.folder })
    proxy.target = again.endpoint
    const before = load.history.operations.length
    await until('more of the load', () => load.history.operations.length > before + 30, 30_000)
    await load.stop()
    expect(await check(load.history, [client])).toEqual([])
    store = again
  }, 120_000)

  describe('F35: listings that show nothing or what is odd', () => {
    it('do not keep an upload that was given up in the store: its own row names it', async () => {
      const { location } = await client.startUpload(repository)
      const sent = await client.patch(location, randomBytes(22 * MIB))
      expect(sent.status).toBe(202)
      expect((await client.send('DELETE', sent.headers.location!)).status).toBe(204)
      proxy.reset()
      proxy.fail('ListMultipartUploads', 'empty', 99)
      proxy.fail('ListObjectsV2', 'empty', 99)
      await sweep()
      expect(proxy.requests.get('AbortMultipartUpload')).toBeGreaterThanOrEqual(1)
      expect(await disagreements()).toEqual([])
    }, 90_000)

    it('hold names that are none of ours', async () => {
      writeFileSync(join(store.folder, 'haven', 'o', 'stranger ü&<x>'), 'not ours')
      expect(await collectGarbage(client)).toBe('Success')
      expect(readFileSync(join(store.folder, 'haven', 'o', 'stranger ü&<x>'), 'utf8')).toBe('not ours')
      rmSync(join(store.folder, 'haven', 'o', 'stranger ü&<x>'))
    }, 60_000)
  })

  it('F36: garbage collection all the time, on a store that fails now and then, loses nothing', async () => {
    proxy.chance = { slowDown: 0.05, errorBefore: 0.02, errorAfter: 0.02 }
    const load = startLoad(client, 36, { actors: 6, history })
    for (let round = 0; round < 3; round++) expect(await collectGarbage(client)).toBe('Success')
    await load.stop()
    proxy.reset()
    expect(await check(load.history, [client])).toEqual([])
    await sweep()
    expect(await disagreements()).toEqual([])
  }, 180_000)
})
