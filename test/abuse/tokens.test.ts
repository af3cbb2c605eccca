import { createHmac, createSign, generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, send, until, type Account, type Image } from '../flows/client.ts'
import { raw, request } from './raw.ts'

let haven: HavenInstallation
let client: Client
let alice: Account & { id: number }
let bob: Account & { id: number }
/** What alice has in a project of hers, and bob in his. */
let hers: Image
let his: Image

beforeAll(async () => {
  haven = await startHaven()
  client = new Client(haven.url)
  ;[alice, bob] = await Promise.all([client.user('alice'), client.user('bob')])
  await client.project('a', alice)
  await client.project('b', bob)
  hers = await client.pushImage('a/app', '1', await client.token(alice, 'a/app'))
  his = await client.pushImage('b/app', '1', await client.token(bob, 'b/app'))
}, 120_000)
afterAll(async () => haven?.[Symbol.asyncDispose](), 60_000)

type Claims = { sub: string; access: { type: string; name: string; actions: string[] }[] } & Record<string, unknown>
const partOf = (token: string, part: 0 | 1) =>
  JSON.parse(Buffer.from(token.split('.')[part]!, 'base64url').toString()) as object
const claimsOf = (token: string) => partOf(token, 1) as Claims

/** What a token for these scopes allows, as lines of `name:actions`. */
async function allowed(as: Account | null, query: string): Promise<string[]> {
  const reply = await send(`${haven.url}/service/token?service=harbor-registry&${query}`, 'GET', { as })
  if (reply.status !== 200) return [String(reply.status)]
  const { access } = claimsOf((reply.json as { token: string }).token)
  // What is named without an action allows nothing.
  return access.filter(({ actions }) => actions.length > 0).map(({ name, actions }) => `${name}:${actions.join()}`)
}

describe('what a token is given for', () => {
  it('A32 holds what was asked for, though its owner may do more', async () => {
    expect(await allowed(alice, 'scope=repository:a/app:pull')).toEqual(['a/app:pull'])
    const token = await client.token(alice, 'a/app', 'pull')
    expect((await client.v2('DELETE', 'a/app/manifests/1', token)).status).toBe(401)
    expect((await client.v2('POST', 'a/app/blobs/uploads/', token)).status).toBe(401)
    expect((await client.pull('a/app', '1', token)).status).toBe(200)
  })

  it.each<[string, string[]]>([
    ['scope=repository:a/app:*', ['a/app:pull,push,delete']],
    ['scope=repository:b/app:*', []],
    ['scope=registry:catalog:*', []],
    ['scope=registry:catalog:read', []],
    ['scope=administration:system:*', []],
    ['scope=repository:a/app:pull,admin,scanner-pull', ['a/app:pull']],
    ['scope=repository:A/app:pull', []],
    ['scope=repository:a/../b/app:pull', []],
    ['scope=repository:b%2Fapp:pull', []],
    ['scope=repository:a/app%2F..%2F..%2Fb%2Fapp:pull', []],
    ['scope=repository:a/app%00:pull', []],
    ['scope=repository:a/app:pull%0d%0a', []],
    ['scope=repository:a/app:toString', []],
    ['scope=repository:*:pull', []],
    ['scope=repository:a:pull', []],
    ['scope=repository::pull', []],
    ['scope=repository:b/app:5000/a/app:pull', []],
    ['scope=a:b', []],
    [`scope=repository:a/${'x'.repeat(2000)}:pull`, []],
    ['scope=repository:a/app:pull&scope=repository:a/app:pull%20repository:b/app:push', ['a/app:pull']],
    [`scope=${Array.from({ length: 101 }, (_, i) => `repository:a/r${i}:pull`).join('%20')}`, ['400']],
    [Array.from({ length: 101 }, () => 'scope=repository:a/app:pull').join('&'), ['400']],
  ])('A33 %s', async (query, expected) => {
    expect(await allowed(alice, query)).toEqual(expected)
  })

  it('A34, A45 the credential says who it is, and nothing in the query does', async () => {
    const of = async (query: string, as: Account | null) => {
      const { status, json } = await send(`${haven.url}/service/token?service=harbor-registry&${query}`, 'GET', { as })
      return status === 200 ? claimsOf((json as { token: string }).token).sub : status
    }
    expect(await of('account=admin&client_id=admin', bob)).toBe('bob')
    expect(await of(`account=admin&username=admin&password=${ADMIN.password}`, null)).toBe(401)
    expect(
      await of(`account=admin&username=admin&password=${ADMIN.password}&scope=repository:a/app:pull`, null),
    ).not.toBe('admin')
    const offline = await send(`${haven.url}/service/token?service=harbor-registry&offline_token=true`, 'GET', {
      as: bob,
    })
    expect(Object.keys(offline.json as object)).not.toContain('refresh_token')
    for (const query of ['', 'service=other', 'service=harbor-registry&service=other', 'service=harbor-jobservice']) {
      expect([query, (await send(`${haven.url}/service/token?${query}`, 'GET', { as: bob })).status]).toEqual([
        query,
        400,
      ])
    }
    expect((await send(`${haven.url}/service/token?service=harbor-registry`, 'PUT', { as: bob })).status).toBe(405)
  })

  it('A42 nobody in particular may pull what is public, and that is all', async () => {
    await client.mustApi('PUT', '/projects/b', bob, { metadata: { public: 'true' } })
    try {
      expect(await allowed(null, 'scope=repository:b/app:pull,push,delete')).toEqual(['b/app:pull'])
      expect(await allowed(null, 'scope=repository:a/app:pull')).toEqual([])
      const ghost = await client.token(null, 'b/app')
      expect((await client.pull('b/app', '1', ghost)).status).toBe(200)
      expect((await client.v2('POST', 'b/app/blobs/uploads/', ghost)).status).toBe(401)
      expect((await client.v2('DELETE', 'b/app/manifests/1', ghost)).status).toBe(401)
      expect((await client.pull('a/app', '1', ghost)).status).toBe(401)
    } finally {
      await client.mustApi('PUT', '/projects/b', bob, { metadata: { public: 'false' } })
    }
    expect(await client.pull('b/app', '1', await client.token(null, 'b/app')).then(({ status }) => status)).toBe(401)
  })
})

