import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { MemoryStorage } from '@haven/storage'
import { indexOf, ociIndex, ociManifest, sha256, startRegistry, type Ask, type TestRegistry } from './harness.ts'

let registry: TestRegistry
const storage = new MemoryStorage()
const ask = (method: string, path: string, given?: Ask, copy?: number) => registry.ask(method, path, given, copy)
const statusOf = async (method: string, path: string) => (await ask(method, path)).status
const errorOf = (answer: { json: () => any }) => answer.json().errors[0]
const pushIndex = (repository: string, reference: string, body: Uint8Array) =>
  ask('PUT', `/v2/${repository}/manifests/${reference}`, { body, headers: { 'content-type': ociIndex } })

beforeAll(async () => {
  registry = await startRegistry({ storage, copies: 2 })
})
afterAll(async () => {
  await registry[Symbol.asyncDispose]()
  await storage[Symbol.asyncDispose]()
})

describe('immutable tags', () => {
  const rule = (repository: string, tags: string, more: object = {}) =>
    registry.db.prisma.immutableRule.create({
      data: {
        projectId: registry.ids.acme!,
        rule: {
          template: 'immutable_template',
          tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: tags, ...more }],
          scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: repository }] },
        },
      },
    })

  it('are made once, and then neither pushed again, moved nor deleted, with Harbor’s texts and the rule that says so', async () => {
    const { id } = await rule('frozen/**', 'v*')
    registry.projects.forget()
    const first = await registry.pushImage('acme/frozen/app', 'v1')
    expect(first.put.status).toBe(201)
    const again = await ask('PUT', '/v2/acme/frozen/app/manifests/v1', {
      body: first.manifest,
      headers: { 'content-type': ociManifest },
    })
    expect({ status: again.status, error: errorOf(again) }).toEqual({
      status: 412,
      error: {
        code: 'PRECONDITION',
        message: "Failed to process request due to 'frozen/app:v1' configured as immutable.",
        detail: expect.objectContaining({
          tag: 'v1',
          reasons: [`rule ${id} protects the tags v* of the repositories frozen/**`],
        }),
      },
    })
    const moved = await registry.pushImage('acme/frozen/app', 'v1')
    expect(moved.put.status).toBe(412)
    // What was refused left nothing.
    expect(await statusOf('HEAD', `/v2/acme/frozen/app/manifests/${moved.digest}`)).toBe(404)
    for (const path of ['v1', first.digest]) {
      const refused = await ask('DELETE', `/v2/acme/frozen/app/manifests/${path}`)
      expect({ status: refused.status, message: errorOf(refused).message }).toEqual({
        status: 412,
        message: 'the tag v1 configured as immutable, cannot be deleted',
      })
    }
    expect((await registry.pushImage('acme/frozen/app', 'latest')).put.status).toBe(201)
    expect((await registry.pushImage('acme/frozen/app', 'latest')).put.status).toBe(201)
    expect((await registry.pushImage('acme/thawed/app', 'v1')).put.status).toBe(201)
    expect((await registry.pushImage('acme/thawed/app', 'v1')).put.status).toBe(201)
  })

  it('keep the media type of what they are on, which the bytes need not say', async () => {
    const repository = 'acme/frozen/untyped'
    await rule('frozen/untyped', 'v*')
    registry.projects.forget()
    const untyped = { mediaType: undefined }
    const put = (reference: string, body: Uint8Array, type: string) =>
      ask('PUT', `/v2/${repository}/manifests/${reference}`, { body, headers: { 'content-type': type } })
    const frozen = await registry.pushImage(repository, 'v1', { extra: untyped })
    const free = await registry.pushImage(repository, 'free', { extra: untyped })
    for (const [{ digest, manifest }, status, type] of [
      [frozen, 412, ociManifest],
      [free, 201, 'application/vnd.example+json'],
    ] as const) {
      expect((await put(digest, manifest, 'application/vnd.example+json')).status).toBe(status)
      const got = await ask('GET', `/v2/${repository}/manifests/${digest}`)
      expect(got.headers.get('content-type')).toBe(type)
    }
    expect((await put(frozen.digest, frozen.manifest, ociManifest)).status).toBe(201)
  })

  it('leave cosign its tags, which it adds signatures to', async () => {
    await rule('signed', '**')
    registry.projects.forget()
    const image = await registry.pushImage('acme/signed', 'v1')
    const tag = `${image.digest.replace(':', '-')}.sig`
    expect((await registry.pushImage('acme/signed', tag)).put.status).toBe(201)
    expect((await registry.pushImage('acme/signed', tag)).put.status).toBe(201)
    expect((await registry.pushImage('acme/signed', 'v1')).put.status).toBe(412)
  })

  it('can be all but what a pattern names, and a pattern that is none protects nothing', async () => {
    await rule('inverted', 'dev-*', { decoration: 'excludes' })
    await rule('broken', '[')
    registry.projects.forget()
    for (const tag of ['dev-1', 'r1']) await registry.pushImage('acme/inverted', tag)
    expect((await registry.pushImage('acme/inverted', 'dev-1')).put.status).toBe(201)
    expect((await registry.pushImage('acme/inverted', 'r1')).put.status).toBe(412)
    await registry.pushImage('acme/broken', 'v1')
    expect((await registry.pushImage('acme/broken', 'v1')).put.status).toBe(201)
  })
})

