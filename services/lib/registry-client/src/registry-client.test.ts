import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { afterEach, describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import { digestOf, mediaTypes, parseDigest, parseRepositoryName, parseTag } from '@haven/oci'
import { OutboundClient } from '@haven/outbound'
import { registry, type Endpoint, type RegistryOptions } from './index.ts'
import { upstreamStatus } from './answers.ts'
import { parseChallenges } from './challenges.ts'

const app = parseRepositoryName('team/app')!
const latest = { tag: parseTag('latest')! }
const blob = Buffer.alloc(300_000, 'a layer ')
const digest = digestOf(blob)
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] }))
const manifestDigest = digestOf(manifest)
const robot = { type: 'basic', username: 'robot$a', password: 'pä:ss' } as const
const robotHeader = `Basic ${Buffer.from('robot$a:pä:ss').toString('base64')}`

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

type Seen = {
  method: string
  url: string
  authorization: string | undefined
  body: string
  headers: IncomingMessage['headers']
}

/** A server that answers as the test wants, and what it was asked. */
async function upstream(answer: (req: IncomingMessage, res: ServerResponse, body: string) => unknown) {
  const seen: Seen[] = []
  const listener: RequestListener = (req, res) => {
    res.on('error', () => undefined)
    void text(req).then(
      (body) => {
        const { method = '', url = '', headers } = req
        seen.push({ method, url, authorization: headers.authorization, body, headers })
        return answer(req, res, body)
      },
      () => res.destroy(), // the client left in the middle of its body
    )
  }
  const server = createServer(listener)
  closers.push(() => (server.closeAllConnections(), server.close()))
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen }
}

const waits: number[] = []
const impatient: RegistryOptions = { random: () => 0.5, sleep: async (ms) => void waits.push(ms) }

function client(endpoint: Endpoint, options: RegistryOptions = impatient) {
  waits.length = 0
  return registry(endpoint, new OutboundClient({ allow: ['127.0.0.1'] }), options)
}

const because = (reason: string | RegExp) =>
  expect.objectContaining({
    kind: problems.outboundFailed.kind,
    facts: expect.objectContaining({ reason: expect.stringMatching(reason) }),
  })

const json = (res: ServerResponse, value: unknown, headers: Record<string, string> = {}) =>
  res.writeHead(200, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))

/** Answers 401 until the token that its service gave out comes. */
async function guarded(
  realm: (own: string) => string,
  serve: (req: IncomingMessage, res: ServerResponse) => unknown = (_q, res) => json(res, {}),
) {
  const tokens = { given: 0 }
  const server = await upstream((req, res) => {
    if (req.url!.startsWith('/token')) return json(res, { token: `t${++tokens.given}`, expires_in: 300 })
    if (/^Bearer t\d+$/.test(req.headers.authorization ?? '')) return serve(req, res)
    return res.writeHead(401, { 'www-authenticate': `Bearer realm="${realm(server.url)}",service="reg"` }).end()
  })
  return { ...server, tokens }
}

describe('parseChallenges', () => {
  it.each([
    [
      'Bearer realm="https://a/t",service="s",scope="x:y:pull,push"',
      [['bearer', { realm: 'https://a/t', service: 's', scope: 'x:y:pull,push' }]],
    ],
    ['Basic realm="a, Bearer realm=\\"b\\""', [['basic', { realm: 'a, Bearer realm="b"' }]]],
    [
      'Negotiate, Basic realm=x , BEARER Realm = "y"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'x' }],
        ['bearer', { realm: 'y' }],
      ],
    ],
    [
      'NTLM TlRMTVNTUAAC==, Bearer realm="y"',
      [
        ['ntlm', {}],
        ['bearer', { realm: 'y' }],
      ],
    ],
    ['Bearer realm="a",realm="b"', [['bearer', { realm: 'a' }]]],
    ['Bearer __proto__="x"', [['bearer', { ['__proto__']: 'x' }]]],
    ['Bearer realm="never closed', [['bearer', { realm: '' }]]],
    ['realm="without a scheme"', []],
    ['"', []],
    [undefined, []],
  ])('%j', (header, expected) => {
    const read = parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.entries(parameters)])
    expect(read).toEqual(expected.map(([scheme, parameters]) => [scheme, Object.entries(parameters!)]))
  })

  it('reads 32 KiB of anything at once', () => {
    const before = process.cpuUsage()
    for (const piece of ['a ', 'a=', ',', '"\\', 'a "', 'a=", ']) parseChallenges(piece.repeat(32_768 / piece.length))
    expect(process.cpuUsage(before).user).toBeLessThan(500_000)
  })
})

