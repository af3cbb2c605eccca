import { createHash, randomBytes } from 'node:crypto'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, idIn, send, until, type Account, type Image, type Reply } from '../flows/client.ts'
import { raw, request } from './raw.ts'

const IMAGE = 'application/vnd.oci.image.manifest.v1+json'
const INDEX = 'application/vnd.oci.image.index.v1+json'
const CONFIG = 'application/vnd.oci.image.config.v1+json'
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'

const digestOf = (bytes: string | Uint8Array, algorithm = 'sha256') =>
  `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`
const ABSENT = `sha256:${'0'.repeat(64)}`

let haven: HavenInstallation
let client: Client
let alice: Account & { id: number }
let bob: Account & { id: number }
let token: string
let his: string
let image: Image
let others: Image

beforeAll(async () => {
  haven = await startHaven()
  client = new Client(haven.url)
  ;[alice, bob] = await Promise.all([client.user('alice'), client.user('bob')])
  await client.project('a', alice)
  await client.project('b', bob)
  token = await client.token(alice, 'a/app')
  his = await client.token(bob, 'b/app')
  image = await client.pushImage('a/app', '1', token)
  others = await client.pushImage('b/app', '1', his)
}, 120_000)
afterAll(async () => haven?.[Symbol.asyncDispose](), 60_000)

const codeOf = ({ json }: Reply) => (json as { errors: { code: string }[] } | null)?.errors[0]?.code
const auth = (bearer = token) => ({ Authorization: `Bearer ${bearer}` })
const open = async (bearer = token, repository = 'a/app') =>
  (await client.v2('POST', `${repository}/blobs/uploads/`, bearer)).headers.get('location')!
const patch = (at: string, body: string | Uint8Array, headers = {}, bearer = token) =>
  send(haven.url + at, 'PATCH', {
    headers: { ...auth(bearer), 'Content-Type': 'application/octet-stream', ...headers },
    body,
  })
const put = (at: string, digest: string, body: string | Uint8Array = '', bearer = token) =>
  send(`${haven.url}${at}?digest=${digest}`, 'PUT', { headers: auth(bearer), body })
const putManifest = (reference: string, body: object | string | Uint8Array, type: string | null = IMAGE) =>
  client.v2('PUT', `a/app/manifests/${reference}`, token, {
    headers: type === null ? {} : { 'Content-Type': type },
    body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
  })
const described = (digest: string, size: number, mediaType = LAYER) => ({ mediaType, digest, size })
const manifest = (more: object = {}) => ({
  schemaVersion: 2,
  mediaType: IMAGE,
  config: described(image.layer, image.layerBytes, CONFIG),
  layers: [described(image.layer, image.layerBytes)],
  ...more,
})
const usageOf = async (project: string) =>
  Number(
    ((await client.mustApi('GET', `/projects/${project}/summary`)).json as { quota: { used: { storage: number } } })
      .quota.used.storage,
  )