describe('a quota', () => {
  const limit = async (bytes: number) => {
    const project = { projectId: registry.ids.other! }
    await registry.db.prisma.quota.update({ where: project, data: { hardBytes: BigInt(bytes) } })
    registry.projects.forget()
  }
  const left = async () => {
    const [uploads, deltas] = await Promise.all([
      registry.db.prisma.upload.count({ where: { projectId: registry.ids.other! } }),
      registry.db.prisma.quotaDelta.aggregate({
        where: { projectId: registry.ids.other! },
        _sum: { deltaBytes: true },
      }),
    ])
    return { uploads, used: Number(deltas._sum.deltaBytes ?? 0) }
  }
  const admin = { as: 'admin' } as const
  const overQuota = { code: 'DENIED', message: expect.stringContaining('Quota exceeded when processing the request') }

  it('A90: ends an upload as soon as it cannot fit, and leaves nothing of it', async () => {
    await limit(10_000)
    const bytes = randomBytes(20_000)
    const path = '/v2/other/full/blobs/uploads/'
    const single = await ask('POST', `${path}?digest=${sha256(bytes)}`, { ...admin, body: bytes })
    expect({ status: single.status, error: errorOf(single) }).toMatchObject({ status: 403, error: overQuota })

    const opened = await ask('POST', path, admin)
    const chunk = await ask('PATCH', opened.headers.get('location')!, { ...admin, body: bytes.subarray(0, 9_000) })
    expect(chunk.status).toBe(202)
    const more = await ask('PATCH', opened.headers.get('location')!, { ...admin, body: bytes.subarray(9_000, 12_000) })
    expect({ status: more.status, error: errorOf(more) }).toMatchObject({ status: 403, error: overQuota })
    expect((await ask('GET', opened.headers.get('location')!, admin)).status).toBe(404)

    // A body of no stated length, as good as endless: it ends because it does not fit, not because it ends.
    const endless = await ask('POST', path, admin)
    let sent = 0
    const stream = new ReadableStream({
      pull(controller) {
        sent += 65_536
        if (sent < 128 * 1024 * 1024) controller.enqueue(randomBytes(65_536))
        else controller.close()
      },
    })
    const refused = await ask('PATCH', endless.headers.get('location')!, { ...admin, body: stream }).then(
      ({ status }) => status,
      () => 'cut off',
    )
    expect([403, 'cut off']).toContain(refused)
    expect(sent).toBeLessThan(64 * 1024 * 1024)
    expect(await left()).toEqual({ uploads: 0, used: 0 })
  })

  it('lets in what the project has already in another repository, however little is left', async () => {
    await limit(50_000)
    const bytes = randomBytes(40_000)
    await registry.pushBlob('other/a', bytes, admin)
    const before = await left()
    await registry.pushBlob('other/b', bytes, admin)
    const opened = await ask('POST', '/v2/other/c/blobs/uploads/', admin)
    const location = opened.headers.get('location')!
    expect((await ask('PATCH', location, { ...admin, body: bytes })).status).toBe(202)
    expect((await ask('PUT', `${location}?digest=${sha256(bytes)}`, admin)).status).toBe(201)
    expect(await left()).toEqual(before)
  })

  it('refuses a manifest that does not fit, and warns when little is left', async () => {
    await limit(-1)
    const image = await registry.pushImage('other/m', 'v1', admin)
    const { used } = await left()
    await limit(used + 100)
    const big = { ...admin, body: indexOf([{ digest: image.digest, size: image.manifest.length }]) }
    const refused = await ask('PUT', '/v2/other/m/manifests/idx', { ...big, headers: { 'content-type': ociIndex } })
    expect({ status: refused.status, error: errorOf(refused) }).toMatchObject({ status: 403, error: overQuota })
    expect((await ask('HEAD', '/v2/other/m/manifests/idx', admin)).status).toBe(404)

    await limit(Math.ceil((used + 1000) / 0.9))
    const warned = await ask('PUT', '/v2/other/m/manifests/idx', { ...big, headers: { 'content-type': ociIndex } })
    expect(warned.status).toBe(201)
    expect(warned.headers.get('warning')).toMatch(/^299 - "the project other has used 8\d % of its storage quota"$/)
  })
})

