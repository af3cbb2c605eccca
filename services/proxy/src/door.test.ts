import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import {
  createServer as createHttpServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import {
  contextOf,
  createLogger,
  createMetrics,
  enter,
  internalHeaders,
  listen,
  openLogDestination,
  type Limits,
  type Listening,
  type RequestHandler,
} from '@haven/runtime'
import { MemoryStorage, newObjectKey } from '@haven/storage'
import { openDoor } from './door.ts'
import { createProxy, type ProxyDeps } from './service.ts'

const SECRET = 'the proxy is the proxy is the proxy'
const BLOB = randomBytes(300_000)
const folder = mkdtempSync(join(tmpdir(), 'haven-portal-'))
writeFileSync(join(folder, 'index.html'), '<!doctype html><title>Haven</title>')
writeFileSync(join(folder, 'main-ABCDEF12.js'), `console.log(1)${' '.repeat(2000)}`)
writeFileSync(join(folder, 'main-ABCDEF12.js.map'), '{}')
afterAll(() => rmSync(folder, { recursive: true }))

interface Seen {
  readonly service: string
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
  readonly requestId: string
  readonly clientAddress: string
  readonly scheme: string
  readonly body: string
}

/** Services that say what they saw, blobs included; `misbehave` names a way to fail. */
function services(storage: MemoryStorage, key: string) {
  const seen: Seen[] = []
  const log = createLogger({ service: 'test', level: 'silent' })
  const metrics = createMetrics()
  const open = new Set<IncomingMessage>()
  const of =
    (name: string): RequestHandler =>
    (req, res) => {
      open.add(req)
      res.once('close', () => open.delete(req))
      const { requestId, clientAddress, scheme, handOver } = enter(req, res, {
        name,
        log,
        metrics,
        trust: { proxySecret: SECRET },
      })
      const chunks: Buffer[] = []
      if (req.url?.includes('/never')) return void res.writeHead(200).write('begun')
      if (req.url?.includes('/break')) {
        res.writeHead(200, { 'Content-Length': 1000 }).write('half')
        setTimeout(() => res.destroy(), 20)
        return
      }
      if (req.url?.includes('/blobs/sha256:')) {
        res.setHeader('Content-Type', 'application/octet-stream')
        res.setHeader('Docker-Content-Digest', 'sha256:abc')
        const length = BLOB.length - 10
        if (handOver) {
          const store = req.url.includes('elsewhere') ? 's3' : storage.name
          const wanted = req.url.includes('missing') ? newObjectKey() : key
          res.setHeader(internalHeaders.send, `${store} ${wanted} 10 ${length}`)
          res.setHeader('Content-Length', 0)
          return void res.end()
        }
        if (req.url.includes('missing')) {
          res.removeHeader('Docker-Content-Digest')
          return void res.writeHead(404, { 'Content-Type': 'application/json' }).end('{"errors":[]}')
        }
        res.setHeader('Content-Length', length)
        if (req.method === 'HEAD') return void res.end()
        return void storage.send(key, { offset: 10, length }, res).then(
          () => res.end(),
          () => res.destroy(),
        )
      }
      req.on('data', (chunk: Buffer) => chunks.push(chunk))
      req.on('end', () => {
        const { method = '', url = '', headers, rawHeaders } = req
        const body = Buffer.concat(chunks).toString()
        seen.push({ service: name, method, url, headers, rawHeaders, requestId, clientAddress, scheme, body })
        const answer = JSON.stringify({ service: name, url, body: body.length })
        res.writeHead(200, {
          'Content-Type': 'application/json',
          'Content-Length': answer.length,
          'X-Haven-Leak': 'no',
          'Keep-Alive': 'timeout=5',
        })
        res.end(method === 'HEAD' ? undefined : answer)
      })
      req.on('error', () => {})
    }
  return { of, seen, open }
}

interface Rig {
  readonly port: number
  readonly seen: Seen[]
  readonly open: Set<IncomingMessage>
  readonly lines: string[]
  stop(): Promise<void>
}

async function rig(shape: 'one process' | 'split', limits: Partial<Limits> = {}): Promise<Rig> {
  const storage = new MemoryStorage()
  const key = newObjectKey()
  const { state } = await storage.append(
    key,
    null,
    0,
    (async function* () {
      yield BLOB
    })(),
  )
  await storage.complete(key, state, BLOB.length)
  const { of, seen, open } = services(storage, key)
  const behind: Listening[] = []
  const target = async (name: string) => {
    if (shape === 'one process') return of(name)
    const listening = await listen(of(name), { host: '127.0.0.1', port: 0 })
    behind.push(listening)
    return `http://127.0.0.1:${listening.port}`
  }
  const lines: string[] = []
  const destination = openLogDestination({ stdout: { write: (line: string) => lines.push(line) }, secrets: [SECRET] })
  const deps: ProxyDeps = {
    targets: { registry: await target('registry'), token: await target('token'), core: await target('core') },
    storage,
    secret: SECRET,
    log: createLogger({ service: 'proxy', destination }),
    metrics: createMetrics(),
    portalFolder: folder,
    // It answers nothing, but with it the door stands before Node's parser.
    ...(shape === 'one process' && { shortAnswer: () => null }),
  }
  const proxy = createProxy(deps)
  const { handler, shortcut } = proxy
  const door = await openDoor(handler, { host: '127.0.0.1', port: 0, log: deps.log, limits, shortcut })
  return {
    port: door.port!,
    seen,
    open,
    lines,
    async stop() {
      await Promise.all([...door.listening, ...behind].map((listening) => listening.drain(200)))
      await proxy[Symbol.asyncDispose]()
    },
  }
}

/** Sends bytes as they are and collects what comes back until the other end closes or `ms` passed. */
function raw(port: number, bytes: string | Buffer | (string | Buffer)[], ms = 5_000): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    const parts: Buffer[] = []
    const timer = setTimeout(() => socket.destroy(), ms)
    socket.on('data', (chunk) => parts.push(chunk))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error)
    })
    socket.on('close', () => {
      clearTimeout(timer)
      resolve(Buffer.concat(parts).toString('latin1'))
    })
    for (const part of Array.isArray(bytes) ? bytes : [bytes]) socket.write(part)
  })
}