describe('what belongs to somebody else', () => {
  it('A28 is not there, by the digest of its blob or its manifest, though the bytes are', async () => {
    for (const method of ['GET', 'HEAD'])
      for (const path of [`blobs/${others.layer}`, `manifests/${others.digest}`])
        expect([method, path, (await client.v2(method, `a/app/${path}`, token)).status]).toEqual([method, path, 404])
    const about = await client.v2('GET', `a/app/referrers/${others.digest}`, token)
    expect([about.status, (about.json as { manifests: unknown[] }).manifests]).toEqual([200, []])
    const borrowed = await putManifest('borrowed', manifest({ layers: [described(others.layer, others.layerBytes)] }))
    expect([borrowed.status, codeOf(borrowed)]).toEqual([404, 'MANIFEST_BLOB_UNKNOWN'])
  })

  it('A29 an upload is of who began it, where he began it', async () => {
    await client.member('a', bob.name, 2, alice)
    try {
      const colleague = await client.token(bob, 'a/app')
      const at = await open()
      const body = randomBytes(100)
      expect((await patch(at, body)).status).toBe(202)
      const elsewhere = at.replace('/v2/a/app/', '/v2/b/app/')
      const inAnother = at.replace('/v2/a/app/', '/v2/a/other/')
      const own = await client.token(alice, 'a/other')
      for (const [path, bearer] of [
        [at, colleague],
        [elsewhere, his],
        [inAnother, own],
      ] as const) {
        const tries = [
          await send(haven.url + path, 'GET', { headers: auth(bearer) }),
          await patch(path, 'evil', {}, bearer),
          await put(path, digestOf(body), '', bearer),
          await send(haven.url + path, 'DELETE', { headers: auth(bearer) }),
        ]
        expect(tries.map((reply) => [reply.status, codeOf(reply)])).toEqual(
          tries.map(() => [404, 'BLOB_UPLOAD_UNKNOWN']),
        )
      }
      expect((await put(at, digestOf(body))).status).toBe(201)
      expect((await put(at, digestOf(body))).status).toBe(404)
    } finally {
      const members = (await client.mustApi('GET', '/projects/a/members', alice)).json as {
        id: number
        entity_name: string
      }[]
      const { id } = members.find(({ entity_name: name }) => name === bob.name)!
      await client.mustApi('DELETE', `/projects/a/members/${id}`, alice)
    }
  })

  it('A29 the id of an upload is ours to choose, and cannot be guessed from another', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, async () => (await open()).split('/').at(-1)!))
    expect(new Set(ids.map((id) => id.slice(0, 8))).size).toBe(5)
    const chosen = '11111111-1111-4111-8111-111111111111'
    expect((await client.v2('POST', `a/app/blobs/uploads/${chosen}`, token)).status).toBe(405)
    expect((await patch(`/v2/a/app/blobs/uploads/${chosen}`, 'x')).status).toBe(404)
    const started = await client.v2('POST', `a/app/blobs/uploads/?uuid=${chosen}&id=${chosen}`, token)
    expect(started.headers.get('location')).not.toContain(chosen)
  })

  it('A89 referrers are read like anything else, and only of their own repository', async () => {
    const subject = described(image.digest, 500, IMAGE)
    const about = manifest({ artifactType: 'application/x.abuse', subject })
    expect((await putManifest('about', about)).status).toBe(201)
    const list = (repository: string, digest: string, bearer: string | null, query = '') =>
      client.v2('GET', `${repository}/referrers/${digest}${query}`, bearer)
    const found = async (...of: Parameters<typeof list>) =>
      ((await list(...of)).json as { manifests: { digest: string }[] }).manifests.length
    expect(await found('a/app', image.digest, token)).toBe(1)
    expect(await found('a/app', ABSENT, token)).toBe(0)
    expect(await found('b/app', image.digest, his)).toBe(0)
    const visitor = await client.token(null, 'a/app')
    for (const bearer of [null, his, visitor])
      for (const digest of [image.digest, ABSENT]) expect((await list('a/app', digest, bearer)).status).toBe(401)
    for (const digest of ['sha256:abc', 'latest', 'sha256:..%2f'])
      expect([digest, [400, 404].includes((await list('a/app', digest, token)).status)]).toEqual([digest, true])
    for (const type of ['%00', '%0d%0a', "'--", '%25', '*', 'a'.repeat(4000), '%F0%9F%92%A9', '%ff']) {
      const reply = await list('a/app', image.digest, token, `?artifactType=${type}`)
      const shown = reply.status === 200 ? (reply.json as { manifests: unknown[] }).manifests.length : 0
      expect([type, [200, 400].includes(reply.status), shown]).toEqual([type, true, 0])
    }
  })
})