describe('what goes with a manifest', () => {
  it('is its untagged children that no other index names, at any depth', async () => {
    const repository = 'acme/family'
    const [alone, tagged, shared] = await Promise.all(
      ['alone', 'tagged', 'shared'].map((tag) => registry.pushImage(repository, tag)),
    )
    const entry = (image: { digest: string; manifest: Uint8Array }) => ({
      digest: image.digest,
      size: image.manifest.length,
    })
    const inner = indexOf([entry(alone!), entry(tagged!)])
    await pushIndex(repository, 'inner', inner)
    const outer = indexOf([
      { digest: sha256(inner), size: inner.length, mediaType: ociIndex },
      entry(alone!),
      entry(shared!),
    ])
    await pushIndex(repository, 'outer', outer)
    await pushIndex(repository, 'other', indexOf([entry(shared!)]))
    for (const tag of ['alone', 'shared', 'inner']) {
      expect(await statusOf('DELETE', `/v2/${repository}/manifests/${tag}`)).toBe(202)
    }
    expect(await statusOf('DELETE', `/v2/${repository}/manifests/${sha256(outer)}`)).toBe(202)
    const there = async (digest: string) => (await statusOf('HEAD', `/v2/${repository}/manifests/${digest}`)) === 200
    expect({
      outer: await there(sha256(outer)),
      inner: await there(sha256(inner)),
      alone: await there(alone!.digest),
      tagged: await there(tagged!.digest),
      shared: await there(shared!.digest),
    }).toEqual({ outer: false, inner: false, alone: false, tagged: true, shared: true })
  })

  it('is what cosign attached by tags, which are accessories as long as the tag is on them', async () => {
    const repository = 'acme/cosigned'
    const image = await registry.pushImage(repository, 'v1')
    const name = image.digest.replace(':', '-')
    const first = await registry.pushImage(repository, `${name}.sig`)
    const second = await registry.pushImage(repository, `${name}.sig`)
    const attestation = await registry.pushImage(repository, `${name}.att`)
    const about = { subjectDigest: image.digest, deletedAt: null }
    const accessories = await registry.db.prisma.manifest.findMany({ where: about, orderBy: { id: 'asc' } })
    expect(accessories.map((manifest) => manifest.digest)).toEqual([second.digest, attestation.digest])
    // Their bytes name no subject: to OCI they are no referrers, and cosign copies them by their tags.
    expect((await ask('GET', `/v2/${repository}/referrers/${image.digest}`)).json().manifests).toEqual([])
    expect(await statusOf('HEAD', `/v2/${repository}/manifests/${name}`)).toBe(404)
    expect(await statusOf('DELETE', `/v2/${repository}/manifests/${image.digest}`)).toBe(202)
    for (const gone of [second, attestation]) {
      expect(await statusOf('HEAD', `/v2/${repository}/manifests/${gone.digest}`)).toBe(404)
    }
    // Left by its tag before, it is an untagged manifest like others.
    expect(await statusOf('HEAD', `/v2/${repository}/manifests/${first.digest}`)).toBe(200)
    expect((await ask('GET', `/v2/${repository}/tags/list`)).json().tags).toEqual([])
  })

  it('is the index under the fallback tag, with what only that names', async () => {
    const repository = 'acme/fallen-back'
    const image = await registry.pushImage(repository, 'v1')
    const subject = { mediaType: ociManifest, digest: image.digest, size: image.manifest.length }
    const about = await registry.pushImage(repository, 'about', { extra: { subject } })
    const named = await registry.pushImage(repository, 'named')
    const cosigned = await registry.pushImage(repository, `${image.digest.replace(':', '-')}.sig`)
    const entries = [about, named, cosigned].map(({ digest, manifest }) => ({ digest, size: manifest.length }))
    const fallback = indexOf(entries)
    expect((await pushIndex(repository, image.digest.replace(':', '-'), fallback)).status).toBe(201)
    for (const tag of ['about', 'named']) await ask('DELETE', `/v2/${repository}/manifests/${tag}`)
    // Also what is an accessory by its tag: a client said in the index that it is a referrer.
    const listed = await ask('GET', `/v2/${repository}/referrers/${image.digest}`)
    const digests = listed.json().manifests.map(({ digest }: { digest: string }) => digest)
    expect([new Set(digests), listed.headers.get('x-total-count')]).toEqual([
      new Set(entries.map((e) => e.digest)),
      '3',
    ])
    // An index that is tagged by its own digest is about nothing.
    const tagged = indexOf([{ digest: named.digest, size: named.manifest.length }])
    await pushIndex(repository, sha256(tagged).replace(':', '-'), tagged)

    expect(await statusOf('DELETE', `/v2/${repository}/manifests/${image.digest}`)).toBe(202)
    const there = async (digest: string) => (await statusOf('HEAD', `/v2/${repository}/manifests/${digest}`)) === 200
    expect({
      fallback: await there(sha256(fallback)),
      about: await there(about.digest),
      cosigned: await there(cosigned.digest),
      named: await there(named.digest),
      tagged: await there(sha256(tagged)),
    }).toEqual({ fallback: false, about: false, cosigned: false, named: true, tagged: true })
    expect(await statusOf('DELETE', `/v2/${repository}/manifests/${sha256(tagged)}`)).toBe(202)
    expect(await there(named.digest)).toBe(false)
  })
})