describe('ping', () => {
  it('finds an open registry, one with passwords and one with tokens', async () => {
    const open = await upstream((_req, res) => json(res, {}))
    expect(await client(open).ping()).toEqual({ auth: 'none' })
    const basic = await upstream((req, res) =>
      req.headers.authorization === robotHeader
        ? json(res, {})
        : res.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end(),
    )
    expect(await client({ url: basic.url, credential: robot }).ping()).toEqual({ auth: 'basic' })
    expect(await client(basic).ping()).toEqual({ auth: 'basic' })
    const bearer = await guarded((own) => `${own}/token`)
    expect(await client({ url: bearer.url, credential: robot }).ping()).toEqual({ auth: 'bearer' })
  })

  it('sends a wrong password once and says so', async () => {
    const { url, seen } = await upstream((_req, res) =>
      res.writeHead(401, { 'www-authenticate': 'Basic realm="r"' }).end('secret text'),
    )
    const target = client({ url, credential: robot })
    const failure = await target.ping().catch((error: unknown) => error)
    expect(failure).toEqual(because(/^it wants another credential$/))
    expect(upstreamStatus(failure)).toBe(401)
    expect(seen.map(({ authorization }) => authorization)).toEqual([undefined, robotHeader])
    await expect(target.ping()).rejects.toEqual(because('credential'))
    expect(seen.length).toBe(3)
  })

  it('sends a ready token to the registry and asks for none', async () => {
    const { url, seen } = await guarded((own) => `${own}/token`)
    await expect(client({ url, credential: { type: 'bearer', token: 'ready' } }).ping()).rejects.toEqual(
      because('credential'),
    )
    expect(seen.map(({ authorization }) => authorization)).toEqual(['Bearer ready'])
  })

  it('keeps the path of an endpoint, and refuses what is no endpoint', async () => {
    const { url, seen } = await upstream((_req, res) => json(res, {}))
    await client({ url: `${url}/artifactory/api/docker/local/` }).ping()
    expect(seen[0]!.url).toBe('/artifactory/api/docker/local/v2/')
    for (const wrong of ['file:///etc', 'http://u:p@127.0.0.1', 'registry.test']) {
      expect(() => client({ url: wrong })).toThrow(expect.objectContaining({ kind: problems.outboundRefused.kind }))
    }
  })

  it('A91: goes to no address that may not be reached', async () => {
    const trap = await upstream((_req, res) => res.end())
    const strict = registry({ url: trap.url }, new OutboundClient({ allow: [] }))
    await expect(strict.ping()).rejects.toEqual(expect.objectContaining({ kind: problems.outboundRefused.kind }))
    expect(trap.seen).toEqual([])
  })
})