describe('names', () => {
  it.each<[string, number[]]>([
    ['/v2/a/../b/app/manifests/1', [404]],
    ['/v2/a/%2e%2e/b/app/manifests/1', [404]],
    ['/v2/a/..%2fb/app/manifests/1', [404]],
    ['/v2/a%2fapp/manifests/1', [404]],
    ['/v2/a/%252e%252e/b/app/manifests/1', [400]],
    ['/v2/a\\app/manifests/1', [404]],
    ['/v2//a/app/manifests/1', [404]],
    ['/v2/a/app//manifests/1', [404]],
    ['/v2/a/app/manifests/../../../b/app/manifests/1', [404]],
    ['/v2/a/app/manifests/..%2f1', [404]],
    ['/v2/a/app/manifests/%00', [400]],
    ['/v2/a/app/manifests/1%00', [400]],
    ['/v2/a/app/manifests/1/', [404]],
    ['/v2/A/app/manifests/1', [400]],
    ['/v2/a/App/manifests/1', [400]],
    ['/v2/a/.app/manifests/1', [400]],
    ['/v2/a/app-/manifests/1', [400]],
    ['/v2/a/%C3%A9/manifests/1', [400]],
    ['/v2/a/%E2%80%AEapp/manifests/1', [400]],
    ['/v2/a/%EF%BD%81/manifests/1', [400]],
    [`/v2/a/${'x'.repeat(300)}/manifests/1`, [400]],
    [`/v2/${'a/'.repeat(200)}app/manifests/1`, [400]],
    [`/v2/a/app/manifests/${'x'.repeat(129)}`, [404]],
    ['/v2/a/app/blobs/sha256:../../x', [404]],
    ['/v2/a/app/blobs/sha256:%2e%2e', [400]],
    ['/v2/a/app/blobs/uploads/..', [404]],
    ['/v2/a/app/blobs/uploads/%2e%2e%2f%2e%2e', [404]],
    ['/v2/a/app/blobs/uploads/a.b', [404]],
    [`/v2/a/app/blobs/uploads/${'x'.repeat(129)}`, [404]],
    ['/v2/a/app/blobs/uploads/none', [404]],
  ])('A81 %s leads nowhere', async (path, expected) => {
    for (const method of ['GET', 'PUT', 'PATCH', 'DELETE']) {
      const { statuses } = await raw(
        haven.url,
        request(method, path, [`Authorization: Bearer ${token}`, `Content-Type: ${IMAGE}`, 'Content-Length: 2'], '{}'),
      )
      // A method that a path does not have, and what only a push is told of a reference.
      expect([method, [...expected, 405, ...(method === 'PUT' ? [400] : [])].includes(statuses[0]!)]).toEqual([
        method,
        true,
      ])
    }
    expect((await client.pull('b/app', '1', his)).headers.get('docker-content-digest')).toBe(others.digest)
    expect((await client.pull('a/app', '1', token)).headers.get('docker-content-digest')).toBe(image.digest)
  })

  it.each([
    'a/manifests/b',
    'a/blobs/uploads',
    'a/tags/list',
    'a/app/referrers',
    'a/blobs/uploads/x',
    'a/_x'.replace('_', 'v2/'),
  ])('A81 a repository may be called %s, and is found by no other name', async (name) => {
    const bearer = await client.token(alice, name)
    const pushed = await client.pushImage(name, 'tag', bearer)
    expect((await client.pull(name, 'tag', bearer)).headers.get('docker-content-digest')).toBe(pushed.digest)
    expect((await client.v2('GET', `${name}/tags/list`, bearer)).json).toEqual({ name, tags: ['tag'] })
  })

  it('A81 no name or digest of a client is part of the path of a file', () => {
    const files = readdirSync(join(haven.home, 'blobs'), { recursive: true, encoding: 'utf8' })
    expect(files.length).toBeGreaterThan(3)
    for (const text of ['app', 'sha256', image.layer.slice(7, 30), '..'])
      expect(files.filter((file) => file.includes(text))).toEqual([])
  })
})