describe('forged and foreign tokens', () => {
  const own = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const jwk = own.publicKey.export({ format: 'jwk' })
  let real: string
  /** Where a verifier that looks keys up by what a token says would be seen. */
  const trap = createServer((_req, res) => res.end(JSON.stringify({ keys: [jwk] })))
  let visits = 0
  let trapUrl: string

  beforeAll(async () => {
    real = await client.token(alice, 'a/app')
    trap.on('connection', () => visits++)
    await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve))
    trapUrl = `http://127.0.0.1:${(trap.address() as AddressInfo).port}/jwks.json`
  })
  afterAll(() => void trap.close())

  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const unsigned = (header: object, claims: object) => `${encode(header)}.${encode(claims)}`
  const rs256 = (header: object, claims: object) => {
    const text = unsigned(header, claims)
    return `${text}.${createSign('RSA-SHA256').update(text).sign(own.privateKey).toString('base64url')}`
  }
  const hs256 = (header: object, claims: object, key: string | Buffer) => {
    const text = unsigned(header, claims)
    return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`
  }
  const publicPem = async () =>
    (await haven.query<{ pem: string }>('select public_pem as pem from identity.signing_keys'))[0]!.pem

  const refusal = async (token: string) => {
    const { status, headers } = await client.pull('a/app', '1', token)
    return [status, headers.get('www-authenticate')?.replace(/,scope=.*/, '')]
  }

  it('A35 nothing that a token says of its key or algorithm is believed, and no key is fetched', async () => {
    const header = partOf(real, 0) as { kid: string }
    const claims = claimsOf(real)
    const pem = await publicPem()
    const [head, body, signature] = real.split('.') as [string, string, string]
    const tokens = {
      'alg none': `${unsigned({ ...header, alg: 'none' }, claims)}.`,
      'alg None': `${unsigned({ ...header, alg: 'None' }, claims)}.`,
      'alg none with the signature': `${unsigned({ ...header, alg: 'none' }, claims)}.${signature}`,
      'no signature': `${head}.${body}.`,
      'HS256 by the public key': hs256({ ...header, alg: 'HS256' }, claims, pem),
      'HS256 by the public key and a line end': hs256({ ...header, alg: 'HS256' }, claims, `${pem.trim()}\n`),
      'HS256 by nothing': hs256({ ...header, alg: 'HS256' }, claims, ''),
      'another key under our kid': rs256(header, claims),
      'a key that it brings': rs256({ ...header, jwk }, claims),
      'a key elsewhere': rs256({ ...header, jku: trapUrl, x5u: trapUrl }, claims),
      'a kid that is a URL': rs256({ ...header, kid: trapUrl }, claims),
      'a kid that is a path': rs256({ ...header, kid: '../../../../dev/null' }, claims),
      'a kid that is SQL': rs256({ ...header, kid: "' OR 1=1--" }, claims),
      'a kid that is a property': rs256({ ...header, kid: '__proto__' }, claims),
      'a kid with NUL': rs256({ ...header, kid: 'a\0b' }, claims),
      'a kid that is a list': rs256({ ...header, kid: [header.kid] }, claims),
      'no kid': rs256({ alg: 'RS256', typ: 'JWT' }, claims),
      'other claims under our signature': `${head}.${encode({ ...claims, sub: 'admin' })}.${signature}`,
      'four parts': `${real}.${signature}`,
      'five parts, as an encrypted one': `${real}.${signature}.${signature}`,
      'no JSON': 'a.b.c',
      'a long one': `${real}${'a'.repeat(9000)}`,
    }
    const expected = [401, await refusal('x').then(([, challenge]) => challenge)]
    expect(String(expected[1])).toMatch(/^Bearer realm=/)
    for (const [what, token] of Object.entries(tokens)) expect([what, await refusal(token)]).toEqual([what, expected])
    expect(visits).toBe(0)
    expect((await client.pull('a/app', '1', real)).status).toBe(200)
  })

  it('A36 a token is for the registry only: not for the API, and nothing else is one for the registry', async () => {
    for (const path of ['/users/current', '/projects', '/users']) {
      const reply = await send(`${haven.url}/api/v2.0${path}`, 'GET', { headers: { Authorization: `Bearer ${real}` } })
      expect([path, [200, 401].includes(reply.status), reply.text.includes('"username":"alice"')]).toEqual([
        path,
        true,
        false,
      ])
    }
    const created = await send(`${haven.url}/api/v2.0/projects`, 'POST', {
      headers: { Authorization: `Bearer ${real}` },
      body: { project_name: 'by-token' },
    })
    expect(created.status).toBe(401)
    const basic = await send(`${haven.url}/service/token?service=harbor-registry`, 'GET', {
      headers: { Authorization: `Bearer ${real}` },
    })
    expect(basic.status).toBe(401)
    // A session is not a credential of the registry, whichever header carries it.
    const page = await send(`${haven.url}/c/log_out`, 'GET')
    const cookies = page.headers.getSetCookie().map((set) => set.split(';', 1)[0]!)
    for (const value of cookies.map((cookie) => cookie.slice(cookie.indexOf('=') + 1))) {
      expect((await client.pull('a/app', '1', value || 'none')).status).toBe(401)
    }
    const byCookie = await send(`${haven.url}/v2/a/app/tags/list`, 'GET', {
      headers: { Cookie: `${cookies.join('; ')}; token=${real}` },
    })
    expect(byCookie.status).toBe(401)
  })
})

describe('a project that another one has the name of now', () => {
  it('A38 is no source of a mount and no target for a token of before', async () => {
    const id = await client.project('reused', alice)
    const before = await client.token(alice, 'reused/app')
    await client.mustApi('DELETE', `/projects/${id}`, alice)
    await client.project('reused', bob)
    const theirs = await client.pushImage('reused/app', '1', await client.token(bob, 'reused/app'))
    // Both scopes in one token, the source's from before.
    const query = 'service=harbor-registry&scope=repository:a/app:pull,push&scope=repository:reused/app:pull'
    const now = await send(`${haven.url}/service/token?${query}`, 'GET', { as: alice })
    for (const token of [before, (now.json as { token: string }).token]) {
      expect((await client.pull('reused/app', '1', token)).status).toBe(401)
      const mount = await client.v2('POST', `a/app/blobs/uploads/?mount=${theirs.layer}&from=reused/app`, token)
      expect([202, 401]).toContain(mount.status)
    }
  })
})

describe('mounts', () => {
  const nothing = `sha256:${'0'.repeat(64)}`
  const mount = async (token: string, digest: string, from: string | null) => {
    const query = `mount=${digest}${from === null ? '' : `&from=${from}`}`
    const { status, headers, text } = await client.v2('POST', `a/app/blobs/uploads/?${query}`, token)
    // An upload has an id of its own; all else is compared.
    const told = [...headers.keys()].filter((name) => name !== 'date').sort()
    return [status, told, text, headers.get('docker-content-digest')]
  }

  it.each(['b/app', 'b%2Fapp', '../b/app', 'a/../b/app', 'b/app%00', 'B/app', 'http://127.0.0.1/b/app', '', null])(
    'A39 from %j tell nothing of what alice may not read, and link nothing',
    async (from) => {
      const token = await client.token(alice, 'a/app')
      const there = await mount(token, his.layer, from)
      expect(there).toEqual(await mount(token, nothing, from))
      // An upload instead, or the scope that is missing; 400 where it cannot be a name at all.
      expect([202, 400, 401]).toContain(there[0])
      expect((await client.v2('HEAD', `a/app/blobs/${his.layer}`, token)).status).toBe(404)
    },
  )

  it('A39 needs the right in the token, not only its owner’s', async () => {
    await client.project('second', alice)
    const narrow = await client.token(alice, 'second/app')
    const refused = await client.v2('POST', `second/app/blobs/uploads/?mount=${hers.layer}&from=a/app`, narrow)
    expect([202, 401]).toContain(refused.status)
    expect((await client.v2('HEAD', `second/app/blobs/${hers.layer}`, narrow)).status).toBe(404)
    const query = 'service=harbor-registry&scope=repository:second/app:pull,push&scope=repository:a/app:pull'
    const wide = ((await send(`${haven.url}/service/token?${query}`, 'GET', { as: alice })).json as { token: string })
      .token
    expect((await client.v2('POST', `second/app/blobs/uploads/?mount=${hers.layer}&from=a/app`, wide)).status).toBe(201)
  })
})

describe('lists', () => {
  it.each([
    '/v2/_catalog',
    '/v2/_catalog/',
    '//v2/_catalog',
    '/v2//_catalog',
    '/v2/%5fcatalog',
    '/V2/_catalog',
    '/v2/_catalog?n=1000',
    '/v2/x/../_catalog',
    '/v2/_catalog%2f',
  ])('A40 %s shows no visitor a name, and alice only hers', async (path) => {
    for (const headers of [[], [`Authorization: Bearer ${await client.token(alice, 'a/app')}`]]) {
      const { statuses, text } = await raw(haven.url, request('GET', path, headers))
      expect([200, 400, 401, 404]).toContain(statuses[0])
      expect(text).not.toMatch(/[ab]\/app/)
    }
    const { text } = await raw(
      haven.url,
      request('GET', path, [
        `Authorization: Basic ${Buffer.from(`${alice.name}:${alice.password}`).toString('base64')}`,
      ]),
    )
    expect(text).not.toContain('b/app')
  })

  it.each<[string, number]>([
    ['n=-1', 400],
    ['n=abc', 400],
    ['n=1e9', 400],
    ['n=0x10', 400],
    ['n=1.5', 400],
    ['n=99999999999', 200],
    ['n=99999999999999999999999', 400],
    ['last=%00', 400],
    ['last=%ff', 400],
    [`last=${'a'.repeat(600)}`, 400],
    ['last=..%2f..', 200],
    ["last=' or 1=1--", 200],
  ])('A41 %s is %d', async (query, expected) => {
    const token = await client.token(alice, 'a/app')
    const target = query.replaceAll(' ', '%20')
    expect((await client.v2('GET', `a/app/tags/list?${target}`, token)).status).toBe(expected)
    expect((await send(`${haven.url}/v2/_catalog?${target}`, 'GET', { as: alice })).status).toBe(expected)
  })
})

describe('rights that a token does not bring', () => {
  it('A43 who may only pull changes nothing by any method', async () => {
    const guest = await client.user('guest')
    await client.member('a', guest.name, 3, alice)
    const token = await client.token(guest, 'a/app')
    const type = { 'Content-Type': 'application/vnd.oci.image.manifest.v1+json' }
    const digest = `digest=${hers.layer}`
    const tries: [string, string, object?][] = [
      ['PUT', 'a/app/manifests/1', { headers: type, body: '{}' }],
      ['PUT', `a/app/manifests/${hers.digest}`, { headers: type, body: '{}' }],
      ['DELETE', 'a/app/manifests/1'],
      ['DELETE', `a/app/manifests/${hers.digest}`],
      ['DELETE', `a/app/blobs/${hers.layer}`],
      ['POST', 'a/app/blobs/uploads/'],
      ['POST', `a/app/blobs/uploads/?${digest}`, { body: 'x' }],
      ['POST', `a/app/blobs/uploads/?mount=${hers.layer}&from=a/app`],
      ['PATCH', 'a/app/blobs/uploads/00000000-0000-0000-0000-000000000000', { body: 'x' }],
      ['PUT', `a/app/blobs/uploads/00000000-0000-0000-0000-000000000000?${digest}`],
      ['POST', 'b/app/blobs/uploads/'],
    ]
    for (const [method, path, sent] of tries) {
      expect([method, path, (await client.v2(method, path, token, sent)).status]).toEqual([method, path, 401])
    }
    expect((await client.pull('a/app', '1', token)).headers.get('docker-content-digest')).toBe(hers.digest)
  })

  it('A13 ends within 5 s of the membership, for uploads that are under way as well', async () => {
    const dev = await client.user('dev')
    const member = await client.member('a', dev.name, 2, alice)
    const token = await client.token(dev, 'a/app')
    const location = (await client.v2('POST', 'a/app/blobs/uploads/', token)).headers.get('location')!
    const patch = () =>
      send(haven.url + location, 'PATCH', { headers: { Authorization: `Bearer ${token}` }, body: 'x' })
    expect((await patch()).status).toBe(202)
    await client.mustApi('DELETE', `/projects/a/members/${member}`, alice)
    await until(
      'the upload is refused',
      async () => (await patch()).status,
      (status) => status === 401,
      5_000,
    )
    expect(await allowed(dev, 'scope=repository:a/app:pull,push')).toEqual([])
  })
})