const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0)
const statusesOf = (answer: string) => [...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => Number(match[1]))
const get = (path: string, ...headers: string[]) =>
  `GET ${path} HTTP/1.1\r\n${['Host: haven.test', 'Connection: close', ...headers].join('\r\n')}\r\n\r\n`
const healthy = async (port: number) => statusOf(await raw(port, get('/v2/healthy/tags/list'), 5000)) === 200

async function until(condition: () => boolean | Promise<boolean>, ms = 5000): Promise<void> {
  for (const end = Date.now() + ms; !(await condition());) {
    if (Date.now() > end) throw new Error(`it did not happen within ${ms} ms: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe.each(['one process', 'split'] as const)('the door, %s', (shape) => {
  let at: Rig
  beforeAll(async () => {
    at = await rig(shape)
  })
  afterAll(() => at.stop())
  const last = () => at.seen.at(-1)!

  describe('routes', () => {
    it.each([
      ['/v2/', 'registry'],
      ['/v2/library/app/manifests/1', 'registry'],
      ['/service/token?service=haven', 'token'],
      ['/api/v2.0/projects?q=name%3Da', 'core'],
      ['/c/login', 'core'],
    ])('%s to %s, with the target as it was sent', async (path, service) => {
      const answer = await raw(at.port, get(path))
      expect(statusOf(answer)).toBe(200)
      expect(last()).toMatchObject({ service, url: path })
    })

    it("merges repeated slashes of Harbor's API and nowhere else", async () => {
      expect(statusOf(await raw(at.port, get('//api//v2.0///projects?a=//b')))).toBe(200)
      expect(last()).toMatchObject({ service: 'core', url: '/api/v2.0/projects?a=//b' })
      expect(statusOf(await raw(at.port, get('//v2/_catalog')))).toBe(404)
    })

    it.each([
      '/v1/search?q=x',
      '/v1/',
      '/v1',
      '/service/notifications',
      '/service',
      '/service/',
      '/service/jobs',
      '/api/internal/renameadmin',
    ])('%s nowhere: 404', async (path) => {
      const before = at.seen.length
      expect(statusOf(await raw(at.port, get(path)))).toBe(404)
      expect(at.seen.length).toBe(before)
    })

    it('sends /v2 to /v2/ by a path, not by a host', async () => {
      const answer = await raw(at.port, get('/v2'))
      expect(statusOf(answer)).toBe(301)
      expect(answer).toMatch(/\r\nLocation: \/v2\/\r\n/)
    })

    it('says which API it is also where the door answers for the registry', async () => {
      for (const target of ['/v2', '/v2//x', '/v2/%zz']) {
        expect(await raw(at.port, get(target))).toMatch(/\r\nDocker-Distribution-Api-Version: registry\/2\.0\r\n/)
      }
    })

    it('serves the portal: files by name, pages by index.html, nothing else', async () => {
      const index = await raw(at.port, get('/'))
      expect(index).toMatch(/Cache-Control: no-store, no-cache, must-revalidate/)
      expect(index).toMatch(/Content-Security-Policy: default-src 'self'/)
      expect(await raw(at.port, get('/harbor/projects/1'))).toContain('<title>Haven</title>')
      const script = await raw(at.port, get('/main-ABCDEF12.js', 'Accept-Encoding: gzip'))
      expect(script).toMatch(/immutable/)
      expect(script).toMatch(/Content-Encoding: gzip/)
      const etag = /ETag: (\S+)/.exec(script)![1]!
      expect(statusOf(await raw(at.port, get('/main-ABCDEF12.js', `If-None-Match: ${etag}`)))).toBe(304)
      for (const path of ['/absent.js', '/main-ABCDEF12.js.map', '/..%2fetc/passwd', '/.git', '/%2e%2e/index.html']) {
        expect([path, statusOf(await raw(at.port, get(path)))]).toEqual([path, 404])
      }
      expect(
        statusOf(await raw(at.port, 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')),
      ).toBe(405)
    })

    it('answers HEAD with the headers of GET and no body', async () => {
      const answer = await raw(at.port, get('/').replace('GET', 'HEAD'))
      expect(answer).toMatch(/Content-Length: 35\r\n/)
      expect(answer.endsWith('\r\n\r\n')).toBe(true)
    })

    it('says what Harbor says about frames, and hides what is internal', async () => {
      const answer = await raw(at.port, get('/api/v2.0/ping'))
      expect(answer).toMatch(/X-Frame-Options: DENY/)
      expect(answer).toMatch(/Content-Security-Policy: frame-ancestors 'none'/)
      expect(answer).toMatch(/X-Content-Type-Options: nosniff/)
      expect(answer).not.toMatch(/x-powered-by|strict-transport/i)
      if (shape === 'split') expect(answer).not.toMatch(/x-haven-/i)
    })
  })

  it('keeps a sane request id and replaces any other', async () => {
    expect(await raw(at.port, get('/v2/', 'X-Request-Id: abc-123'))).toMatch(/X-Request-Id: abc-123/i)
    expect(last().requestId).toBe('abc-123')
    const answer = await raw(at.port, get('/v2/', 'X-Request-Id: a b<script>'))
    expect(answer).toMatch(/X-Request-Id: [0-9a-f-]{36}\r\n/i)
    expect(answer).toContain(last().requestId)
  })

  it('writes one access line a request, escaped and without the secret', async () => {
    await raw(at.port, get('/v2/logged', 'User-Agent: evil\u0085', 'X-Request-Id: line-1'))
    await until(() => at.lines.some((line) => line.includes('line-1')))
    const line = at.lines.find((text) => text.includes('line-1'))!
    expect(JSON.parse(line)).toMatchObject({
      msg: 'access',
      method: 'GET',
      url: '/v2/logged',
      status: 200,
      client: '127.0.0.1',
    })
    // oxlint-disable-next-line no-control-regex -- the point of the check
    expect(line.trimEnd()).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/)
    expect(at.lines.join('')).not.toContain(SECRET)
  })

  it('sends a blob whole, by range order of the registry, and tells when it is missing', async () => {
    const answer = await fetch(`http://127.0.0.1:${at.port}/v2/a/blobs/sha256:x`)
    const body = Buffer.from(await answer.arrayBuffer())
    expect(body.equals(BLOB.subarray(10))).toBe(true)
    expect(answer.headers.get('docker-content-digest')).toBe('sha256:abc')
    expect(answer.headers.get('x-haven-send')).toBeNull()
    const head = await fetch(`http://127.0.0.1:${at.port}/v2/a/blobs/sha256:x`, { method: 'HEAD' })
    expect(head.headers.get('content-length')).toBe(String(BLOB.length - 10))
    // The registry is asked what to say of it, since it is the one that knows what was lost.
    const missing = await fetch(`http://127.0.0.1:${at.port}/v2/missing/blobs/sha256:x`)
    expect([missing.status, await missing.json()]).toEqual([404, { errors: [] }])
    expect([missing.headers.get('docker-content-digest'), missing.headers.get('content-type')]).toEqual([
      null,
      'application/json',
    ])
    if (shape === 'split') {
      expect((await fetch(`http://127.0.0.1:${at.port}/v2/elsewhere/blobs/sha256:x`)).status).toBe(502)
    }
  })

  it('passes bodies of both framings', async () => {
    const url = `http://127.0.0.1:${at.port}/v2/a/blobs/uploads/1`
    const answer = await fetch(url, { method: 'PATCH', body: 'x'.repeat(100_000) })
    expect(await answer.json()).toMatchObject({ body: 100_000 })
    const chunked = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('abc'))
        controller.enqueue(new TextEncoder().encode('def'))
        controller.close()
      },
    })
    const init: RequestInit & { duplex: string } = { method: 'PATCH', body: chunked, duplex: 'half' }
    expect(await (await fetch(url, init)).json()).toMatchObject({ body: 6 })
  })

  describe('refuses', () => {
    const smuggled = 'GET /service/notifications HTTP/1.1\r\nHost: h\r\n\r\n'
    it.each([
      ['CL.TE', 'Content-Length: 6\r\nTransfer-Encoding: chunked', '0\r\n\r\nG'],
      ['TE.CL', 'Transfer-Encoding: chunked\r\nContent-Length: 4', '0\r\n\r\n'],
      ['TE.TE xchunked', 'Transfer-Encoding: xchunked', '0\r\n\r\n'],
      ['TE.TE leading blank', 'Transfer-Encoding:\x0bchunked', '0\r\n\r\n'],
      ['TE.TE list', 'Transfer-Encoding: chunked, identity', '0\r\n\r\n'],
      ['TE twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity', '0\r\n\r\n'],
      ['two lengths', 'Content-Length: 4\r\nContent-Length: 5', 'abcde'],
      ['+5', 'Content-Length: +5', 'abcde'],
      ['length and blank', 'Content-Length: 4 4', 'abcd'],
      ['space before colon', 'Content-Length : 4', 'abcd'],
      ['obs-fold', 'X-A: b\r\n c: d', ''],
      ['bare CR', 'X-A: b\rX-B: c', ''],
      ['bare LF', 'X-A: b\nX-B: c', ''],
      ['NUL', 'X-A: b\0c', ''],
      ['chunk size overflow', 'Transfer-Encoding: chunked', 'FFFFFFFFFFFFFFFFF\r\na\r\n0\r\n\r\n'],
      ['chunk size with text', 'Transfer-Encoding: chunked', '1 x\r\na\r\n0\r\n\r\n'],
    ])('A47 %s: 400 and close, nothing behind it is read', async (_, headers, body) => {
      const before = at.seen.length
      const answer = await raw(
        at.port,
        `POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: h\r\n${headers}\r\n\r\n${body}${smuggled}`,
      )
      expect(statusesOf(answer)).toEqual([400])
      expect(answer).toMatch(/Connection: close/i)
      expect(at.seen.length).toBe(before)
      expect(await healthy(at.port)).toBe(true)
    })

    it('A47 chunks of HTTP/1.0, which has none: 400 and close', async () => {
      const before = at.seen.length
      const answer = await raw(
        at.port,
        `POST /v2/a/blobs/uploads/ HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
      )
      expect(statusesOf(answer)).toEqual([400])
      expect(at.seen.length).toBe(before)
    })

    it('A47 DELETE with a chunked body, which would reach the service as a second request', async () => {
      const before = at.seen.length
      const inner = 'GET /v2/smuggled HTTP/1.1\r\nHost: h\r\n\r\n'
      const chunked = `${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`
      const answer = await raw(
        at.port,
        `DELETE /v2/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}${get('/v2/behind')}`,
      )
      expect(statusOf(answer)).toBe(400)
      expect(await healthy(at.port)).toBe(true)
      expect(at.seen.slice(before).map(({ url }) => url)).toEqual(['/v2/healthy/tags/list'])
    })

    it.each([
      ['two hosts', 'GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
      ['the same host twice', 'GET /v2/ HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n'],
      ['absolute form of another host', 'GET http://evil.test/v2/ HTTP/1.1\r\nHost: a\r\n\r\n'],
      ['no host', 'GET /v2/ HTTP/1.1\r\n\r\n'],
      ['empty host', 'GET /v2/ HTTP/1.1\r\nHost:\r\n\r\n'],
      ['host with @', 'GET /v2/ HTTP/1.1\r\nHost: a@b\r\n\r\n'],
      ['host with blank', 'GET /v2/ HTTP/1.1\r\nHost: a b\r\n\r\n'],
      ['host with path', 'GET /v2/ HTTP/1.1\r\nHost: a/b\r\n\r\n'],
      ['port 99999', 'GET /v2/ HTTP/1.1\r\nHost: a:99999\r\n\r\n'],
      ['asterisk form', 'OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n'],
      ['authority form', 'GET evil.test:80 HTTP/1.1\r\nHost: a\r\n\r\n'],
    ])('A48 %s: 400', async (_, request) => {
      const before = at.seen.length
      const closing = request.replace(/\r\n$/, 'Connection: close\r\n\r\n')
      expect(statusOf(await raw(at.port, closing))).toBe(400)
      expect(at.seen.length).toBe(before)
    })

    it('A48 accepts the absolute form of the same host as its path', async () => {
      expect(
        statusOf(await raw(at.port, 'GET http://A:80/v2/abs?x=1 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n')),
      ).toBe(200)
      expect(last().url).toBe('/v2/abs?x=1')
    })

    it.each(['TRACE', 'PROPFIND', 'LOCK', 'SEARCH'])('A51 %s: 405', async (method) => {
      const answer = await raw(at.port, get('/v2/').replace('GET', method))
      expect(statusOf(answer)).toBe(405)
      expect(answer).toMatch(/Allow: GET, HEAD/)
    })

    it('A51 CONNECT: 405', async () => {
      expect(statusOf(await raw(at.port, 'CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n'))).toBe(405)
    })

    it.each([
      '/service/notifications/jobs/webhook/1',
      '/service/%6eotifications/jobs/webhook/1',
      '/service//notifications',
      '//service/notifications',
      '/service/token/../notifications',
      '/service/notifications;x',
      '/service/./notifications',
      '/service%2fnotifications',
      '/service/notifications%2f..',
      '/service/token/%2e%2e/notifications',
      '/api/internal/renameadmin',
      '/api/%69nternal/renameadmin',
      '/api//internal/renameadmin',
      '/v2/../service/notifications',
      '/v2/%2e%2e/service/notifications',
      '/v2/..%2fservice/notifications',
      '/service\\notifications',
    ])('A52 %s: 404', async (path) => {
      const before = at.seen.length
      expect(statusOf(await raw(at.port, get(path)))).toBe(404)
      expect(at.seen.length).toBe(before)
    })

    it.each(['/v2/a%00b', '/v2/%', '/v2/%zz', '/v2/%c3%28', '/v2/%0d%0aX-Evil:1'])(
      'A56 %s: 400 without a second header',
      async (path) => {
        const answer = await raw(at.port, get(path))
        expect(statusOf(answer)).toBe(400)
        expect(answer).not.toMatch(/^X-Evil/im)
      },
    )

    it('431 for headers over 16 KiB, and for more than 100 of them; what stands behind is not read (A47)', async () => {
      const before = at.seen.length
      expect(statusOf(await raw(at.port, get('/v2/', `X-Long: ${'a'.repeat(20_000)}`)))).toBe(431)
      const many = Array.from({ length: 101 }, (_, i) => `X-H${i}: 1`)
      expect(statusOf(await raw(at.port, get('/v2/', ...many)))).toBe(431)
      const keeping = `GET /v2/ HTTP/1.1\r\nHost: h\r\n${many.join('\r\n')}\r\n\r\n`
      expect(statusesOf(await raw(at.port, keeping + get('/v2/behind')))).toEqual([431])
      expect(at.seen.length).toBe(before)
    })
  })

  it('answers a TLS ClientHello at once with 400 and close', async () => {
    const hello = Buffer.concat([Buffer.from('1603010200010001fc0303', 'hex'), randomBytes(500)])
    let answered = 0
    const socket = connect(at.port, '127.0.0.1').on(
      'data',
      (chunk) => (answered ||= statusOf(chunk.toString('latin1'))),
    )
    socket.write(hello)
    // Long before the 20 s for which the head of a request is waited for, which would end in 408.
    await once(socket, 'close')
    expect(answered).toBe(400)
  })

  it('A50 lets no claim of a client through', async () => {
    await raw(
      at.port,
      get(
        '/api/v2.0/ping',
        'X-Forwarded-For: 10.9.9.9',
        'X-Forwarded-Proto: https',
        'X-Forwarded-Host: evil.test',
        'X-Real-IP: 10.9.9.9',
        'Forwarded: for=10.9.9.9',
        'True-Client-IP: 10.9.9.9',
        'X-Original-URL: /api/internal',
        'X-Rewrite-URL: /api/internal',
        `X-Haven-Proxy: ${SECRET}`,
        'X-Haven-Can-Send: 1',
        'X-Haven-Send: files o/x 0 1',
        'Authorization: Harbor-Secret abc',
      ),
    )
    const { headers, rawHeaders, clientAddress, scheme } = last()
    expect([clientAddress, scheme]).toEqual(['127.0.0.1', 'http'])
    expect(headers.authorization).toBeUndefined()
    expect(JSON.stringify([headers, rawHeaders])).not.toMatch(/10\.9\.9\.9|evil\.test|internal|Harbor-Secret|files o/i)
    if (shape === 'one process') expect(JSON.stringify([headers, rawHeaders])).not.toMatch(/x-haven|x-forwarded/i)
  })

  it('A50 leaves other credentials alone', async () => {
    await raw(at.port, get('/v2/', 'Authorization: Basic YTpi', 'Cookie: sid=1'))
    expect(last().headers).toMatchObject({ authorization: 'Basic YTpi', cookie: 'sid=1' })
  })

  it('A51 removes hop-by-hop headers and what Connection names, and never what frames the request', async () => {
    await raw(
      at.port,
      `POST /api/v2.0/x HTTP/1.1\r\nHost: h\r\nConnection: close, X-Forwarded-For, X-Mine, Content-Length\r\nX-Mine: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nProxy-Authorization: Basic x\r\nContent-Length: 2\r\n\r\nhi`,
    )
    const { headers, body, clientAddress } = last()
    expect([body, clientAddress]).toEqual(['hi', '127.0.0.1'])
    for (const name of ['x-mine', 'te', 'upgrade', 'http2-settings', 'proxy-authorization', 'keep-alive']) {
      expect(headers).not.toHaveProperty(name)
    }
  })

  it.each(['h2c', 'websocket'])('A51 does not upgrade to %s', async (protocol) => {
    const answer = await raw(
      at.port,
      `GET /v2/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: ${protocol}\r\n\r\n`,
    )
    expect(statusOf(answer)).toBe(200)
  })

  it('Expect: 100-continue is answered, any other expectation is 417', async () => {
    const request =
      'PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n'
    expect(statusesOf(await raw(at.port, [request, 'hi']))).toEqual([100, 200])
    expect(last().body).toBe('hi')
    expect(statusOf(await raw(at.port, request.replace('100-continue', 'magic')))).toBe(417)
  })

  it('A53 ignores method overrides', async () => {
    await raw(
      at.port,
      get(
        '/api/v2.0/x?_method=DELETE',
        'X-HTTP-Method-Override: DELETE',
        'X-HTTP-Method: DELETE',
        'X-Method-Override: DELETE',
      ),
    )
    expect(last().method).toBe('GET')
    expect(JSON.stringify(last().headers)).not.toMatch(/DELETE/)
  })

  it('A53 passes a GET with a body as one request', async () => {
    const before = at.seen.length
    const answer = await raw(
      at.port,
      `GET /api/v2.0/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi${get('/api/v2.0/y')}`,
    )
    expect(statusesOf(answer)).toEqual([200, 200])
    expect(at.seen.slice(before).map(({ url, body }) => url + body)).toEqual(['/api/v2.0/xhi', '/api/v2.0/y'])
  })

  it('A55 gives everything back after aborted downloads and uploads', async () => {
    const fds = () => readdirSync('/proc/self/fd').length
    await healthy(at.port)
    const before = fds()
    const abort = (request: string) =>
      new Promise<void>((resolve) => {
        const socket: Socket = connect(at.port, '127.0.0.1', () => socket.write(request))
        socket.on('error', () => {})
        socket.on('close', () => resolve())
        setTimeout(() => socket.resetAndDestroy(), 5 + Math.random() * 20)
      })
    for (let round = 0; round < 10; round += 1) {
      await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          abort(
            i % 2 === 0
              ? get('/v2/never')
              : 'PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nsome bytes',
          ),
        ),
      )
    }
    await until(() => at.open.size === 0)
    await until(() => fds() <= before + 5)
    await until(() => healthy(at.port))
  })

  it('cuts an answer off when the service breaks off, so that a part never looks whole', async () => {
    await expect(fetch(`http://127.0.0.1:${at.port}/v2/break`).then((res) => res.text())).rejects.toThrow()
    expect(await healthy(at.port)).toBe(true)
  })

  it('A57 lets no cache keep what is said about accounts', async () => {
    for (const path of ['/api/v2.0/users/current', '/service/token', '/c/login']) {
      expect(await raw(at.port, get(path))).toMatch(/Cache-Control: no-store/i)
    }
  })

  it('R16 goes on serving after thousands of malformed requests', async () => {
    const bytes = 'GETPOSTHTTP/1.1 \r\n:;%\0\xff{}[]chunked0123456789Host'
    const junk = () => Array.from({ length: 60 }, () => bytes[Math.floor(Math.random() * bytes.length)]).join('')
    for (let round = 0; round < 40; round += 1) {
      await Promise.all(
        Array.from({ length: 25 }, () =>
          raw(at.port, Buffer.from(`GET /v2/ HTTP/1.1\r\n${junk()}\r\n\r\n`, 'latin1'), 30),
        ),
      )
    }
    expect(await healthy(at.port)).toBe(true)
  })
})

describe('time and number', () => {
  it('A54 slow headers are cut off with 408, also when nothing is sent', async () => {
    const at = await rig('one process', { headersTimeoutMs: 200 })
    const answer = await raw(at.port, 'GET /v2/ HTTP/1.1\r\nHost: h\r\nX-A', 20_000)
    expect(statusOf(answer)).toBe(408)
    await once(connect(at.port, '127.0.0.1').resume(), 'close')
    await at.stop()
    // Less than the 20 s that are the rule.
  }, 15_000)

  it.each(['one process', 'split'] as const)(
    'A54 a slow upload keeps going at its rate and is cut off below it; other bodies have their time (%s)',
    async (shape) => {
      const at = await rig(shape, { bodyTimeoutMs: 300, uploadRate: { bytesPerSecond: 100, windowMs: 1000 } })
      const slowly = (path: string, everyMs: number, bytes: number) =>
        new Promise<string>((resolve) => {
          const socket = connect(at.port, '127.0.0.1', () => {
            socket.write(`PATCH ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n`)
          })
          let sent = 0
          let text = ''
          const timer = setInterval(() => {
            sent += bytes
            if (sent <= 1000) socket.write('x'.repeat(bytes))
          }, everyMs)
          socket.on('data', (chunk) => (text += chunk.toString()))
          socket.on('error', () => {})
          socket.on('close', () => {
            clearInterval(timer)
            resolve(text)
          })
        })
      const [steady, starving, other] = await Promise.all([
        // Over more than two windows.
        slowly('/v2/a/blobs/uploads/1', 250, 100),
        slowly('/v2/a/blobs/uploads/2', 250, 1),
        slowly('/api/v2.0/x', 100, 50),
      ])
      expect([statusOf(steady), statusOf(starving), statusOf(other)]).toEqual([200, 408, 408])
      await until(() => at.open.size === 0)
      await at.stop()
    },
  )

  it('A54 a reader that takes nothing is cut off, one that waits for a slow answer is not', async () => {
    const at = await rig('one process', { stalledReaderMs: 300 })
    const endless: RequestHandler = (req, res) => {
      if (req.url === '/slow') return void setTimeout(() => res.end('late'), 1000)
      const more = () => {
        while (res.write(Buffer.alloc(256 * 1024)));
        res.once('drain', more)
      }
      more()
    }
    const server = await listen(endless, { host: '127.0.0.1', port: 0, limits: { stalledReaderMs: 300 } })
    expect(await raw(server.port, get('/slow'), 3000)).toMatch(/late/)
    const socket = connect(server.port, '127.0.0.1', () => socket.write(get('/endless')))
    socket.pause()
    socket.on('error', () => {})
    await until(() => server.connections === 1)
    await until(() => server.connections === 0)
    socket.destroy()
    await server.drain(100)
    await at.stop()
  })

  it('503 with Retry-After for one socket too many of one client, and room again afterwards', async () => {
    const at = await rig('one process', { maxConnectionsPerAddress: 4 })
    const idle = Array.from({ length: 4 }, () => connect(at.port, '127.0.0.1'))
    await Promise.all(idle.map((socket) => new Promise((resolve) => socket.once('connect', resolve))))
    const answer = await raw(at.port, get('/v2/'))
    expect(statusesOf(answer)).toEqual([503])
    expect(answer).toMatch(/Retry-After: \d/)
    expect(at.seen).toEqual([])
    for (const socket of idle) socket.destroy()
    await until(() => healthy(at.port))
    await at.stop()
  })

  it('drains: what was accepted is answered, nothing new is accepted', async () => {
    let finish: (res: ServerResponse) => void = () => {}
    const waiting = new Promise<ServerResponse>((resolve) => (finish = resolve))
    const server = await listen((_req, res) => finish(res), { host: '127.0.0.1', port: 0 })
    const answer = raw(server.port, get('/'), 5000)
    const res = await waiting
    const drained = server.drain(5000)
    await expect(raw(server.port, get('/'))).rejects.toThrow(/ECONNREFUSED/)
    res.end('done')
    expect(await answer).toMatch(/done/)
    expect(await drained).toBe(true)
  })

  it('drains: what comes over a connection that was kept is answered, and the answer ends it (I22)', async () => {
    const server = await listen((req, res) => void res.end(req.method), { host: '127.0.0.1', port: 0 })
    const post = 'POST / HTTP/1.1\r\nHost: haven.test\r\nContent-Length: 0\r\n\r\n'
    const kept = connect(server.port, '127.0.0.1')
    let answered = ''
    kept.on('data', (bytes: Buffer) => (answered += bytes.toString()))
    const ended = new Promise((resolve) => kept.once('end', resolve))
    kept.write(post)
    await until(() => answered.endsWith('POST'))
    answered = ''
    const drained = server.drain(60_000)
    await new Promise((resolve) => setImmediate(resolve))
    kept.write(post)
    expect(await drained).toBe(true)
    await ended
    expect(answered).toMatch(/^HTTP\/1\.1 200 [\s\S]*Connection: close[\s\S]*POST$/)
  })
})

describe('a service that is away', () => {
  const deps = (url: string): ProxyDeps => ({
    targets: { registry: url, token: url, core: url },
    storage: null,
    secret: SECRET,
    log: createLogger({ service: 'proxy', level: 'silent' }),
    metrics: createMetrics(),
    portalFolder: folder,
  })

  it('is 503 in the envelope of the API, with Retry-After; 502 when it speaks no HTTP', async () => {
    const garbage = createHttpServer()
    garbage.on('connection', (socket: Socket) => socket.end('what?'))
    await new Promise<void>((resolve) => garbage.listen(0, '127.0.0.1', resolve))
    const { port } = garbage.address() as AddressInfo
    const wrong = createProxy(deps(`http://127.0.0.1:${port}`))
    const closed = await listen(() => {}, { host: '127.0.0.1', port: 0 })
    await closed.drain(0)
    const away = createProxy(deps(`http://127.0.0.1:${closed.port}`))
    for (const [service, status] of [
      [away, 503],
      [wrong, 502],
    ] as const) {
      const door = await openDoor(service.handler, { host: '127.0.0.1', port: 0, log: deps('').log })
      for (const path of ['/v2/', '/api/v2.0/ping']) {
        const answer = await fetch(`http://127.0.0.1:${door.port}${path}`)
        expect([path, answer.status]).toEqual([path, status])
        expect(answer.headers.get('retry-after')).toMatch(/^\d+$/)
        expect(answer.headers.get('docker-distribution-api-version')).toBe(path === '/v2/' ? 'registry/2.0' : null)
        expect(await answer.json()).toMatchObject({ errors: [{ message: expect.any(String) }] })
      }
      await door.listening[0]!.drain(100)
      await service[Symbol.asyncDispose]()
    }
    garbage.closeAllConnections()
    garbage.close()
  })

  it('may close a kept connection at the wrong moment: a GET is sent again', async () => {
    let requests = 0
    const flaky = createHttpServer((req, res) => {
      requests += 1
      // The second request arrives on the kept connection and dies with it.
      if (requests === 2) req.socket.resetAndDestroy()
      else res.end(String(requests))
    })
    await new Promise<void>((resolve) => flaky.listen(0, '127.0.0.1', resolve))
    const service = createProxy(deps(`http://127.0.0.1:${(flaky.address() as AddressInfo).port}`))
    const door = await openDoor(service.handler, { host: '127.0.0.1', port: 0, log: deps('').log })
    const url = `http://127.0.0.1:${door.port}/v2/`
    expect(await (await fetch(url)).text()).toBe('1')
    expect(await (await fetch(url)).text()).toBe('3')
    await door.listening[0]!.drain(100)
    await service[Symbol.asyncDispose]()
    flaky.closeAllConnections()
    flaky.close()
  })
})

it('a handler that did not go through the gate has no context', () => {
  expect(() => contextOf({} as IncomingMessage)).toThrow(/no context/)
})