describe('digests', () => {
  const body = Buffer.from('what was sent')
  const wrong = digestOf('something else')

  it.each<[string, string]>([
    ['another content', wrong],
    ['md5', `md5:${createHash('md5').update(body).digest('hex')}`],
    ['sha1', `sha1:${createHash('sha1').update(body).digest('hex')}`],
    ['capitals', `sha256:${digestOf(body).slice(7).toUpperCase()}`],
    ['the algorithm in capitals', `SHA256:${digestOf(body).slice(7)}`],
    ['one digit less', digestOf(body).slice(0, -1)],
    ['one digit more', `${digestOf(body)}0`],
    ['two at once', `${digestOf(body)}&digest=${wrong}`],
    ['sha512 of something else', digestOf('something else', 'sha512')],
    ['sha256 under the name of sha512', `sha512:${digestOf(body).slice(7)}`],
    ['none', ''],
    ['NUL', 'sha256:%00'],
    ['a path', 'sha256:..%2f..'],
  ])('A82 %s is refused, by PUT and by POST, and leaves nothing', async (_, digest) => {
    const before = await usageOf('a')
    const replies = [
      await put(await open(), digest, body),
      await client.v2('POST', `a/app/blobs/uploads/?digest=${digest}`, token, { body }),
    ]
    expect(replies.map(({ status }) => status)).toEqual([400, 400])
    expect((await client.v2('HEAD', `a/app/blobs/${digestOf(body)}`, token)).status).toBe(404)
    expect((await client.v2('HEAD', `a/app/blobs/${wrong}`, token)).status).toBe(404)
    expect(await usageOf('a')).toBe(before)
  })

  it('A82 a manifest is what its digest says, or not stored', async () => {
    const text = JSON.stringify(manifest({ annotations: { a: 'digest' } }))
    const reply = await putManifest(ABSENT, text)
    expect([reply.status, codeOf(reply)]).toEqual([400, 'DIGEST_INVALID'])
    for (const digest of [ABSENT, digestOf(text)]) expect((await client.pull('a/app', digest, token)).status).toBe(404)
  })

  it('A82 sha512 is verified, and is another name than sha256', async () => {
    const text = randomBytes(50)
    const name = digestOf(text, 'sha512')
    expect((await put(await open(), name, text)).status).toBe(201)
    expect((await client.v2('GET', `a/app/blobs/${name}`, token)).status).toBe(200)
  })
})

describe('chunks', () => {
  it('A84 go where the upload is, or nowhere', async () => {
    const at = await open()
    expect((await patch(at, '0123456789', { 'Content-Range': '0-9' })).status).toBe(202)
    const length: [string, string, number][] = [
      ['0-9', '0123456789', 416],
      ['5-14', 'xxxxxxxxxx', 416],
      ['20-29', 'xxxxxxxxxx', 416],
      ['9007199254740993-9007199254740994', 'xx', 400],
      ['99999999999999999999-99999999999999999999', 'x', 400],
      ['19-10', 'x', 400],
      ['-10', 'x', 400],
      ['10-', 'x', 400],
      ['0x0a-0x0a', 'x', 400],
      ['10-12', 'x', 400],
      ['10-10', 'xxx', 400],
      ['a', 'x', 400],
    ]
    for (const [range, body, status] of length) {
      const reply = await patch(at, body, { 'Content-Range': range })
      expect([range, reply.status]).toEqual([range, status])
      if (status === 416) expect(reply.headers.get('range')).toBe('0-9')
    }
    const now = await send(haven.url + at, 'GET', { headers: auth() })
    expect(now.headers.get('range')).toBe('0-9')
    expect((await put(at, digestOf('0123456789'))).status).toBe(201)
    expect((await patch(at, 'x')).status).toBe(404)
  })

  it('A84 of two writers one goes on, and their bytes are never mixed', async () => {
    const at = await open()
    const bodies = Array.from({ length: 6 }, (_, i) => Buffer.alloc(200_000, 97 + i))
    const replies = await Promise.all(bodies.map((body) => patch(at, body, { 'Content-Range': '0-199999' })))
    const won = replies.flatMap(({ status }, i) => (status === 202 ? [bodies[i]!] : []))
    expect(won).toHaveLength(1)
    expect(replies.every(({ status }) => [202, 404, 409, 416].includes(status))).toBe(true)
    expect((await put(at, digestOf(won[0]!))).status).toBe(201)
  })

  it('A84 a body shorter than it says leaves the upload as it was, or at what came', async () => {
    const at = await open()
    await raw(haven.url, request('PATCH', at, [`Authorization: Bearer ${token}`, 'Content-Length: 100'], 'only this'), {
      quietMs: 300,
    })
    const now = await until(
      'the upload is free',
      () => send(haven.url + at, 'GET', { headers: auth() }),
      ({ status }) => status === 204,
    )
    const came = Number(now.headers.get('range')!.split('-')[1]) + 1
    expect([1, 9]).toContain(came)
    const started = await patch(at, 'only this'.slice(came === 9 ? 9 : 0))
    expect([202, 400, 416]).toContain(started.status)
  })
})

