import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, request, type IncomingMessage, type ServerResponse } from 'node:http'
import { Agent as TlsAgent, request as requestTls } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from '@jest/globals'
import { createLogger, createMetrics, openLogDestination, type Asked, type Listening } from '@haven/runtime'
import { openDoor } from './door.ts'
import { createProxy } from './service.ts'
import { TrustedProxies } from './trusted-proxies.ts'

const open: Listening[] = []
const agent = new Agent({ keepAlive: true, maxSockets: 1 })
const tlsAgent = new TlsAgent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false })
const selfSignedIn = mkdtempSync(join(tmpdir(), 'haven-shortcut-'))
afterAll(() => rmSync(selfSignedIn, { recursive: true }))
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.drain(0)))
})

/** A door before a registry that has `/v2/known` in memory and answers the rest alike, the long way. */
async function door({ trustedProxies, tls = false }: { trustedProxies?: TrustedProxies; tls?: boolean } = {}) {
  const lines: string[] = []
  const asked: Asked[] = []
  let left = 0
  const destination = openLogDestination({ stdout: { write: (line: string) => lines.push(line) } })
  const metrics = createMetrics()
  const registry = (req: IncomingMessage, res: ServerResponse) => {
    res.setHeader('X-Request-Id', 'long')
    res.writeHead(200, { 'Content-Length': 4 }).end(req.method === 'HEAD' ? undefined : 'body')
  }
  const log = createLogger({ service: 'proxy', destination })
  const { handler, shortcut } = createProxy({
    targets: { registry, token: registry, core: registry },
    shortAnswer(given) {
      asked.push(given)
      const later = given.target.startsWith('/v2/later')
      if (given.target !== '/v2/known' && !later) return null
      const headers = `X-Request-Id: ${given.requestId}\r\nContent-Length: 4\r\n`
      const answer = { status: 200, headers, body: 'body', onSent: (bytes: number) => void (left += bytes) }
      return later ? Promise.resolve(given.target.endsWith('declined') ? null : answer) : answer
    },
    storage: null,
    secret: 's'.repeat(40),
    log,
    metrics,
    portalFolder: import.meta.dirname,
    ...(trustedProxies && { trustedProxies }),
  })
  const secured = tls && { tls: { port: 0, certificate: { selfSignedIn } } }
  const opened = await openDoor(handler, { host: '127.0.0.1', port: tls ? null : 0, log, shortcut, ...secured })
  open.push(...opened.listening)
  const to = tls ? { agent: tlsAgent, port: opened.tlsPort } : { agent, port: opened.port }
  const ask = (path: string, headers: Record<string, string> = {}) =>
    new Promise<{ body: string; head: Record<string, unknown> }>((resolve, reject) => {
      const authorization = 'Bearer abc'
      const begin = tls ? requestTls : request
      begin({ ...to, host: '127.0.0.1', path, headers: { authorization, ...headers } }, (res) => {
        let body = ''
        res.on('data', (piece: Buffer) => (body += piece.toString()))
        res.on('end', () => resolve({ body, head: res.headers }))
      })
        .on('error', reject)
        .end()
    })
  await ask('/v2/first')
  asked.length = 0
  const logged = () => lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'access')
  return { ask, asked, metrics, logged, left: () => left }
}

describe('answers from the registry’s memory', () => {
  it('leave the door with its headers, a line and a count, as those do that come the long way', async () => {
    const { ask, asked, logged, metrics, left } = await door()
    const known = await ask('/v2/known', { 'user-agent': 'docker' })
    const other = await ask('/v2/other', { 'user-agent': 'docker' })
    expect(asked.map(({ target }) => target)).toEqual(['/v2/known', '/v2/other'])
    expect(known.body).toBe('body')
    expect(known.head['x-request-id']).toBe(asked[0]!.requestId)
    const names = ({ head }: typeof known) => Object.keys(head).sort()
    expect(names(known)).toEqual(
      [
        ...new Set([
          ...names(other),
          'x-frame-options',
          'content-security-policy',
          'x-content-type-options',
          'referrer-policy',
        ]),
      ].sort(),
    )
    const [, first, second] = logged()
    expect({ ...first, time: 0, request: 0, ms: 0, bytes: 0 }).toEqual({
      ...second,
      time: 0,
      request: 0,
      ms: 0,
      bytes: 0,
      url: '/v2/known',
    })
    expect([first.request, first.bytes]).toEqual([asked[0]!.requestId, left()])
    expect(await metrics.text()).toContain('service="proxy",method="GET",route="registry",status="200"} 3')
  })

  it('may come later, or not at all', async () => {
    const { ask, asked, logged } = await door()
    const known = await ask('/v2/known')
    const later = await ask('/v2/later')
    const declined = await ask('/v2/later/declined')
    expect(Object.keys(later.head).sort()).toEqual(Object.keys(known.head).sort())
    expect([later.head['x-request-id'], declined.head['x-request-id']]).toEqual([asked[1]!.requestId, 'long'])
    expect(logged().map(({ url }) => url)).toEqual(['/v2/first', '/v2/known', '/v2/later', '/v2/later/declined'])
  })

  it('leave a door with TLS', async () => {
    const { ask, asked, logged } = await door({ tls: true })
    const { body, head } = await ask('/v2/known')
    expect([body, head['strict-transport-security'], asked.length]).toEqual(['body', expect.any(String), 1])
    expect(logged()[1].url).toBe('/v2/known')
  })

  it('A50: are asked for by whom the connection says, and not by what its client claims', async () => {
    const { ask, asked } = await door()
    await ask('/v2/known', { 'x-forwarded-for': '198.51.100.7', 'x-forwarded-proto': 'https' })
    expect(asked[0]!.clientAddress).toBe('127.0.0.1')
  })

  it('A50: are asked for by whom a trusted balancer names', async () => {
    const { ask, asked } = await door({ trustedProxies: new TrustedProxies(['127.0.0.0/8']) })
    const { head } = await ask('/v2/known', { 'x-forwarded-for': '198.51.100.7', 'x-forwarded-proto': 'https' })
    expect(asked[0]!.clientAddress).toBe('198.51.100.7')
    expect(head['strict-transport-security']).toBeDefined()
  })

  it.each([
    [{ authorization: 'Basic YTpi' }],
    [{ authorization: 'Bearer abc', 'x-haven-proxy': 's'.repeat(40) }],
    [{ authorization: 'Bearer abc', host: 'two hosts' }],
    [{ authorization: 'Bearer abc', cookie: 'sid=1' }],
  ])('are not for a request with %j', async (headers) => {
    const { ask, asked } = await door()
    await ask('/v2/known', headers)
    expect(asked).toEqual([])
  })
})