describe('tokens', () => {
  it('are asked for by scope, once for all who wait, and kept', async () => {
    const { url, seen, tokens } = await guarded((own) => `${own}/token?keep=1`)
    const target = client({ url, credential: robot })
    await target.ping()
    await Promise.all([target.headBlob(app, digest), target.headBlob(app, digest), target.headBlob(app, digest)])
    expect(tokens.given).toBe(2)
    const asked = new URL(seen.find(({ url: path }) => path.includes('team'))!.url, url).searchParams
    expect(Object.fromEntries(asked)).toMatchObject({
      keep: '1',
      service: 'reg',
      account: 'robot$a',
      scope: 'repository:team/app:pull',
    })
    expect(
      seen
        .filter(({ authorization }) => authorization === robotHeader)
        .every(({ url: path }) => path.startsWith('/token')),
    ).toBe(true)
  })

  it('come by POST where GET is not offered', async () => {
    const server = await upstream((req, res, body) => {
      if (!req.url!.startsWith('/token')) {
        if (req.headers.authorization === 'Bearer posted') return json(res, {})
        return res.writeHead(401, { 'www-authenticate': `Bearer realm="${server.url}/token",service="s"` }).end()
      }
      if (req.method === 'GET') return res.writeHead(405).end()
      const form = Object.fromEntries(new URLSearchParams(body))
      expect(form).toMatchObject({ grant_type: 'password', username: 'robot$a', password: 'pä:ss', service: 's' })
      return json(res, { access_token: 'posted' })
    })
    await client({ url: server.url, credential: robot }).ping()
    expect(server.seen.at(-1)!.authorization).toBe('Bearer posted')
  })

  it('that the registry does not take any more are asked for anew, once', async () => {
    let valid = 't1'
    const server = await upstream((req, res) => {
      if (req.url!.startsWith('/token')) return json(res, { token: valid, expires_in: 300 })
      if (req.headers.authorization === `Bearer ${valid}`) return json(res, {})
      return res.writeHead(401, { 'www-authenticate': `Bearer realm="${server.url}/token"` }).end()
    })
    const target = client(server)
    await target.ping()
    valid = 't2'
    await target.ping()
    expect(server.seen.length).toBe(6)
  })

  it('do not come from a service where nobody listens, whatever the registry asks', async () => {
    const { url, seen } = await upstream((req, res) => {
      if (req.url!.startsWith('/token')) return json(res, { token: 't', expires_in: 1 })
      return req.headers.authorization
        ? json(res, {})
        : res.writeHead(401, { 'www-authenticate': 'Bearer realm="http://127.0.0.1:1/"' }).end()
    })
    const target = client({ url })
    await expect(target.ping()).rejects.toEqual(because('refused'))
    expect(seen.length).toBe(1)
  })

  it('follow the actions that the registry names for this repository and no other', async () => {
    const server = await upstream((req, res) => {
      if (req.url!.startsWith('/token')) return json(res, { token: new URL(req.url!, 'http://x').searchParams.get('scope')!.split(':').at(-1)!.includes('*') ? 'all' : 'few', expires_in: 300 }) // prettier-ignore
      if (req.headers.authorization === 'Bearer all') return res.writeHead(202).end()
      const scope = 'repository:team/app:* repository:other/secret:pull,push'
      return res.writeHead(401, { 'www-authenticate': `Bearer realm="${server.url}/token",scope="${scope}"` }).end()
    })
    expect(await client(server).deleteManifest(app, { digest: manifestDigest })).toBe(true)
    expect(server.seen.map(({ url }) => decodeURIComponent(url)).join()).not.toContain('other/secret')
  })

  it.each([
    ['nothing', {}],
    ['a line break', { token: 'a\r\nx: y' }],
    ['no text', { token: 7 }],
    ['a list', []],
  ])('A83: a service that answers %s gives none', async (_what, answer) => {
    const server = await upstream((req, res) =>
      req.url!.startsWith('/token')
        ? json(res, answer)
        : res.writeHead(401, { 'www-authenticate': `Bearer realm="${server.url}/token"` }).end(),
    )
    await expect(client(server).ping()).rejects.toEqual(because(/no token|no JSON object/))
  })
})