describe('manifests', () => {
  const twoKinds = { manifests: [described(ABSENT, 1, IMAGE)] }
  const bad: [string, () => [object | string | Uint8Array, string | null]][] = [
    ['image and index at once', () => [manifest(twoKinds), IMAGE]],
    ['index with layers', () => [{ ...manifest(twoKinds), mediaType: INDEX }, INDEX]],
    ['mediaType of another kind', () => [manifest({ mediaType: INDEX }), IMAGE]],
    ['an index that is sent as an image', () => [{ schemaVersion: 2, mediaType: INDEX, manifests: [] }, IMAGE]],
    [
      'schema 1',
      () => [
        { schemaVersion: 1, name: 'a/app', tag: '1', fsLayers: [], history: [] },
        'application/vnd.docker.distribution.manifest.v1+prettyjws',
      ],
    ],
    ['schema 1 as an image', () => [manifest({ schemaVersion: 1 }), IMAGE]],
    ['no Content-Type', () => [new TextEncoder().encode(JSON.stringify(manifest())), null]],
    ['an empty Content-Type', () => [manifest(), '']],
    ['text/html', () => [manifest(), 'text/html']],
    ['a Content-Type that is none', () => [manifest(), 'a b/c']],
    ['config as a list', () => [manifest({ config: [] }), IMAGE]],
    ['layers as an object', () => [manifest({ layers: {} }), IMAGE]],
    ['a key twice', () => [JSON.stringify(manifest()).replace('{', '{"layers":[],'), IMAGE]],
    ['a key in capitals beside it', () => [manifest({ Layers: [] }), IMAGE]],
    ['a size below zero', () => [manifest({ layers: [described(image.layer, -1)] }), IMAGE]],
    [
      'a size beyond all numbers',
      () => [JSON.stringify(manifest()).replace(`"size":${image.layerBytes}`, '"size":1e400'), IMAGE],
    ],
    [
      'a size of 2^53',
      () => [JSON.stringify(manifest()).replace(`"size":${image.layerBytes}`, '"size":9007199254740992'), IMAGE],
    ],
    ['a size as a text', () => [JSON.stringify(manifest()).replace(`"size":${image.layerBytes}`, '"size":"1"'), IMAGE]],
    ['a digest that is a path', () => [manifest({ layers: [described('sha256:../../etc/passwd', 1)] }), IMAGE]],
    [
      '20 000 layers',
      () => [manifest({ layers: Array.from({ length: 20_000 }, () => described(image.layer, 1, 'a/b')) }), IMAGE],
    ],
    ['NUL', () => [manifest({ annotations: { a: '\0' } }), IMAGE]],
    ['half a character', () => [manifest({ annotations: { a: '\ud800' } }), IMAGE]],
    ['UTF-16', () => [Buffer.from(JSON.stringify(manifest()), 'utf16le'), IMAGE]],
    ['a BOM', () => [Buffer.from(`\ufeff${JSON.stringify(manifest())}`), IMAGE]],
    ['nothing', () => ['', IMAGE]],
    ['null', () => ['null', IMAGE]],
    ['a megabyte of brackets', () => ['['.repeat(1024 * 1024), IMAGE]],
    ['a megabyte of objects', () => ['{"a":'.repeat(200_000), IMAGE]],
  ]
  it.each(bad)('A85, A86 %s is refused and moves no tag', async (_, make) => {
    const [body, type] = make()
    const reply = await putManifest('1', body, type)
    expect([reply.status, codeOf(reply)]).toEqual([400, 'MANIFEST_INVALID'])
    expect((await client.pull('a/app', '1', token)).headers.get('docker-content-digest')).toBe(image.digest)
  })

  it('A86 more than 4 MiB is 413, whether it is announced or not', async () => {
    const long = ' '.repeat(4 * 1024 * 1024 + 1)
    expect((await putManifest('long', long)).status).toBe(413)
    // Not endless: fetch may go on taking pieces after it was refused, until there is no memory left.
    let pieces = 256
    const stream = new ReadableStream({
      pull(controller) {
        if (pieces-- > 0) controller.enqueue(Buffer.alloc(64 * 1024, 32))
        else controller.close()
      },
    })
    const init: RequestInit & { duplex: string } = {
      method: 'PUT',
      headers: { ...auth(), 'Content-Type': IMAGE },
      body: stream,
      duplex: 'half',
    }
    expect((await fetch(`${haven.url}/v2/a/app/manifests/long`, init)).status).toBe(413)
    expect((await client.pull('a/app', 'long', token)).status).toBe(404)
  })

  it('A85 an unknown type comes back as it went in, byte for byte', async () => {
    const text = `{"schemaVersion": 2,  "mediaType":"application/vnd.abuse.v1+json", "x":{"y":[1.0, 1e2]}}`
    const pushed = await putManifest('unknown', text, 'application/vnd.abuse.v1+json')
    expect(pushed.status).toBe(201)
    const pulled = await client.v2('GET', 'a/app/manifests/unknown', token, {
      headers: { Accept: `${IMAGE}, text/html` },
    })
    expect([pulled.text, pulled.headers.get('content-type')]).toEqual([text, 'application/vnd.abuse.v1+json'])
    expect(pulled.headers.get('x-content-type-options')).toBe('nosniff')
  })

  it('A86 a chain of indexes and subjects is stored and deleted without being walked to its end', async () => {
    let below = described(image.digest, 500, IMAGE)
    const chain = [image.digest]
    for (let depth = 0; depth < 40; depth++) {
      const text = JSON.stringify({
        schemaVersion: 2,
        mediaType: INDEX,
        manifests: [below],
        subject: below,
        annotations: { depth: String(depth) },
      })
      const reply = await putManifest(digestOf(text), text, INDEX)
      expect([depth, reply.status]).toEqual([depth, 201])
      below = described(digestOf(text), text.length, INDEX)
      chain.push(below.digest)
    }
    expect((await client.v2('GET', `a/app/referrers/${image.digest}`, token)).status).toBe(200)
    for (const digest of chain.slice(1).reverse()) {
      const { status } = await client.v2('DELETE', `a/app/manifests/${digest}`, token)
      expect([202, 404]).toContain(status)
    }
    expect((await client.pull('a/app', '1', token)).headers.get('docker-content-digest')).toBe(image.digest)
  })

  it('A86 referrers come page by page', async () => {
    const subject = described(ABSENT, 2, IMAGE)
    for (let i = 0; i < 12; i++)
      expect((await putManifest(`page-${i}`, manifest({ subject, annotations: { i: String(i) } }))).status).toBe(201)
    const seen: string[] = []
    let next: string | null = `/v2/a/app/referrers/${ABSENT}?n=5`
    let pages = 0
    while (next !== null) {
      const reply: Reply = await send(haven.url + next, 'GET', { headers: auth() })
      const { manifests } = reply.json as { manifests: { digest: string }[] }
      expect(manifests.length).toBeLessThanOrEqual(5)
      seen.push(...manifests.map(({ digest }) => digest))
      next = /<([^>]+)>; rel="next"/.exec(reply.headers.get('link') ?? '')?.[1] ?? null
      pages++
    }
    expect([pages, new Set(seen).size, seen.length]).toEqual([3, 12, 12])
  })

  it('A87 nobody is visited because a manifest names an address', async () => {
    let visits = 0
    const trap = createServer((socket) => {
      visits++
      socket.destroy()
    })
    await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve))
    try {
      const url = `http://127.0.0.1:${(trap.address() as AddressInfo).port}/layer`
      const foreign = {
        ...described(digestOf('elsewhere'), 9, 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'),
        urls: [url, 'file:///etc/passwd', 'http://169.254.169.254/'],
      }
      const named = { 'org.opencontainers.image.url': url, 'org.opencontainers.image.source': url }
      const body = JSON.stringify(
        manifest({
          layers: [foreign, { ...described(image.layer, image.layerBytes), urls: [url] }],
          annotations: named,
        }),
      )
      expect((await putManifest('foreign', body)).status).toBe(201)
      expect((await client.pull('a/app', 'foreign', token)).text).toBe(body)
      expect((await client.v2('GET', `a/app/blobs/${foreign.digest}`, token)).status).toBe(404)
      const absent = JSON.stringify(manifest({ layers: [{ ...described(digestOf('absent'), 9), urls: [url] }] }))
      expect((await putManifest('absent', absent)).status).toBe(404)
      expect(visits).toBe(0)
    } finally {
      trap.close()
    }
  })
})

