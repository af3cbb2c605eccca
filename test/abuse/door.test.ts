import { readdirSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, send, until, type Image } from '../flows/client.ts'
import { chunked, framed, raw, request } from './raw.ts'

const EXTERNAL = 'https://registry.example.test'
/** Somebody else than the healthy client, who is 127.0.0.1. */
const ATTACKER = '127.0.0.2'
const SOCKETS = 48
const LARGE = 24 * 1024 * 1024

// The limits of threats.md §5, small enough to be met in a test.
const env = {
  HAVEN_EXTERNAL_URL: EXTERNAL,
  PROXY_SOCKETS_PER_CLIENT: String(SOCKETS),
  PROXY_HEADERS_WITHIN: '2s',
  PROXY_BODY_WITHIN: '3s',
  PROXY_UPLOAD_WINDOW: '3s',
  PROXY_STALLED_READER: '5s',
}

describe.each(['single', 'split'] as const)('the door of an installation of the shape %s', (shape) => {
  let haven: HavenInstallation
  let client: Client
  let token: string
  let bearer: string
  let image: Image

  beforeAll(async () => {
    haven = await startHaven({ shape, env })
    client = new Client(haven.url)
    await client.project('team')
    token = await client.token(ADMIN, 'team/app')
    bearer = `Authorization: Bearer ${token}`
    image = await client.pushImage('team/app', '1', token)
  }, 120_000)
  afterAll(async () => haven?.[Symbol.asyncDispose](), 60_000)

  const pull = async () => (await client.pull('team/app', '1', token)).headers.get('docker-content-digest')
  const environmentOf = (name: string): Record<string, string> => {
    const pid = haven.processes()[shape === 'single' ? (name === 'jobservice' ? 'back' : 'front') : name]!
    const pairs = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
    return Object.fromEntries(
      pairs.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
    )
  }
  const openFiles = () =>
    Object.entries(haven.processes())
      .filter(([name]) => name !== 'postgres' && name !== 'redis')
      .reduce((sum, [, pid]) => sum + readdirSync(`/proc/${pid!}/fd`).length, 0)

  const uploads = '/v2/team/app/blobs/uploads/'
  /** What an attacker hides: were it read as a request, it would change a tag that everybody sees. */
  const hidden = () => framed('DELETE /v2/team/app/manifests/1 HTTP/1.1', [bearer], '')

  describe('smuggling', () => {
    const post = `POST ${uploads} HTTP/1.1`
    it.each<[string, string, string[], string]>([
      ['CL.TE', post, ['Content-Length: 6', 'Transfer-Encoding: chunked'], '0\r\n\r\nG'],
      ['TE.CL', post, ['Transfer-Encoding: chunked', 'Content-Length: 4'], '0\r\n\r\n'],
      ['TE.TE', post, ['Transfer-Encoding: chunked', 'Transfer-Encoding: x'], '0\r\n\r\n'],
      ['xchunked', post, ['Transfer-Encoding: xchunked'], '0\r\n\r\n'],
      ['chunked, identity', post, ['Transfer-Encoding: chunked, identity'], '0\r\n\r\n'],
      ['a folded Transfer-Encoding', post, ['Transfer-Encoding:\r\n chunked'], '0\r\n\r\n'],
      ['two lengths', post, ['Content-Length: 0', 'Content-Length: 5'], ''],
      ['the same length twice', post, ['Content-Length: 0', 'Content-Length: 0'], ''],
      ['a list of lengths', post, ['Content-Length: 0, 0'], ''],
      ['a signed length', post, ['Content-Length: +0'], ''],
      ['an obsolete fold', post, ['X-A: b\r\n c: d', 'Content-Length: 0'], ''],
      ['a bare CR', post, ['X-A: b\rContent-Length: 5', 'Content-Length: 0'], ''],
      ['a bare LF between headers', post, ['X-A: b\nX-B: c', 'Content-Length: 0'], ''],
      ['a bare LF behind a chunk size', post, ['Transfer-Encoding: chunked'], '0\n\n'],
      ['a bare LF in a chunk extension', post, ['Transfer-Encoding: chunked'], '2;\nxx\r\n0\r\n\r\n'],
      ['a chunk size that overflows', post, ['Transfer-Encoding: chunked'], 'FFFFFFFFFFFFFFFF0\r\n\r\n'],
      ['40 KB of chunk extension', post, ['Transfer-Encoding: chunked'], `2;${'a'.repeat(40_000)}\r\nxx\r\n0\r\n\r\n`],
      [
        'chunks of HTTP/1.0',
        `POST ${uploads} HTTP/1.0`,
        ['Connection: keep-alive', 'Transfer-Encoding: chunked'],
        '0\r\n\r\n',
      ],
      [
        'chunks of a DELETE',
        'DELETE /v2/team/app/manifests/none HTTP/1.1',
        ['Transfer-Encoding: chunked'],
        chunked('x'),
      ],
      ['a preface of HTTP/2', 'PRI * HTTP/2.0', [], 'SM\r\n\r\n'],
    ])('A47 %s is 400 and the end of the connection', async (_, startLine, headers, body) => {
      const answer = await raw(haven.url, framed(startLine, [bearer, ...headers], body) + hidden())
      expect([answer.statuses, answer.closed]).toEqual([[400], true])
      expect(await pull()).toBe(image.digest)
    })

    it('A47 headers behind a body have no effect, and do not come back', async () => {
      const trailers = `0\r\nX-Haven-Proxy: x\r\nAuthorization: Basic ${Buffer.from('admin:x').toString('base64')}\r\n\r\n`
      const headers = [bearer, 'Connection: close', 'Transfer-Encoding: chunked', 'Trailer: Authorization']
      expect((await raw(haven.url, framed(post, headers, trailers))).statuses).toEqual([202])
      const many = `0\r\n${'X-A: bbbbbbbbbbbbbbbbbbbb\r\n'.repeat(1000)}\r\n`
      expect((await raw(haven.url, framed(post, headers, many))).statuses).toEqual([431])
    })

    // Each is one request whose body looks like another; a service behind must neither read it as one, nor answer the next client with it.
    it.each<[string, string, string[], (body: string) => string]>([
      ['a GET with chunks', 'GET /v2/team/app/tags/list', ['Transfer-Encoding: chunked'], chunked],
      ['a HEAD with chunks', 'HEAD /v2/team/app/tags/list', ['Transfer-Encoding: chunked'], chunked],
      ['a GET with a length', 'GET /v2/team/app/tags/list', ['Content-Length: #'], (body) => body],
      ['a DELETE with a length', 'DELETE /v2/team/app/manifests/none', ['Content-Length: #'], (body) => body],
      ['an OPTIONS with a length', 'OPTIONS /api/v2.0/ping', ['Content-Length: #'], (body) => body],
      [
        'a length named by Connection',
        `POST ${uploads}`,
        ['Connection: Content-Length', 'Content-Length: #'],
        (body) => body,
      ],
      [
        'chunks named by Connection',
        `POST ${uploads}`,
        ['Connection: Transfer-Encoding', 'Transfer-Encoding: chunked'],
        chunked,
      ],
      [
        'a chunk extension',
        `POST ${uploads}`,
        ['Transfer-Encoding: chunked'],
        (body) => chunked(body).replace('\r\n', ';a="b"\r\n'),
      ],
    ])('A47 %s stays one request', async (_, start, headers, wrap) => {
      const body = hidden()
      const lines = [bearer, ...headers.map((line) => line.replace('#', String(body.length)))]
      const one = framed(`${start} HTTP/1.1`, lines, wrap(body))
      const ping = request('GET', '/api/v2.0/ping')
      const [answer, ...others] = await Promise.all([
        raw(haven.url, [one, ping]),
        ...Array.from({ length: 8 }, () => send(`${haven.url}/api/v2.0/ping`, 'GET')),
      ])
      // Whether the connection is kept behind a body that nobody needed is the server's choice.
      expect(answer.statuses.length).toBeLessThanOrEqual(2)
      expect(answer.statuses.length === 1 ? answer.closed : answer.text.endsWith('Pong')).toBe(true)
      expect(others.map(({ text }) => text)).toEqual(others.map(() => 'Pong'))
      expect(await pull()).toBe(image.digest)
    })

    it('A47 a body that nobody reads is not read as a request', async () => {
      const body = hidden()
      const refused = framed(`PUT ${uploads}none?digest=x HTTP/1.1`, [`Content-Length: ${body.length}`], body)
      const { text, statuses } = await raw(haven.url, [refused, request('GET', '/api/v2.0/ping')])
      expect(statuses[0]).toBe(401)
      expect(statuses.slice(1).every((status) => status === 200)).toBe(true)
      expect(text).not.toMatch(/202 Accepted/)
      expect(await pull()).toBe(image.digest)
    })
  })

  describe('names and addresses that a client may not choose', () => {
    it.each<[string, string]>([
      ['two hosts', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\nHost: a\r\nHost: b\r\n\r\n'],
      ['the same host twice', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\nHost: a\r\nHost: a\r\n\r\n'],
      [
        'the absolute form of another host',
        'GET http://evil.test/v2/ HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n',
      ],
      ['no host', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n'],
      ['an empty host', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\nHost:\r\n\r\n'],
      ['a host with @', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\nHost: a@evil.test\r\n\r\n'],
      ['a host with a path', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\nHost: a/b\r\n\r\n'],
      ['port 99999', 'GET /v2/ HTTP/1.1\r\nConnection: close\r\nHost: a:99999\r\n\r\n'],
    ])('A48 %s is 400', async (_, text) => expect((await raw(haven.url, text)).statuses).toEqual([400]))

    it.each<[string, string[]]>([
      ['Host', ['Host: evil.test']],
      [
        'X-Forwarded-Host',
        ['Host: h', 'X-Forwarded-Host: evil.test', 'X-Forwarded-Proto: http', 'Forwarded: host=evil.test'],
      ],
      ['the secret that a proxy would show', ['Host: h', 'X-Haven-Proxy: x', 'X-Forwarded-Host: evil.test']],
    ])('A49 the realm is ours whatever %s says', async (_, headers) => {
      const { text, statuses } = await raw(
        haven.url,
        ['GET /v2/ HTTP/1.1', 'Connection: close', ...headers, '', ''].join('\r\n'),
      )
      expect(statuses).toEqual([401])
      expect(text).toContain(`Bearer realm="${EXTERNAL}/service/token",service="harbor-registry"`)
      expect(text).not.toContain('evil.test')
    })

    it('A50 an address that the client claims is believed by nobody', async () => {
      const login = async (guess: number) => {
        const body = `principal=nobody-${shape}&password=x`
        const claims = [
          `X-Forwarded-For: 10.9.9.${guess}`,
          `X-Real-IP: 10.9.9.${guess}`,
          `Forwarded: for=10.9.9.${guess}`,
        ]
        const type = 'Content-Type: application/x-www-form-urlencoded'
        const csrf = await send(`${haven.url}/c/log_out`, 'GET')
        const cookie = `Cookie: ${csrf.headers
          .getSetCookie()
          .map((set) => set.split(';')[0])
          .join('; ')}`
        const mark = `X-Harbor-CSRF-Token: ${csrf.headers.get('x-harbor-csrf-token')}`
        const headers = [type, cookie, mark, ...claims, `Content-Length: ${body.length}`]
        return (await raw(haven.url, request('POST', '/c/login', headers, body))).statuses[0]
      }
      const statuses = []
      for (let guess = 1; guess <= 6; guess++) statuses.push(await login(guess))
      // The throttle counts by address (A60): another one each time would never be stopped.
      expect(statuses).toEqual([401, 401, 401, 401, 401, 429])
      const rows = await haven.query<{ text: string }>(`select row_to_json(e)::text as text from events.outbox e`)
      const told = rows.map(({ text }) => text).join('\n')
      expect(told).toContain(`nobody-${shape}`)
      expect(told).not.toContain('10.9.9.')
    })

    it('A50 the credentials of services open nothing from outside, even the right ones', async () => {
      const { CORE_SECRET, JOBSERVICE_SECRET, HAVEN_PROXY_SECRET } = environmentOf('core')
      expect([CORE_SECRET, JOBSERVICE_SECRET, HAVEN_PROXY_SECRET].every((secret) => secret!.length > 30)).toBe(true)
      for (const secret of [CORE_SECRET, JOBSERVICE_SECRET]) {
        for (const scheme of ['Harbor-Secret', 'harbor-secret', 'Harbor-Secret  ']) {
          const claim = `Authorization: ${scheme} ${secret}`
          expect((await raw(haven.url, request('GET', '/api/v2.0/users', [claim]))).statuses).toEqual([401])
          expect(
            (await raw(haven.url, request('GET', '/api/v2.0/users', [claim, 'Authorization: Basic eDp5']))).statuses,
          ).toEqual([401])
        }
      }
      const proof = [
        `X-Haven-Proxy: ${HAVEN_PROXY_SECRET}`,
        'X-Haven-Can-Send: 1',
        'X-Forwarded-Proto: https',
        'X-Forwarded-For: 10.9.9.9',
      ]
      const blob = await raw(haven.url, request('GET', `/v2/team/app/blobs/${image.layer}`, [bearer, ...proof]))
      expect(blob.statuses).toEqual([200])
      expect(blob.text).not.toMatch(/^x-haven/im)
      expect(blob.text.length - blob.text.indexOf('\r\n\r\n') - 4).toBe(image.layerBytes)
    })

    it.each(['TRACE', 'PROPFIND', 'CONNECT', 'SEARCH'])('A51 %s is 405', async (method) => {
      const target = method === 'CONNECT' ? 'evil.test:443' : '/v2/'
      expect((await raw(haven.url, request(method, target))).statuses).toEqual([405])
    })

    it('A51 Connection takes away what is between the client and us, and nothing of ours', async () => {
      const ask = (...headers: string[]) =>
        raw(haven.url, ['GET /v2/ HTTP/1.1', 'Host: h', bearer, ...headers, '', ''].join('\r\n'))
      expect((await ask('Connection: close, Authorization')).statuses).toEqual([401])
      expect((await ask('Connection: close, X-Forwarded-For, X-Haven-Proxy, Host, X-Request-Id')).statuses).toEqual([
        200,
      ])
      const upgraded = await ask(
        'Connection: Upgrade, HTTP2-Settings, close',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABkAAQAAP__',
      )
      expect(upgraded.statuses).toEqual([200])
    })
  })

  it.each([
    '/service/notifications/jobs/webhook/1',
    '/service/%6eotifications/jobs/webhook/1',
    '/service//notifications',
    '//service/notifications',
    '/service/token/../notifications',
    '/service/notifications;x',
    '/service/token/%2e%2e/notifications',
    '/service%2fnotifications',
    '/service\\notifications',
    '/api/internal/renameadmin',
    '/api//internal/renameadmin',
    '/api/v2.0/../internal/renameadmin',
    '/v2/../service/notifications',
    '/v2/..%2fservice/notifications',
    '/../../etc/passwd',
    '/%2e%2e/%2e%2e/etc/passwd',
    '/..%5c..%5cpackage.json',
    '/service/token/jwks.json',
  ])('A52 %s is nowhere', async (path) => {
    for (const method of ['GET', 'POST']) {
      expect((await raw(haven.url, request(method, path, ['Content-Length: 0']))).statuses).toEqual([404])
    }
  })

  it('A52 services ask for their credential themselves, whoever reaches them', async () => {
    const addresses = environmentOf('jobservice')
    const behind: [string, string, string][] = [
      ['JOBSERVICE_URL', 'GET', '/api/v1/config'],
      ['JOBSERVICE_URL', 'POST', '/api/v1/jobs'],
      ['REGISTRYCTL_URL', 'DELETE', `/api/registry/blob/${image.layer}`],
      ['REGISTRYCTL_URL', 'DELETE', '/api/registry/team/app/manifests/1'],
      ['LOG_COLLECTOR_URL', 'GET', '/search'],
    ]
    for (const [variable, method, path] of behind) {
      for (const credential of [
        'Harbor-Secret ',
        'Harbor-Secret not-a-secure-string',
        `Basic ${Buffer.from('admin:Harbor12345').toString('base64')}`,
        bearer.slice(15),
      ]) {
        const { status } = await send(addresses[variable]! + path, method, { headers: { Authorization: credential } })
        expect([variable, method, path, status]).toEqual([variable, method, path, 401])
      }
    }
    expect(await pull()).toBe(image.digest)
  })

  it('A53 a GET is a GET, whatever a header or a field says', async () => {
    const overrides = ['X-HTTP-Method-Override: DELETE', 'X-HTTP-Method: DELETE', 'X-Method-Override: DELETE', bearer]
    for (const method of ['GET', 'HEAD']) {
      const path = '/v2/team/app/manifests/1?_method=DELETE'
      expect((await raw(haven.url, request(method, path, overrides))).statuses).toEqual([200])
    }
    expect(await pull()).toBe(image.digest)
  })

  it('A56 no part of a request becomes a header of the answer', async () => {
    const evil = '%0d%0aX-Evil:%201%0d%0a%0d%0a'
    const paths = [
      `/v2/team/app/tags/list?n=1&last=${evil}`,
      `/v2/team/app/referrers/${image.digest}?artifactType=${evil}`,
      `/v2/team/app/manifests/${evil}`,
      `/v2/${evil}/tags/list`,
      `/v2/_catalog?n=1&last=${evil}`,
      `/api/v2.0/projects?q=name%3D${evil}&page_size=1`,
      `/service/token?service=${evil}`,
      `/service/token?service=harbor-registry&scope=repository:${evil}:pull`,
      `/c/login${evil}`,
      `/${evil}`,
    ]
    for (const path of paths) {
      const { text, statuses } = await raw(haven.url, request('GET', path, [bearer]))
      expect([path, statuses.length, statuses[0]! < 500]).toEqual([path, 1, true])
      expect(text.slice(0, text.indexOf('\r\n\r\n'))).not.toMatch(/^X-Evil/im)
    }
  })

  it('A57 what is said about accounts is kept by no cache, and what is private by no shared one', async () => {
    const cached = async (path: string, as = ADMIN) =>
      (await send(haven.url + path, 'GET', { as })).headers.get('cache-control')
    for (const path of ['/api/v2.0/users/current', '/api/v2.0/projects', '/service/token?service=harbor-registry'])
      expect([path, await cached(path)]).toEqual([path, 'no-store'])
    expect(await cached(`/v2/team/app/blobs/${image.layer}`)).toMatch(/^private/)
    const part = await send(`${haven.url}/v2/team/app/blobs/${image.layer}`, 'GET', { headers: { Range: 'bytes=0-1' } })
    expect(part.status).toBe(401)
  })

  describe('slow, idle and vanishing clients', () => {
    let big: Image
    beforeAll(async () => {
      big = await client.pushImage('team/app', 'big', token, LARGE)
    }, 60_000)

    const attacker = () => {
      const { hostname, port } = new URL(haven.url)
      const socket = connect({ host: hostname, port: Number(port), localAddress: ATTACKER })
      return socket.on('error', () => {})
    }

    /** A byte now and then until the other end has enough; what that end said. */
    const drip = (start: string, everyMs = 100) =>
      raw(haven.url, [start, ...Array.from({ length: 200 }, () => 'x')], {
        pauseMs: everyMs,
        from: ATTACKER,
        quietMs: 20_000,
      })

    it('A54 one byte now and then is cut off, in headers, uploads and other bodies, while others are served', async () => {
      const started = await client.v2('POST', 'team/app/blobs/uploads/', token)
      const at = started.headers.get('location')!
      const length = 'Content-Length: 1000'
      const attacks = Promise.all([
        drip('GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A: '),
        drip('GET /'),
        drip(framed(`PATCH ${at} HTTP/1.1`, [bearer, length], '')),
        drip(
          framed(
            'POST /api/v2.0/projects HTTP/1.1',
            [
              `Authorization: Basic ${Buffer.from(`admin:${ADMIN.password}`).toString('base64')}`,
              'Content-Type: application/json',
              length,
            ],
            '',
          ),
        ),
        drip(
          framed(
            'PUT /v2/team/app/manifests/slow HTTP/1.1',
            [bearer, 'Content-Type: application/vnd.oci.image.manifest.v1+json', length],
            '',
          ),
        ),
      ])
      let over = false
      void attacks.finally(() => (over = true))
      while (!over) expect(await pull()).toBe(image.digest)
      expect((await attacks).map(({ statuses, closed }) => [statuses, closed])).toEqual(
        Array.from({ length: 5 }, () => [[408], true]),
      )
      // The session is kept: who has a bad line goes on where he was (threats.md §5).
      const now = await until(
        'the upload is free again',
        () => send(haven.url + at, 'GET', { headers: { Authorization: `Bearer ${token}` } }),
        ({ status }) => status === 204,
      )
      expect(now.headers.get('range')).toMatch(/^0-\d+$/)
      expect((await client.pull('team/app', 'slow', token)).status).toBe(404)
    }, 40_000)

    it('A54 one client has its share of connections, and idle ones of an attacker shut nobody out', async () => {
      const doors = Object.keys(haven.processes()).filter((name) => /^(?:front|proxy)/.test(name)).length
      // Each door has its own count, so that these are at least 16 too many.
      const idle = Array.from({ length: doors * SOCKETS + 16 }, () => attacker())
      try {
        const first = await Promise.all(
          idle.map((socket) => {
            socket.write('GET /api/v2.0/ping HTTP/1.1\r\nHost: h\r\n\r\n')
            return new Promise<string>((resolve) => {
              socket.once('data', (data) => resolve(data.toString()))
              socket.once('close', () => resolve(''))
            })
          }),
        )
        const refused = first.filter((answer) => !answer.startsWith('HTTP/1.1 200'))
        expect(refused.length).toBeGreaterThanOrEqual(16)
        expect(refused.find((answer) => answer !== '')).toMatch(/^HTTP\/1\.1 503 [^]*^Retry-After: \d/m)
        expect(await pull()).toBe(image.digest)
      } finally {
        for (const socket of idle) socket.destroy()
      }
    })

    it('A54, A55 everything is given back after readers that do not read and clients that vanish', async () => {
      const download = request('GET', `/v2/team/app/blobs/${big.layer}`, [bearer])
      const vanish = (text: string, afterMs: number) =>
        new Promise<void>((resolve) => {
          const socket = attacker()
          socket.write(text)
          socket.once('close', () => resolve())
          setTimeout(() => socket.resetAndDestroy(), afterMs)
        })
      const location = async () => (await client.v2('POST', 'team/app/blobs/uploads/', token)).headers.get('location')!
      const ats = await Promise.all(Array.from({ length: 5 }, location))
      const round = () =>
        Promise.all(
          Array.from({ length: 20 }, (_, i) => {
            const upload = framed(`PATCH ${ats[i % 5]!} HTTP/1.1`, [bearer, 'Content-Length: 100000'], 'x'.repeat(1000))
            return vanish(i % 2 === 0 ? download : upload, 5 + i * 3)
          }),
        )
      // What the first round opens and is kept: connections between services, to Postgres and to Redis.
      await round()
      let before = Infinity
      const settled = async () => {
        const last = before
        before = openFiles()
        return before >= last
      }
      await until('the first round is over', settled, Boolean)
      const stalled = Array.from({ length: 10 }, () => {
        const socket = attacker()
        socket.pause()
        socket.write(download)
        return socket
      })
      for (let i = 0; i < 9; i++) await round()
      await until(
        'files and sockets are closed',
        async () => openFiles(),
        (open) => open <= before + 5,
        30_000,
      )
      for (const socket of stalled) socket.destroy()
      expect(await pull()).toBe(image.digest)
    }, 60_000)
  })
})