describe('A83: the realm of a challenge (CVE-2026-33540)', () => {
  it('gets no credential at another origin, unless the endpoint names it', async () => {
    const thief = await upstream((_req, res) => json(res, { token: 't1' }))
    const server = await guarded(() => `${thief.url}/token`)
    await expect(client({ url: server.url, credential: robot }).ping()).rejects.toEqual(
      because('may not have the credential'),
    )
    expect(thief.seen).toEqual([])
    expect(await client({ url: server.url, credential: robot, tokenOrigins: [thief.url] }).ping()).toEqual({
      auth: 'bearer',
    })
    expect(thief.seen[0]!.authorization).toBe(robotHeader)
  })

  it('may be anywhere for somebody without credential, within the guard', async () => {
    const elsewhere = await upstream((_req, res) => json(res, { token: 't1' }))
    await client(await guarded(() => `${elsewhere.url}/token`)).ping()
    expect(elsewhere.seen[0]!.authorization).toBeUndefined()
    const refused = client(await guarded(() => 'http://169.254.169.254/token')).ping()
    await expect(refused).rejects.toEqual(expect.objectContaining({ kind: problems.outboundRefused.kind }))
  })

  it('may not be a redirect that takes the credential along', async () => {
    const thief = await upstream((_req, res) => json(res, { token: 't1' }))
    const server = await upstream((req, res) => {
      if (req.url!.startsWith('/token')) return res.writeHead(307, { location: thief.url }).end()
      return res.writeHead(401, { 'www-authenticate': `Bearer realm="${server.url}/token"` }).end()
    })
    await expect(client({ url: server.url, credential: robot }).ping()).rejects.toEqual(because('credential'))
    expect(thief.seen.map(({ authorization }) => authorization)).toEqual([undefined])
  })

  // The trust in a host above or beside is decided before anything is sent, so a resolver shows where we would have gone.
  it.each([
    ['https://registry.gitlab.test', 'https://gitlab.test/jwt/auth', true],
    ['https://gitlab.test:5050', 'https://gitlab.test/jwt/auth', true],
    ['https://registry-1.docker.io', 'https://auth.docker.io/token', true],
    ['https://registry.gitlab.test', 'http://registry.gitlab.test/token', false],
    ['https://a.azurecr.test', 'https://b.azurecr.test/token', false],
    ['https://registry.test', 'https://test/token', false],
    ['https://evilgitlab.test', 'https://gitlab.test/token', false],
    ['https://gitlab.test', 'https://gitlab.test.evil/token', false],
    ['https://gitlab.test', 'file:///etc/passwd', false],
    ['https://gitlab.test', 'not a url', false],
  ])('of %s at %s: %s', async (url, realm, trusted) => {
    const asked: string[] = []
    const scripted = {
      request: async (request: { url: string | URL; headers?: Record<string, string> }) => {
        const at = new URL(request.url)
        asked.push(`${at.hostname} ${request.headers?.authorization ?? '-'}`)
        const body = Readable.from([Buffer.from(JSON.stringify({ token: 't' }))])
        if (at.pathname !== '/v2/' || request.headers?.authorization) return { status: 200, headers: {}, url: at, body }
        return { status: 401, headers: { 'www-authenticate': `Bearer realm="${realm}"` }, url: at, body }
      },
    } as unknown as OutboundClient
    const done = registry({ url, credential: robot }, scripted).ping()
    if (trusted) expect(await done).toEqual({ auth: 'bearer' })
    else await expect(done).rejects.toEqual(because('its token service'))
    expect(asked.filter((line) => line.endsWith(robotHeader))).toEqual(
      trusted ? [`${new URL(realm).hostname} ${robotHeader}`] : [],
    )
  })

  it('of a place that a blob was redirected to does not count', async () => {
    const thief = await upstream((_req, res) => res.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end())
    const server = await upstream((_req, res) => res.writeHead(307, { location: thief.url }).end())
    await expect(client({ url: server.url, credential: robot }).getBlob(app, digest)).rejects.toEqual(
      because('credential'),
    )
    expect(thief.seen.map(({ authorization }) => authorization)).toEqual([undefined])
  })
})