describe('what was deleted', () => {
  it('A88 is gone the moment the answer is there, for everybody', async () => {
    const bearer = await client.token(alice, 'a/gone')
    const gone = await client.pushImage('a/gone', 'tag', bearer)
    const statuses = (path: string) =>
      Promise.all(
        Array.from({ length: 8 }, (_, i) =>
          client.v2(i % 2 === 0 ? 'GET' : 'HEAD', `a/gone/${path}`, bearer).then(({ status }) => status),
        ),
      )
    for (const path of ['manifests/tag', `manifests/${gone.digest}`, `blobs/${gone.layer}`])
      expect(new Set(await statuses(path))).toEqual(new Set([200]))
    expect((await client.v2('DELETE', `a/gone/manifests/${gone.digest}`, bearer)).status).toBe(202)
    for (const path of ['manifests/tag', `manifests/${gone.digest}`])
      expect(new Set(await statuses(path))).toEqual(new Set([404]))
    expect((await client.v2('DELETE', `a/gone/blobs/${gone.layer}`, bearer)).status).toBe(202)
    expect(new Set(await statuses(`blobs/${gone.layer}`))).toEqual(new Set([404]))
    const again = await putManifest('1', manifest())
    expect(again.status).toBe(201)
    expect((await client.pushBlob('a/gone', bearer, randomBytes(10))).status).toBe(201)
  })
})