describe('lists', () => {
  it('of tags come with times and digests on request', async () => {
    const one = await registry.pushImage('acme/timed', 'a')
    await registry.pushImage('acme/timed', 'b')
    const page = await ask('GET', '/v2/acme/timed/tags/list?details=true&n=1')
    expect(page.json()).toEqual({
      name: 'acme/timed',
      tags: ['a'],
      details: [
        {
          tag: 'a',
          digest: one.digest,
          mediaType: ociManifest,
          sizeBytes: one.manifest.length + one.layer.length + one.config.length,
          pushedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
        },
      ],
    })
    const link = page.headers.get('link')!
    const next = /^<([^>]+)>/.exec(link)![1]!
    expect((await ask('GET', next)).json()).toMatchObject({ tags: ['b'], details: [{ tag: 'b' }] })
    expect((await ask('GET', '/v2/acme/timed/tags/list')).json()).toEqual({ name: 'acme/timed', tags: ['a', 'b'] })
    expect((await ask('GET', '/v2/acme/none/tags/list?details=true')).status).toBe(404)
  })

  it('of referrers say how many there are before the filter, as Harbor does', async () => {
    const image = await registry.pushImage('acme/counted', 'v1')
    const subject = { mediaType: ociManifest, digest: image.digest, size: image.manifest.length }
    for (const artifactType of ['a/one', 'a/two']) {
      await registry.pushImage('acme/counted', artifactType.slice(2), { extra: { subject, artifactType } })
    }
    const path = `/v2/acme/counted/referrers/${image.digest}`
    const filtered = await ask('GET', `${path}?artifactType=a/one`)
    expect(filtered.json().manifests).toHaveLength(1)
    expect(filtered.headers.get('x-total-count')).toBe('2')
    expect((await ask('GET', `${path}?n=1`)).headers.get('x-total-count')).toBe('2')
    const none = await ask('GET', `/v2/acme/counted/referrers/${sha256('nobody')}`)
    expect([none.status, none.headers.get('x-total-count')]).toEqual([200, '0'])
  })
})