describe('retries', () => {
  const failing = (times: number, status: number, headers: Record<string, string> = {}) => {
    let left = times
    return upstream((_req, res) =>
      left-- > 0 ? res.writeHead(status, headers).end() : res.writeHead(202, { location: '/x' }).end('{}'),
    )
  }

  it('repeats 429 and 503 after growing, jittered waits', async () => {
    const { url, seen } = await failing(3, 503)
    await client({ url }).deleteManifest(app, latest)
    expect([seen.length, waits]).toEqual([4, [125, 500, 2000]])
    const always = await failing(99, 429)
    const failure = await client(always)
      .deleteManifest(app, latest)
      .catch((error: unknown) => error)
    expect([always.seen.length, upstreamStatus(failure)]).toEqual([4, 429])
  })

  it('waits as long as Retry-After says, up to half a minute', async () => {
    await client(await failing(1, 429, { 'retry-after': '7' })).deleteManifest(app, latest)
    expect(waits).toEqual([7000])
    const now = Date.parse('2026-01-01T00:00:00Z')
    await client(await failing(1, 503, { 'retry-after': 'Thu, 01 Jan 2026 00:00:09 GMT' }), {
      ...impatient,
      now: () => now,
    }).deleteManifest(app, latest)
    expect(waits).toEqual([9000])
    const long = await failing(1, 429, { 'retry-after': '3600' })
    await expect(client(long).deleteManifest(app, latest)).rejects.toEqual(because('asked too often'))
    expect([long.seen.length, waits]).toEqual([1, []])
  })

  it('repeats a broken connection only where that does no harm', async () => {
    let breaks = 1
    const server = await upstream((req, res) => (breaks-- > 0 ? req.socket.destroy() : json(res, {})))
    await client(server).ping()
    expect(server.seen.length).toBe(2)
    breaks = 1
    const push = client(server).pushBlob(app, { digest, sizeBytes: blob.length, open: () => Readable.from([blob]) })
    await expect(push).rejects.toEqual(because('was cut'))
    expect(server.seen.length).toBe(3)
  })

  it('ends with its budget: a tenth of the calls, and ten', async () => {
    const { url, seen } = await failing(1e9, 503)
    const target = client({ url })
    for (let i = 0; i < 50; i++) await expect(target.ping()).rejects.toEqual(because('503'))
    expect(seen.length).toBeLessThanOrEqual(50 + 10 + 5)
  })

  it('stops at once when the caller does', async () => {
    const { url } = await failing(9, 503, { 'retry-after': '20' })
    const stop = new Error('stopped')
    const target = client({ url }, {})
    await expect(target.ping({ signal: AbortSignal.abort(stop) })).rejects.toBe(stop)
    const later = new AbortController()
    setTimeout(() => later.abort(stop), 50)
    await expect(target.ping({ signal: later.signal })).rejects.toBe(stop)
  })
})

describe('manifests', () => {
  const serving = (bytes: Buffer, headers: Record<string, string> = {}) =>
    upstream((_req, res) =>
      res.writeHead(200, { 'content-type': `${mediaTypes.ociIndex}; charset=utf-8`, ...headers }).end(bytes),
    )

  it('come with the digest of their bytes', async () => {
    const target = client(await serving(manifest))
    const expected = { digest: manifestDigest, mediaType: mediaTypes.ociIndex, sizeBytes: manifest.length }
    expect(await target.getManifest(app, latest)).toEqual({ ...expected, bytes: manifest })
    expect(await target.getManifest(app, { digest: manifestDigest })).toMatchObject(expected)
    const sha512 = digestOf(manifest, 'sha512')
    expect(await target.getManifest(app, { digest: sha512 })).toMatchObject({ digest: sha512 })
    expect(await target.headManifest(app, latest)).toEqual(expected) // a HEAD without a digest becomes a GET
  })

  it('A83: that are not those of their digest are refused (CVE-2026-85747)', async () => {
    const other = digestOf('other')
    await expect(client(await serving(manifest)).getManifest(app, { digest: other })).rejects.toEqual(
      because('not the one of its digest'),
    )
    const lying = client(await serving(manifest, { 'docker-content-digest': other }))
    await expect(lying.getManifest(app, latest)).rejects.toEqual(because('not that of the content'))
    await expect(lying.getManifest(app, { digest: manifestDigest })).rejects.toEqual(because('not that of the content'))
    await expect(lying.headManifest(app, { digest: manifestDigest })).rejects.toEqual(
      because('not that of the content'),
    )
    const unknown = parseDigest(`blake3:${'a'.repeat(64)}`)!
    await expect(lying.getManifest(app, { digest: unknown })).rejects.toEqual(
      expect.objectContaining({ kind: problems.digestInvalid.kind }),
    )
    await expect(client(await serving(Buffer.alloc(4 * 1024 ** 2 + 1))).getManifest(app, latest)).rejects.toEqual(
      because('longer than'),
    )
    const put = client(await upstream((_req, res) => res.writeHead(201, { 'docker-content-digest': other }).end()))
    await expect(put.putManifest(app, latest, { mediaType: mediaTypes.ociIndex, bytes: manifest })).rejects.toEqual(
      because('not that'),
    )
  })

  it('that are not there are null, and so are their heads; deleting says so', async () => {
    const target = client(await upstream((_req, res) => res.writeHead(404).end('{}')))
    expect(await target.getManifest(app, latest)).toBeNull()
    expect(await target.headManifest(app, latest)).toBeNull()
    expect(await target.headBlob(app, digest)).toBeNull()
    expect(await target.getBlob(app, digest)).toBeNull()
    expect(await target.getBlob(app, digest, { range: { first: 0, last: 1 } })).toBeNull()
    expect(await target.deleteManifest(app, latest)).toBe(false)
  })

  it('repeats nothing of a refusal but its status', async () => {
    const target = client(
      await upstream((_req, res) =>
        res.writeHead(403, { 'x-secret': 's3cret' }).end('{"errors":[{"message":"s3cret"}]}'),
      ),
    )
    const failure = await target.getManifest(app, latest).catch((error: unknown) => error)
    expect(failure).toEqual(because(/^it does not allow this$/))
    expect(JSON.stringify(failure)).not.toContain('s3cret')
  })
})

