import { createServer, Agent, request, type IncomingHttpHeaders, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from '@jest/globals'
import { createLogger, createMetrics, openLogDestination } from '@haven/runtime'
import { MemoryStorage } from '@haven/storage'
import { openDoor } from './door.ts'
import { createProxy } from './service.ts'

const MANIFEST = '/v2/library/app/manifests/latest'
const SECRET = 'the proxy is the proxy is the proxy'

interface Seen {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
}

/** A door before a registry of another process, and one connection to it on which Node has served a request: from then on the short way is open. */
async function door(answer: RequestListener) {
  const seen: Seen[] = []
  const registry = createServer((req, res) => {
    seen.push({ method: req.method!, url: req.url!, headers: req.headers })
    answer(req, res)
  })
  await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(registry.address() as AddressInfo).port}`
  const lines: string[] = []
  const destination = openLogDestination({ stdout: { write: (line: string) => lines.push(line) } })
  const proxy = createProxy({
    targets: { registry: url, token: url, core: url },
    storage: new MemoryStorage(),
    secret: SECRET,
    log: createLogger({ service: 'proxy', destination }),
    metrics: createMetrics(),
    portalFolder: import.meta.dirname,
  })
  await import('undici')
  await new Promise((resolve) => setImmediate(resolve))
  const log = createLogger({ service: 'test', level: 'silent' })
  const opened = await openDoor(proxy.handler, { host: '127.0.0.1', port: 0, log, shortcut: proxy.shortcut })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const ask = (path: string, { method = 'GET', ...headers }: Record<string, string> = {}) =>
    new Promise<{ status: number; headers: IncomingHttpHeaders; body: string }>((resolve, reject) => {
      const given = { authorization: 'Bearer abc', 'user-agent': 'docker', ...headers }
      request({ agent, host: '127.0.0.1', port: opened.port!, method, path, headers: given }, (res) => {
        let body = ''
        res.on('data', (piece: Buffer) => (body += piece.toString()))
        res.on('end', () => resolve({ status: res.statusCode!, headers: res.headers, body }))
      })
        .on('error', reject)
        .end()
    })
  /** The answer of the long way: Node alone reads a request with a header that the short one does not know. */
  const askLong = (path: string, headers: Record<string, string> = {}) => ask(path, { ...headers, 'x-any': '1' })
  await askLong('/v2/')
  seen.length = 0
  lines.length = 0
  return {
    ask,
    askLong,
    seen,
    logged: () => lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'access'),
    wentShort: () => seen.map(({ headers }) => headers['x-haven-can-send'] === undefined),
    stopRegistry: async () => {
      registry.closeAllConnections()
      await new Promise((resolve) => registry.close(resolve))
    },
    async [Symbol.asyncDispose]() {
      agent.destroy()
      await opened.listening[0]!.drain(100)
      await proxy[Symbol.asyncDispose]()
      registry.closeAllConnections()
      registry.close()
    },
  }
}

const answers: Record<string, RequestListener> = {
  'a manifest': (req, res) => {
    const body = '{"schemaVersion":2}'
    res.writeHead(200, {
      'Docker-Content-Digest': 'sha256:abc',
      'Content-Type': 'application/json',
      'Content-Length': body.length,
      'X-Haven-Inside': 'not for clients',
    })
    res.end(req.method === 'HEAD' ? undefined : body)
  },
  'an answer in chunks': (_req, res) => {
    res.write('{"schema')
    setTimeout(() => res.end('Version":2}'), 20)
  },
  'a refusal': (_req, res) => {
    const body = '{"errors":[{"code":"UNAUTHORIZED"}]}'
    res.setHeader('WWW-Authenticate', 'Bearer realm="http://h/service/token",service="haven-registry"')
    res.setHeader('Set-Cookie', ['a=1', 'b=2'])
    res.writeHead(401, { 'Content-Length': body.length }).end(body)
  },
  nothing: (_req, res) => void res.writeHead(200, { 'Content-Length': 0 }).end(),
}

describe('a manifest of a registry in another process', () => {
  it.each([
    ['a manifest', 'GET'],
    ['a manifest', 'HEAD'],
    ['an answer in chunks', 'GET'],
    ['a refusal', 'GET'],
    ['a refusal', 'HEAD'],
    ['nothing', 'GET'],
  ])('comes as by the long way: %s, %s', async (what, method) => {
    await using at = await door(answers[what]!)
    const long = await at.askLong(MANIFEST, { method })
    const short = await at.ask(MANIFEST, { method })
    expect(at.wentShort()).toEqual([false, true])
    const plain = ({ status, headers, body }: typeof long) => {
      const {
        date: _date,
        'x-request-id': id,
        'transfer-encoding': _framing,
        'content-length': length,
        ...rest
      } = headers
      return { status, rest, body, id: typeof id, length: what === 'an answer in chunks' ? null : length }
    }
    expect(plain(short)).toEqual(plain(long))
    const [first, second] = at.logged()
    const line = (each: Record<string, unknown>) => ({ ...each, time: 0, ms: 0, request: 0, bytes: 0 })
    expect(line(second)).toEqual(line(first))
    expect(second.request).toBe(short.headers['x-request-id'])
  })

  it('A50: is asked for with what the long way says of the client, and no more', async () => {
    await using at = await door(answers['a manifest']!)
    const asked = { accept: 'application/json', 'x-forwarded-for': '198.51.100.7', 'x-real-ip': '198.51.100.7' }
    await at.askLong(MANIFEST, asked)
    await at.ask(MANIFEST, asked)
    expect(at.wentShort()).toEqual([false, true])
    const [long, short] = at.seen.map(({ headers }) => {
      const { 'x-request-id': id, 'x-any': _any, 'x-haven-can-send': _send, ...rest } = headers
      return { ...rest, id: id?.length }
    })
    expect(short).toEqual(long)
    expect(short).toMatchObject({ 'x-haven-proxy': SECRET })
  })

  it.each([
    '/v2/library/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    '/v2/library/app/tags/list',
    '/v2/library/app/manifests/latest?ns=example.org',
    '/v2/library/app/manifests/%6Catest',
    '/v2/',
  ])('is all that goes the short way: not %s', async (path) => {
    await using at = await door(answers['a manifest']!)
    expect((await at.ask(path)).status).toBe(200)
    expect(at.wentShort()).toEqual([false])
  })

  it('goes the long way when it is none after all', async () => {
    const length = 9 << 20
    await using at = await door(
      (_req, res) => void res.writeHead(200, { 'Content-Length': length }).end(Buffer.alloc(length)),
    )
    expect((await at.ask(MANIFEST)).body).toHaveLength(length)
    expect(at.wentShort()).toEqual([true, false])
  })

  it('R12: is asked for again when the connection to its registry broke', async () => {
    let broken = 0
    await using at = await door((req, res) => {
      if (req.headers['x-any'] || broken === 2) return answers['a manifest']!(req, res)
      broken += 1
      req.socket.destroy()
    })
    expect((await at.ask(MANIFEST)).status).toBe(200)
    expect(broken).toBe(2)
  })

  it('is not there when its registry is not: as by the long way', async () => {
    await using at = await door(answers['a manifest']!)
    await at.stopRegistry()
    const long = await at.askLong(MANIFEST)
    const short = await at.ask(MANIFEST)
    expect([long.status, short.status, short.headers['retry-after']]).toEqual([503, 503, '2'])
    expect(short.body).toBe(long.body)
  })
})