describe('a request', () => {
  it('may name the registry that it thinks it is talking to (ns), which changes nothing', async () => {
    const image = await registry.pushImage('acme/mirrored', 'v1')
    for (const path of ['manifests/v1', `blobs/${image.layerDigest}`]) {
      const plain = await ask('GET', `/v2/acme/mirrored/${path}`)
      const named = await ask('GET', `/v2/acme/mirrored/${path}?ns=docker.io`)
      expect([named.status, named.body.equals(plain.body)]).toEqual([200, true])
    }
  })

  it('for the extensions of the specification learns that there are none, if it may read there', async () => {
    await registry.pushImage('acme/mirrored', 'extended')
    for (const path of ['/v2/_oci/ext/discover', '/v2/acme/mirrored/_oci/ext/discover']) {
      const scope = 'repository:acme/mirrored:pull'
      expect((await ask('GET', path, { scope })).json()).toEqual({ extensions: [] })
      expect((await ask('HEAD', path, { scope })).status).toBe(200)
      expect((await ask('GET', path, { as: 'nobody' })).status).toBe(401)
    }
    expect((await ask('GET', '/v2/acme/mirrored/_oci/ext/discover', { as: 'stranger' })).status).toBe(401)
  })

  it('that pushes an index with absent children is told so', async () => {
    const absent = sha256('absent')
    const pushed = await pushIndex('acme/sparse', 'v1', indexOf([{ digest: absent, size: 7 }]))
    expect(pushed.status).toBe(201)
    expect(pushed.headers.get('warning')).toBe(
      `299 - "the index names 1 manifests that the repository does not have, among them ${absent}"`,
    )
  })

  it('is told the path of the first fault of a manifest', async () => {
    const body = JSON.stringify({ schemaVersion: 2, config: { mediaType: 'a/b', size: 1, digest: 'sha256:zz' } })
    const refused = await ask('PUT', '/v2/acme/faulty/manifests/v1', { body, headers: { 'content-type': ociManifest } })
    expect({ status: refused.status, error: errorOf(refused) }).toEqual({
      status: 400,
      error: {
        code: 'MANIFEST_INVALID',
        message: 'manifest invalid: config.digest is not a digest',
        detail: { reason: 'config.digest is not a digest', path: 'config.digest' },
      },
    })
  })
})