describe('getBlob', () => {
  const read = async (stream: { body: Readable } | null) => buffer(stream!.body)

  it('A83: fails at the end for other bytes, and for another length', async () => {
    const wrong = Buffer.from(blob).fill('x', 5, 6)
    const serving = (bytes: Buffer) =>
      upstream((_req, res) => res.writeHead(200, { 'content-length': bytes.length }).end(bytes))
    await expect(read(await client(await serving(wrong)).getBlob(app, digest))).rejects.toEqual(
      because('not the one of its digest'),
    )
    const short = client(await serving(blob.subarray(1)))
    await expect(short.getBlob(app, digest, { sizeBytes: blob.length })).rejects.toEqual(
      because('as long as its manifest'),
    )
    await expect(client(await serving(blob)).getBlob(app, digest, { sizeBytes: 9 })).rejects.toEqual(
      because(/longer than|manifest says/),
    )
    const chunked = client(await upstream((_req, res) => (res.write(blob.subarray(0, 1000)), res.end())))
    await expect(read(await chunked.getBlob(app, digest, { sizeBytes: blob.length }))).rejects.toEqual(
      because('as long as it should'),
    )
    const endless = client(await upstream((_req, res) => Readable.from((function* () { for (;;) yield blob })()).pipe(res))) // prettier-ignore
    await expect(read(await endless.getBlob(app, digest, { sizeBytes: blob.length }))).rejects.toEqual(
      because(/longer than|answered 200/),
    )
  })

  it('goes on where the connection broke', async () => {
    const { url, seen } = await upstream((req, res) => {
      const first = Number(/^bytes=(\d+)-$/.exec(req.headers.range ?? '')?.[1] ?? 0)
      const headers = {
        'content-length': blob.length - first,
        'content-range': `bytes ${first}-${blob.length - 1}/${blob.length}`,
      }
      res.writeHead(req.headers.range ? 206 : 200, headers)
      if (first > 200_000) res.end(blob.subarray(first))
      else res.write(blob.subarray(first, first + 110_000), () => setTimeout(() => res.destroy(), 20))
    })
    expect((await read(await client({ url }).getBlob(app, digest))).equals(blob)).toBe(true)
    expect(seen.map(({ headers }) => headers.range)).toEqual([undefined, 'bytes=110000-', 'bytes=220000-'])
  })

  it('does not take another part for the rest', async () => {
    const { url } = await upstream((req, res) => {
      if (req.headers.range)
        return res.writeHead(206, { 'content-range': `bytes 0-9/${blob.length}` }).end(blob.subarray(0, 10))
      return res
        .writeHead(200, { 'content-length': blob.length })
        .write(blob.subarray(0, 1000), () => setTimeout(() => res.destroy(), 20))
    })
    await expect(read(await client({ url }).getBlob(app, digest))).rejects.toEqual(because('another range'))
  })

  it('reads a range, and only that one', async () => {
    const ranged = (headers: Record<string, string>, body: Buffer, status = 206) =>
      upstream((_req, res) => res.writeHead(status, headers).end(body)).then((server) => client(server))
    const range = { first: 10, last: 19 }
    const good = await ranged({ 'content-range': 'bytes 10-19/300000' }, blob.subarray(10, 20))
    expect((await read(await good.getBlob(app, digest, { range }))).equals(blob.subarray(10, 20))).toBe(true)
    for (const [header, status] of [
      ['bytes 0-9/300000', 206],
      ['bytes 10-20/300000', 206],
      ['', 206],
      ['', 200],
    ] as const) {
      // prettier-ignore
      const bad = await ranged({ 'content-range': header }, blob.subarray(10, 20), status)
      await expect(bad.getBlob(app, digest, { range })).rejects.toEqual(because(/another range|answered 200/))
    }
    const short = await ranged(
      { 'content-range': 'bytes 10-19/*', 'transfer-encoding': 'chunked' },
      blob.subarray(10, 15),
    )
    await expect(read(await short.getBlob(app, digest, { range }))).rejects.toEqual(because('as long as it should'))
  })

  it('takes no credential along to the store that it is redirected to', async () => {
    const store = await upstream((_req, res) => res.end(blob))
    const { url } = await guarded((own) => `${own}/token`, (_req, res) => res.writeHead(307, { location: `${store.url}/signed` }).end()) // prettier-ignore
    expect((await read(await client({ url, credential: robot }).getBlob(app, digest))).equals(blob)).toBe(true)
    expect(store.seen.map(({ authorization }) => authorization)).toEqual([undefined])
  })
})