describe('a quota', () => {
  it('A90 holds against many uploads at once, chunks, mounts and deletions', async () => {
    const limit = 1_000_000
    const made = await client.mustApi('POST', '/projects', ADMIN, {
      project_name: 'small',
      storage_limit: limit,
      metadata: { public: 'false' },
    })
    expect(idIn(made)).toBeGreaterThan(0)
    const bearer = await client.token(ADMIN, 'small/app')
    const bodies = Array.from({ length: 20 }, () => randomBytes(100_000))
    const replies = await Promise.all(
      bodies.map(async (body, i) => {
        if (i % 2 === 0) return client.pushBlob('small/app', bearer, body)
        const at = await open(bearer, 'small/app')
        const part = await patch(at, body, {}, bearer)
        return part.status === 202 ? put(at, digestOf(body), '', bearer) : part
      }),
    )
    const stored = replies.filter(({ status }) => status === 201).length
    expect(stored).toBeLessThanOrEqual(10)
    expect(stored).toBeGreaterThan(0)
    const refused = replies.filter(({ status }) => status !== 201)
    expect(refused.map((reply) => [reply.status, codeOf(reply)])).toEqual(refused.map(() => [403, 'DENIED']))
    expect(await usageOf('small')).toBe(stored * 100_000)

    const query = 'service=harbor-registry&scope=repository:small/app:pull,push&scope=repository:a/app:pull'
    const both = ((await send(`${haven.url}/service/token?${query}`, 'GET', { as: ADMIN })).json as { token: string })
      .token
    const huge = await client.pushBlob('a/app', token, randomBytes(limit + 1))
    expect(huge.status).toBe(201)
    const digest = huge.headers.get('docker-content-digest')!
    const mounted = await client.v2('POST', `small/app/blobs/uploads/?mount=${digest}&from=a/app`, both)
    expect(mounted.status).not.toBe(201)
    expect((await client.v2('HEAD', `small/app/blobs/${digest}`, both)).status).toBe(404)
    expect(await usageOf('small')).toBe(stored * 100_000)
    const first = bodies.find((_, i) => replies[i]!.status === 201)!
    const twice = await Promise.all([0, 1].map(() => client.v2('DELETE', `small/app/blobs/${digestOf(first)}`, bearer)))
    expect(twice.map(({ status }) => status).sort()).toEqual([202, 404])
    expect(await usageOf('small')).toBe((stored - 1) * 100_000)
  })
})