describe('a blob whose bytes are lost', () => {
  it('is absent from the first read on, and a push brings it back', async () => {
    const repository = 'acme/lost'
    // Smaller ones may be in memory.
    const bytes = randomBytes(300_000)
    const digest = await registry.pushBlob(repository, bytes)
    const path = `/v2/${repository}/blobs/${digest}`
    expect(await statusOf('GET', path)).toBe(200)
    const [row] = await registry.db.prisma.blobLocation.findMany({ where: { blob: { digest } } })
    await storage.remove([row!.key])

    const lost = await ask('GET', path)
    expect({ status: lost.status, code: errorOf(lost).code, cache: lost.headers.get('cache-control') }).toEqual({
      status: 404,
      code: 'BLOB_UNKNOWN',
      cache: null,
    })
    expect(await statusOf('HEAD', path)).toBe(404)
    expect(await registry.pushBlob(repository, bytes)).toBe(digest)
    expect((await ask('GET', path)).body.equals(bytes)).toBe(true)
  })

  const keyOf = async (digest: string) =>
    (await registry.db.prisma.blobLocation.findFirstOrThrow({ where: { blob: { digest } } })).key
  const damages: [string, (key: string, bytes: Buffer) => Promise<unknown>][] = [
    ['gone', (key) => storage.remove([key])],
    ['cut off', (key, bytes) => put(key, bytes.subarray(0, 500))],
    ['another', (key, bytes) => put(key, Buffer.from(bytes).fill(0, 500))],
  ]
  async function put(key: string, bytes: Buffer) {
    await storage.remove([key])
    const { state } = await storage.append(key, null, 0, Readable.from([bytes]))
    await storage.complete(key, state, bytes.length)
  }

  it.each(damages)(
    'while this process has them in memory: a push of the same digest replaces the object that is %s',
    async (_, damage) => {
      const repository = 'acme/remembered'
      const bytes = randomBytes(1000)
      const digest = await registry.pushBlob(repository, bytes)
      const path = `/v2/${repository}/blobs/${digest}`
      expect(await statusOf('GET', path)).toBe(200)
      const key = await keyOf(digest)
      await damage(key, bytes)
      expect(await registry.pushBlob('acme/elsewhere', bytes)).toBe(digest)
      expect(await keyOf(digest)).not.toBe(key)
      // By a process that has nothing in memory.
      expect((await ask('GET', path, {}, 1)).body.equals(bytes)).toBe(true)
    },
  )

  it('leaves a sound object where it is when it is pushed again', async () => {
    const bytes = randomBytes(1000)
    const digest = await registry.pushBlob('acme/sound', bytes)
    const key = await keyOf(digest)
    await registry.pushBlob('acme/sound', bytes)
    expect(await keyOf(digest)).toBe(key)
  })

  it.each(['mia', 'gus'] as const)(
    'is absent for a HEAD (as %s), and no source of a mount, to a process that has not seen them lately (A88)',
    async (as) => {
      const repository = 'acme/unseen'
      const bytes = randomBytes(1000)
      const digest = await registry.pushBlob(repository, bytes)
      const path = `/v2/${repository}/blobs/${digest}`
      const scope = `repository:${repository}:pull`
      expect((await ask('GET', path, {}, 0)).status).toBe(200)
      await storage.remove([await keyOf(digest)])
      const mount = `/v2/acme/target/blobs/uploads/?mount=${digest}&from=${repository}`
      const scopes = `repository:acme/target:pull,push ${scope}`
      expect((await ask('POST', mount, { scope: scopes }, 1)).status).toBe(202)
      expect((await ask('HEAD', path, as === 'gus' ? { as, scope } : {}, 1)).status).toBe(404)
      // It is marked: now also where the bytes are in memory.
      expect([await statusOf('HEAD', path), await statusOf('GET', path)]).toEqual([404, 404])
      await registry.pushBlob(repository, bytes)
      expect([await statusOf('HEAD', path), await statusOf('GET', path)]).toEqual([200, 200])
    },
  )

  it('is absent when the bytes of a small one are not those of its digest', async () => {
    const repository = 'acme/other-bytes'
    const bytes = randomBytes(1000)
    const digest = await registry.pushBlob(repository, bytes)
    await put(await keyOf(digest), randomBytes(1000))
    const path = `/v2/${repository}/blobs/${digest}`
    const answer = await ask('GET', path)
    expect([answer.status, errorOf(answer).code]).toEqual([404, 'BLOB_UNKNOWN'])
    expect(await statusOf('HEAD', path)).toBe(404)
    await registry.pushBlob(repository, bytes)
    expect((await ask('GET', path)).body.equals(bytes)).toBe(true)
  })
})

describe('the count of referrers', () => {
  it('has what the fallback tag holds as well', async () => {
    const image = await registry.pushImage('acme/fallback', 'v1')
    const tag = image.digest.replace(':', '-')
    await pushIndex('acme/fallback', tag, indexOf([{ digest: sha256('elsewhere'), size: 3 }]))
    const list = await ask('GET', `/v2/acme/fallback/referrers/${image.digest}`)
    expect([list.json().manifests.length, list.headers.get('x-total-count')]).toEqual([1, '1'])
  })
})