describe('pushBlob', () => {
  const content = {
    digest,
    sizeBytes: blob.length,
    open: ({ first, last }: { first: number; last: number }) => Readable.from([blob.subarray(first, last + 1)]),
  }

  it('A83: sends nothing to an upload at another origin (CVE-2026-50151)', async () => {
    const thief = await upstream((_req, res) => res.writeHead(201).end())
    for (const location of [`${thief.url}/up`, 'file:///x', 'http://u:p@127.0.0.1/', '']) {
      const { url } = await upstream((_req, res) => res.writeHead(202, location ? { location } : {}).end())
      await expect(client({ url, credential: robot }).pushBlob(app, content)).rejects.toEqual(
        because(/another origin|no place/),
      )
    }
    expect(thief.seen).toEqual([])
  })

  it('mounts, and pushes when the registry will not', async () => {
    const source = parseRepositoryName('team/base')!
    const mounting = await upstream((_req, res) => res.writeHead(201).end())
    expect(await client(mounting).pushBlob(app, content, { mountFrom: source })).toBe('mounted')
    expect(mounting.seen[0]!.url).toBe(
      `/v2/team/app/blobs/uploads/?mount=${encodeURIComponent(digest)}&from=team%2Fbase`,
    )
    const unwilling = await upstream((req, res) => {
      if (req.url!.includes('mount=')) return res.writeHead(403).end()
      return req.method === 'POST' ? res.writeHead(202, { location: '/up?state=1' }).end() : res.writeHead(201).end()
    })
    expect(await client(unwilling).pushBlob(app, content, { mountFrom: source })).toBe('pushed')
    expect(unwilling.seen.at(-1)).toMatchObject({
      method: 'PUT',
      url: `/up?state=1&digest=${encodeURIComponent(digest)}`,
      body: blob.toString(),
    })
  })

  it('sends chunks, goes on after a break where the registry stopped, and cancels what failed', async () => {
    let got = Buffer.alloc(0)
    let breaks = 1
    const server = await upstream((req, res, body) => {
      const range = { location: '/up', range: `0-${Math.max(0, got.length - 1)}` }
      if (req.method === 'POST') return res.writeHead(202, { ...range, 'oci-chunk-min-length': '100000' }).end()
      if (req.method === 'GET') return res.writeHead(204, range).end()
      if (req.method === 'PUT') return res.writeHead(digestOf(got) === digest ? 201 : 400).end()
      if (req.method === 'DELETE') return res.writeHead(204).end()
      const first = Number(/^\d+/.exec(req.headers['content-range']!)![0])
      if (first !== got.length) return res.writeHead(416, range).end()
      if (first > 0 && breaks-- > 0) {
        got = Buffer.concat([got, Buffer.from(body).subarray(0, 5000)])
        return res.destroy()
      }
      got = Buffer.concat([got, Buffer.from(body)])
      return res.writeHead(202, { location: '/up', range: `0-${got.length - 1}` }).end()
    })
    expect(await client(server).pushBlob(app, content, { chunkBytes: 10 })).toBe('pushed')
    const ranges = server.seen.flatMap(({ headers }) => headers['content-range'] ?? [])
    expect(ranges).toEqual(['0-99999', '100000-199999', '105000-204999', '205000-299999'])
    expect(server.seen.some(({ method }) => method === 'DELETE')).toBe(false)
    got = Buffer.alloc(0)
    await expect(client(server).pushBlob(app, { ...content, digest: digestOf('other') })).rejects.toEqual(
      because('400'),
    )
    expect(server.seen.at(-1)!.method).toBe('DELETE')
  })

  it('gives up on a registry that takes no bytes, or claims too many', async () => {
    const stuck = await upstream((_req, res) => res.writeHead(202, { location: '/up', range: '0-0' }).end())
    await expect(client(stuck).pushBlob(app, content, { chunkBytes: 1000 })).rejects.toEqual(because('takes no more'))
    const eager = await upstream((_req, res) => res.writeHead(202, { location: '/up', range: '0-999999' }).end())
    await expect(client(eager).pushBlob(app, content, { chunkBytes: 1000 })).rejects.toEqual(
      because('more than was sent'),
    )
  })
})

describe('lists', () => {
  const all = async (list: AsyncIterable<readonly string[]>) => {
    const found: string[] = []
    for await (const page of list) found.push(...page)
    return found
  }

  it('follow the link of each page, and leave out what is no name', async () => {
    const { url, seen } = await upstream((req, res) =>
      req.url!.includes('last=b')
        ? json(res, { tags: ['c'] })
        : json(
            res,
            { tags: ['a', '../x', 7, 'b'] },
            { link: '</else>; rel="prev", </v2/team/app/tags/list?n=2&last=b>; rel=next' },
          ),
    )
    expect(await all(client({ url }).listTags(app))).toEqual(['a', 'b', 'c'])
    expect(seen.length).toBe(2)
    expect(await all(client(await upstream((_req, res) => json(res, { tags: null }))).listTags(app))).toEqual([])
    expect(await all(client(await upstream((_req, res) => res.writeHead(404).end())).listTags(app))).toEqual([])
    expect(
      await all(client(await upstream((_req, res) => json(res, { repositories: ['a/b', 'A'] }))).catalog()),
    ).toEqual(['a/b'])
  })

  it('A83: do not follow to another origin or in a circle, and are no garbage', async () => {
    const thief = await upstream((_req, res) => json(res, { tags: [] }))
    const away = await upstream((_req, res) => json(res, { tags: [] }, { link: `<${thief.url}/>; rel="next"` }))
    await expect(all(client({ url: away.url, credential: robot }).listTags(app))).rejects.toEqual(
      because('another origin'),
    )
    expect(thief.seen).toEqual([])
    const circle = await upstream((req, res) => json(res, { tags: ['a'] }, { link: `<${req.url}>; rel="next"` }))
    await expect(all(client(circle).listTags(app))).rejects.toEqual(because('does not end'))
    for (const garbage of ['{', '[]', '{"tags":7}']) {
      await expect(all(client(await upstream((_req, res) => res.end(garbage))).listTags(app))).rejects.toEqual(
        because('its answer'),
      )
    }
  })

  it('of referrers come from the API, filtered whether or not it does that', async () => {
    const entry = (artifactType: string) => ({
      mediaType: mediaTypes.ociManifest,
      digest: digestOf(artifactType),
      size: 2,
      artifactType,
    })
    const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [entry('a/sbom'), entry('a/sig')] }
    const { url, seen } = await upstream((_req, res) => json(res, index, { 'content-type': mediaTypes.ociIndex }))
    const found = await client({ url }).listReferrers(app, digest, { artifactType: 'a/sig' })
    expect(found.map(({ artifactType }) => artifactType)).toEqual(['a/sig'])
    expect(seen[0]!.url).toBe(`/v2/team/app/referrers/${digest}?artifactType=a%2Fsig`)
    const nonsense = client(
      await upstream((_req, res) => json(res, { manifests: 7 }, { 'content-type': mediaTypes.ociIndex })),
    )
    await expect(nonsense.listReferrers(app, digest)).rejects.toEqual(
      expect.objectContaining({ kind: problems.manifestInvalid.kind }),
    )
  })
})
