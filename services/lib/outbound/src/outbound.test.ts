import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { afterEach, describe, expect, it } from '@jest/globals'
import { readConfig } from '@haven/config'
import { problems, type Problem } from '@haven/errors'
import { AddressGuard, bytesOf, OutboundClient, outboundConfig, textOf, type OutboundOptions } from './index.ts'

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

async function listening(server: Server): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket.on('error', () => undefined).on('close', () => sockets.delete(socket)))
  })
  closers.push(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

/** A server that answers by HTTP. Its port, and the requests it saw. */
async function http(answer: (...given: Parameters<RequestListener>) => unknown) {
  const seen: IncomingMessage[] = []
  const port = await listening(createServer((req, res) => void (seen.push(req), answer(req, res))))
  return { port, seen, url: `http://127.0.0.1:${port}` }
}

/** A server that does what it likes with each connection. */
async function raw(serve: (socket: Socket) => void) {
  let connections = 0
  const port = await listening(createTcpServer((socket) => (connections++, serve(socket))))
  return { url: `http://127.0.0.1:${port}/`, port, connections: () => connections }
}

/** Sends the text once a request came. */
const saying = (answer: string, end = false) =>
  raw((socket) => socket.once('data', () => (end ? socket.end(answer) : socket.write(answer))))

const client = (options: Partial<OutboundOptions> = {}) => new OutboundClient({ allow: ['127.0.0.1'], ...options })

const reason = (text: string | RegExp) =>
  expect.objectContaining({
    kind: problems.outboundFailed.kind,
    facts: expect.objectContaining({ reason: expect.stringMatching(text) }),
  })
const refused = expect.objectContaining({ kind: problems.outboundRefused.kind })

describe('AddressGuard', () => {
  const guard = new AddressGuard({
    allow: ['10.1.0.0/16', '192.168.4.7', 'fd12::/16'],
    ownAddresses: ['10.1.0.9:5000', '[fd12::9]:5000'],
  })

  it.each([
    '127.0.0.1',
    '127.255.255.254',
    '0.0.0.0',
    '10.0.0.1',
    '100.64.0.1',
    '169.254.169.254',
    '172.31.0.1',
    '192.168.4.8',
    '224.0.0.1',
    '255.255.255.255',
    '::',
    '::1',
    '::7f00:1',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '0:0:0:0:0:ffff:a9fe:a9fe',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '2001::1',
    'fc00::1',
    'fd00:ec2::254',
    'fe80::1',
    'fe80::1%eth0',
    'ff02::1',
    'localhost',
    '',
  ])('A91: refuses %s', (address) => expect(guard.allows(address, 80)).toBe(false))

  it.each(['8.8.8.8', '10.1.255.255', '::ffff:10.1.0.1', '192.168.4.7', '2606:4700::1111', 'fd12::1'])(
    'allows %s',
    (address) => expect(guard.allows(address, 443)).toBe(true),
  )

  it('A91: refuses our own services and the ports of line protocols even where the network is allowed', () => {
    expect([5000, 5001, 6379, 5432, 25].map((port) => guard.allows('10.1.0.9', port))).toEqual([
      false,
      true,
      false,
      false,
      false,
    ])
    expect([5000, 5001].map((port) => guard.allows('::ffff:10.1.0.9', port))).toEqual([false, true])
    expect([5000, 5001].map((port) => guard.allows('fd12:0::9', port))).toEqual([false, true])
  })

  const dialling = new AddressGuard({ allow: ['127.0.0.2'], ownAddresses: ['10.1.0.9:5514'] })

  it.each(['127.0.0.1', '::1', '0.0.0.0', '169.254.169.254', '::ffff:169.254.169.254', 'fe80::1', 'fd00:ec2::254'])(
    'A91 R11: lets nobody dial %s',
    (address) => expect(dialling.allowsDialling(address, 389, [389])).toBe(false),
  )

  it.each(['10.1.0.1', '172.16.0.1', '192.168.1.1', '::ffff:10.1.0.1', 'fd12::1', '8.8.8.8', '127.0.0.2'])(
    'lets %s be dialled',
    (address) => expect(dialling.allowsDialling(address, 389, [389])).toBe(true),
  )

  it('A91: lets nobody dial our own services, databases or the ports of another protocol', () => {
    const asked = [5514, 5515, 514, 389, 6379].map((port) => dialling.allowsDialling('10.1.0.9', port, [514]))
    expect(asked).toEqual([false, true, true, false, false])
  })

  it.each(['10.1.0.0/33', 'example.test', '10.1.0.0/', '10.1/16', 'fe80::1%eth0', ''])(
    'cannot be made with %j',
    (entry) => {
      expect(() => new AddressGuard({ allow: [entry] })).toThrow(`"${entry}" is neither`)
    },
  )

  it('is set by OUTBOUND_ALLOW, which is checked at the start', () => {
    expect(readConfig(outboundConfig, {}).allow).toEqual([])
    expect(readConfig(outboundConfig, { OUTBOUND_ALLOW: '10.1.0.0/16, fd12::/16' }).allow).toEqual([
      '10.1.0.0/16',
      'fd12::/16',
    ])
    expect(() => readConfig(outboundConfig, { OUTBOUND_ALLOW: '10.1.0.0/16,intranet' })).toThrow(
      '"intranet" is neither',
    )
  })
})

describe('OutboundClient and addresses', () => {
  it.each([
    '127.1',
    '0x7f.1',
    '2130706433',
    '017700000001',
    '127.0.0.1.',
    '①②⑦.⓪.⓪.①',
    '[::ffff:127.0.0.1]',
    '0',
    '127.0.0.1%09',
    'localhost',
  ])('A91: http://%s reaches nothing and nobody sees a packet', async (host) => {
    const trap = await raw((socket) => socket.destroy())
    const strict = new OutboundClient({ allow: [] })
    await expect(strict.request({ url: `http://${host}:${trap.port}/` })).rejects.toEqual(refused)
    expect(trap.connections()).toBe(0)
  })

  it.each([
    'file:///etc/passwd',
    'gopher://a.test/',
    'data:text/plain,x',
    'unix:/run/x',
    'ftp://a.test/',
    'nonsense',
    'http://',
    'http://u:p@127.0.0.1/',
  ])('A91: refuses %s', async (url) => expect(client().request({ url })).rejects.toEqual(refused))

  it('A91: refuses a name of which one address is bad, whichever comes first', async () => {
    const trap = await raw((socket) => socket.destroy())
    for (const addresses of [
      ['127.0.0.1', '169.254.169.254'],
      ['10.0.0.1', '127.0.0.1'],
    ]) {
      const url = `http://mixed.test:${trap.port}/`
      await expect(client({ resolve: async () => addresses }).request({ url })).rejects.toEqual(refused)
    }
    expect(trap.connections()).toBe(0)
  })

  it('A91: asks a name once for each hop and connects to what was checked (rebinding)', async () => {
    const good = await http((req, res) =>
      req.url === '/' ? res.end(req.headers.host) : res.writeHead(302, { location: '/' }).end(),
    )
    const answers = [['127.0.0.1'], ['169.254.169.254']]
    const asked: string[] = []
    const rebinding = client({ resolve: async (host) => (asked.push(host), answers[Math.min(asked.length, 2) - 1]!) })
    const url = `http://rebind.test:${good.port}/`
    expect(await textOf(await rebinding.request({ url }))).toBe(`rebind.test:${good.port}`)
    expect(asked).toEqual(['rebind.test'])
    await expect(rebinding.request({ url })).rejects.toEqual(refused)
    asked.length = 0
    await expect(rebinding.request({ url: `${url}again` })).rejects.toEqual(refused)
    expect(good.seen.length).toBe(2)
  })

  it('tries the other addresses of a name when one does not connect', async () => {
    const { port } = await http((_req, res) => res.end('here'))
    const two = client({ allow: ['127.0.0.0/8'], resolve: async () => ['127.0.0.9', '127.0.0.1'] })
    expect(await textOf(await two.request({ url: `http://two.test:${port}/` }))).toBe('here')
  })

  it('tells a name without address from one that cannot be resolved', async () => {
    const url = 'http://nowhere.test/'
    await expect(client({ resolve: async () => [] }).request({ url })).rejects.toEqual(reason('no address'))
    const failing = client({ resolve: () => Promise.reject(new Error('SERVFAIL at 10.0.0.53')) })
    await expect(failing.request({ url })).rejects.toEqual(reason(/^the name cannot be resolved$/))
    const hanging = client({ resolve: () => new Promise(() => undefined) })
    await expect(hanging.request({ url, totalMs: 30 })).rejects.toEqual(reason('in time'))
  })

  it('A91: a line break does not become a header', async () => {
    const { url, seen } = await http((_req, res) => res.end())
    await client().request({ url: `${url}/a\r\nX-Evil:1/%0d%0aX-Evil: 1` })
    expect(seen[0]!.headers['x-evil']).toBeUndefined()
    const injected = client().request({ url, headers: { authorization: 'a\r\nx-evil: 1' } })
    await expect(injected).rejects.toEqual(expect.objectContaining({ kind: problems.badRequest.kind }))
  })
})

describe('OutboundClient and redirects', () => {
  it.each(['http://169.254.169.254/latest/meta-data/', 'http://[::1]/', 'file:///etc/passwd', 'http://u:p@127.0.0.1/'])(
    'A91: does not follow to %s',
    async (location) => {
      const { url } = await http((_req, res) => res.writeHead(302, { location }).end())
      await expect(client().request({ url })).rejects.toEqual(refused)
    },
  )

  it('A83: takes no credential of any name to another origin, nor back again', async () => {
    const secrets = {
      authorization: 'Basic eA==',
      cookie: 'sid=1',
      'x-webhook-key': 'k',
      accept: 'text/plain',
      range: 'bytes=0-1',
    }
    const home = await http((req, res) =>
      req.url === '/' ? res.writeHead(307, { location: `${away.url}/x` }).end() : res.end(),
    )
    const away = await http((_req, res) => res.writeHead(307, { location: `${home.url}/back` }).end())
    const answer = await client().request({ url: home.url, headers: secrets })
    expect(answer.url.href).toBe(`${home.url}/back`)
    for (const { headers } of [away.seen[0]!, home.seen[1]!]) {
      expect(headers).toMatchObject({ accept: 'text/plain', range: 'bytes=0-1' })
      expect(Object.keys(headers)).not.toEqual(
        expect.arrayContaining([expect.stringMatching(/authorization|cookie|x-webhook-key/)]),
      )
    }
    expect(home.seen[0]!.headers).toMatchObject(secrets)
  })

  it('keeps credentials within the origin', async () => {
    const { url, seen } = await http((req, res) =>
      req.url === '/' ? res.writeHead(301, { location: '/b' }).end() : res.end(),
    )
    await client().request({ url, headers: { authorization: 'Basic eA==' } })
    expect(seen[1]!.headers.authorization).toBe('Basic eA==')
  })

  it.each([
    ['POST', 302, 'GET', ''],
    ['POST', 303, 'GET', ''],
    ['PUT', 303, 'GET', ''],
    ['HEAD', 303, 'HEAD', ''],
    ['POST', 307, 'POST', 'body'],
    ['PUT', 301, 'PUT', 'body'],
  ])('a %s answered %i becomes a %s', async (method, status, then, body) => {
    const bodies: string[] = []
    const { url, seen } = await http(async (req, res) => {
      bodies.push(await text(req))
      if (req.url === '/') res.writeHead(status, { location: '/next' }).end()
      else res.end()
    })
    await client().request({
      url,
      method,
      ...(method !== 'HEAD' && { body: 'body', headers: { 'content-type': 'text/plain' } }),
    })
    expect(seen[1]!.method).toBe(then)
    expect(bodies[1]).toBe(body)
    expect(seen[1]!.headers['content-type']).toBe(body === '' ? undefined : 'text/plain')
  })

  it('takes no body to another origin', async () => {
    const away = await http((_req, res) => res.end())
    const { url } = await http((_req, res) => res.writeHead(307, { location: away.url }).end())
    await expect(client().request({ url, method: 'POST', body: 'password=x' })).rejects.toEqual(
      reason('another origin'),
    )
    const body = Readable.from(['x'])
    await expect(client().request({ url, method: 'POST', body })).rejects.toEqual(reason('cannot be sent again'))
    expect([away.seen.length, body.destroyed]).toEqual([0, true])
  })

  it('ends after three redirects, or as many as it was told', async () => {
    const { url, seen } = await http((req, res) =>
      res.writeHead(302, { location: `/${Number(req.url!.slice(1)) + 1}` }).end(),
    )
    await expect(client().request({ url })).rejects.toEqual(reason('too many redirects'))
    expect(seen.length).toBe(4)
    await expect(client().request({ url, redirects: 0 })).rejects.toEqual(reason('too many redirects'))
    expect(seen.length).toBe(5)
  })

  it('does not wait for the body of a redirect', async () => {
    const { url } = await http((req, res) => {
      if (req.url === '/ok') return void res.end('ok')
      res.writeHead(302, { location: '/ok' }).write('never ends')
    })
    expect(await textOf(await client().request({ url }))).toBe('ok')
  })
})

// Reliability.md §4, rule 14.
describe('OutboundClient and servers that misbehave', () => {
  const head = (length: number | string) => `HTTP/1.1 200 OK\r\ncontent-length: ${length}\r\n\r\n`

  it('refusing: says so', async () => {
    const server = createTcpServer()
    const port = await listening(server)
    await new Promise((closed) => server.close(closed))
    await expect(client().request({ url: `http://127.0.0.1:${port}/` })).rejects.toEqual(
      reason('the connection was refused'),
    )
  })

  it('black hole: gives up on the head after the idle time, with and without a body', async () => {
    const { url } = await raw(() => undefined)
    await expect(client().request({ url, idleMs: 40 })).rejects.toEqual(reason('fell silent'))
    const body = Readable.from(['some', 'bytes'])
    await expect(client().request({ url, method: 'PUT', body, idleMs: 40, totalMs: 0 })).rejects.toEqual(
      reason('fell silent'),
    )
    expect(body.destroyed).toBe(true)
  })

  it('black hole that never reads: gives up on a body that it does not take', async () => {
    const { url } = await raw((socket) => socket.pause())
    const endless = Readable.from(
      (function* () {
        for (;;) yield Buffer.alloc(1 << 16)
      })(),
    )
    await expect(client().request({ url, method: 'PUT', body: endless, idleMs: 100, totalMs: 0 })).rejects.toEqual(
      reason('fell silent'),
    )
    expect(endless.destroyed).toBe(true)
  })

  it('waits for a slow source of the body longer than for the other side', async () => {
    const { url } = await http(async (req, res) => res.end(await text(req)))
    const slow = Readable.from(
      (async function* () {
        yield 'first '
        await new Promise((later) => setTimeout(later, 150))
        yield 'last'
      })(),
    )
    expect(await textOf(await client().request({ url, method: 'POST', body: slow, idleMs: 50 }))).toBe('first last')
  })

  it('slow drip of the head: the idle time is for all of it', async () => {
    const { url } = await raw((socket) => {
      const drip = setInterval(() => socket.write('H'.repeat(1)), 10)
      socket.on('close', () => clearInterval(drip))
      socket.write('HTTP/1.1 200 OK\r\nx: ')
    })
    await expect(client().request({ url, idleMs: 80, totalMs: 0 })).rejects.toEqual(reason('fell silent'))
  })

  it('slow drip of the body: ends with the total time', async () => {
    const { url } = await raw((socket) => {
      socket.write(head(1e6))
      const drip = setInterval(() => socket.write('.'), 10)
      socket.on('close', () => clearInterval(drip))
    })
    const answer = await client().request({ url, totalMs: 150 })
    await expect(textOf(answer)).rejects.toEqual(reason('no whole answer in time'))
  })

  it('silence in the body: ends after the idle time, which a slow reader does not use up', async () => {
    const { url } = await saying(`${head(10)}12345`)
    const answer = await client().request({ url, idleMs: 50, totalMs: 0 })
    await new Promise((later) => setTimeout(later, 120))
    const read: string[] = []
    await expect((async () => { for await (const chunk of answer.body) read.push(String(chunk)) })()).rejects.toEqual(reason('fell silent')) // prettier-ignore
    expect(read).toEqual(['12345'])
  })

  it.each([
    ['garbage', '\u0000\u0001garbage\r\n\r\n', 'does not speak HTTP'],
    ['another protocol', '220 mail.test ESMTP\r\n', 'does not speak HTTP'],
    ['two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx', 'does not speak HTTP'],
    [
      'length and chunks',
      'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\nx',
      'does not speak HTTP',
    ],
    [
      'switching protocols',
      'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n',
      'the connection was cut',
    ],
  ])('%s: fails and repeats none of it', async (_what, answer, expected) => {
    const { url } = await saying(answer, true)
    const failure = await client()
      .request({ url })
      .catch((error: unknown) => error)
    expect(failure).toEqual(reason(expected))
    expect((failure as Problem).message).not.toMatch(/garbage|ESMTP/)
  })

  it.each([
    ['closes without a word', '', 'was cut'],
    ['closes in the head', 'HTTP/1.1 200 OK\r\ncontent-le', 'was cut'],
    ['closes in the body', `${head(10)}1234`, 'was cut'],
    ['closes in the chunks', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n123', 'was cut'],
    [
      'garbage between the chunks',
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n12\r\nzz\r\n',
      /was cut|HTTP/,
    ],
  ])('A83: %s: the body fails', async (_what, answer, expected) => {
    const { url } = await saying(answer, true)
    await expect((async () => textOf(await client().request({ url })))()).rejects.toEqual(reason(expected))
  })

  it('A83: a body longer than its Content-Length is cut there', async () => {
    const { url } = await saying(`${head(4)}1234HTTP/1.1 200 OK\r\n\r\nmore`)
    expect(await textOf(await client().request({ url }))).toBe('1234')
  })

  it('A83: an endless body ends at the limit, an announced one before the first byte', async () => {
    let sent = 0
    const { url } = await raw((socket) => {
      const pour = () => {
        do sent++
        while (socket.write(Buffer.alloc(4096, '.')) && sent < 100_000)
      }
      socket.write('HTTP/1.0 200 OK\r\n\r\n')
      socket.on('drain', pour)
      pour()
    })
    await expect((async () => textOf(await client().request({ url })))()).rejects.toEqual(
      reason('longer than 1048576 bytes'),
    )
    expect(sent).toBeLessThan(100_000)
    const announced = await saying(head(101))
    await expect(client().request({ url: announced.url, maxBytes: 100 })).rejects.toEqual(
      reason('longer than 100 bytes'),
    )
    const answer = await client().request({ url: announced.url, method: 'HEAD', maxBytes: 100 })
    expect([answer.headers['content-length'], await textOf(answer)]).toEqual(['101', ''])
  })

  it('100 MB of headers: fails at 32 KiB', async () => {
    let sent = 0
    const { url } = await raw((socket) => {
      socket.write('HTTP/1.1 200 OK\r\n')
      const pour = () => {
        while (sent < 100e6 && socket.write(`x-${(sent += 1000)}: ${'x'.repeat(990)}\r\n`));
      }
      socket.on('drain', pour)
      pour()
    })
    await expect(client().request({ url })).rejects.toEqual(reason('headers are too long'))
    expect(sent).toBeLessThan(50e6)
  })

  it('endless interim answers: the wait for the head ends', async () => {
    const { url } = await raw((socket) => {
      const more = setInterval(() => socket.write('HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n'), 5)
      socket.on('close', () => clearInterval(more))
    })
    await expect(client().request({ url, idleMs: 60, totalMs: 0 })).rejects.toEqual(reason('fell silent'))
  })

  it('an answer before the end of what we send ends the sending', async () => {
    const { url } = await raw((socket) =>
      socket.once('data', () => socket.write('HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n')),
    )
    const endless = new Readable({ read() { setImmediate(() => this.push(Buffer.alloc(1 << 14))) } }) // prettier-ignore
    const closed = new Promise((resolve) => endless.on('close', resolve))
    const answer = await client().request({ url, method: 'PUT', body: endless, totalMs: 0 })
    expect(answer.status).toBe(413)
    answer.body.destroy()
    await closed
  })

  it('lets a target rest that did not answer five times, and one call find out when it is back', async () => {
    let now = 0
    let dead = true
    const { url, connections } = await raw((socket) => {
      if (dead) socket.resetAndDestroy()
      else socket.once('data', () => socket.end(`${head(2)}ok`))
    })
    const patient = client({ now: () => now })
    for (let i = 0; i < 5; i++) await expect(patient.request({ url })).rejects.toEqual(reason('was cut'))
    await expect(patient.request({ url })).rejects.toEqual(reason('try again'))
    expect(connections()).toBe(5)
    now += 10_000
    await expect(patient.request({ url })).rejects.toEqual(reason('was cut'))
    await expect(patient.request({ url })).rejects.toEqual(reason('try again'))
    now += 10_000
    dead = false
    expect(await textOf(await patient.request({ url }))).toBe('ok')
    expect(await textOf(await patient.request({ url }))).toBe('ok')
  })
})

describe('dial', () => {
  const target = { host: 'logs.test', protocolPorts: [514], signal: new AbortController().signal }

  it('A91 R11: resolves a name once and connects to what it checked', async () => {
    const { port, connections } = await raw((socket) => socket.end('hello'))
    const answers = [['127.0.0.1'], ['127.0.0.2']]
    const dialler = client({ resolve: async () => answers.shift()! })
    const socket = await dialler.dial({ ...target, port })
    expect(await text(socket)).toBe('hello')
    expect([connections(), answers.length]).toEqual([1, 1])
    await expect(dialler.dial({ ...target, port })).rejects.toEqual(refused)
    expect(connections()).toBe(1)
  })

  it('A91: refuses a name with one address too many', async () => {
    const { port, connections } = await raw(() => undefined)
    const dialler = client({ resolve: async () => ['127.0.0.1', '169.254.169.254'] })
    await expect(dialler.dial({ ...target, port })).rejects.toEqual(refused)
    await expect(client({ resolve: async () => [] }).dial({ ...target, port })).rejects.toEqual(refused)
    expect(connections()).toBe(0)
  })

  it('says why there is no connection', async () => {
    const gone = client({ resolve: () => Promise.reject(Object.assign(new Error('no'), { code: 'ENOTFOUND' })) })
    await expect(gone.dial({ ...target, port: 514 })).rejects.toEqual(reason('the name cannot be resolved'))
    await expect(client().dial({ ...target, host: '127.0.0.1', port: 1 })).rejects.toEqual(
      reason('the connection was refused'),
    )
  })

  it('ends with the reason of the signal while it resolves, connects or shakes hands, and no later', async () => {
    const stop = new Error('stopped')
    const never = client({ resolve: () => new Promise(() => undefined) })
    const resolving = new AbortController()
    const pending = never.dial({ ...target, port: 514, signal: resolving.signal })
    resolving.abort(stop)
    await expect(pending).rejects.toBe(stop)
    const accepted = Promise.withResolvers<void>()
    const { port } = await raw(() => accepted.resolve())
    const shaking = new AbortController()
    const silent = client().dial({ ...target, host: '127.0.0.1', port, tls: {}, signal: shaking.signal })
    void accepted.promise.then(() => shaking.abort(stop))
    await expect(silent).rejects.toBe(stop)
    const later = new AbortController()
    const socket = await client().dial({ ...target, host: '127.0.0.1', port, signal: later.signal })
    later.abort(stop)
    expect(socket.destroyed).toBe(false)
    socket.destroy()
  })
})

describe('OutboundClient and its caller', () => {
  it('ends with the reason of the signal before, during and after the head', async () => {
    const { url } = await raw((socket) =>
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx')),
    )
    const hole = await raw(() => undefined)
    const stop = new Error('stopped')
    await expect(client().request({ url, signal: AbortSignal.abort(stop) })).rejects.toBe(stop)
    const waiting = new AbortController()
    const pending = client().request({ url: hole.url, signal: waiting.signal })
    setTimeout(() => waiting.abort(stop), 20)
    await expect(pending).rejects.toBe(stop)
    const reading = new AbortController()
    const answer = await client().request({ url, signal: reading.signal })
    setTimeout(() => reading.abort(stop), 20)
    await expect(bytesOf(answer)).rejects.toBe(stop)
  })

  it('closes the connection when the body is destroyed unread', async () => {
    const closed = Promise.withResolvers<void>()
    const { url } = await raw((socket) => {
      socket.on('close', () => closed.resolve())
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx'))
    })
    const { body } = await client().request({ url, totalMs: 0 })
    body.destroy()
    await closed.promise
  })

  it('destroys the source of a body that was never sent', async () => {
    const body = Readable.from(['x'])
    await expect(client().request({ url: 'http://10.0.0.1/', method: 'PUT', body })).rejects.toEqual(refused)
    expect(body.destroyed).toBe(true)
  })

  it('passes bytes through unchanged, past many buffers, with back-pressure', async () => {
    const block = Buffer.alloc(1 << 20, 'haven')
    const { url } = await http((req, res) => void req.pipe(res))
    const body = Readable.from(Array.from({ length: 8 }, () => block))
    const answer = await client().request({ url, method: 'POST', body, maxBytes: 16 << 20 })
    expect(Buffer.concat(Array.from({ length: 8 }, () => block)).equals(await bytesOf(answer))).toBe(true)
  })
})

/** A certificate of tls.test that nobody has signed; null without openssl. */
function selfSigned(): { key: string; cert: string } | null {
  const folder = mkdtempSync(join(tmpdir(), 'haven-outbound-'))
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const subject = ['-subj', '/CN=tls.test', '-addext', 'subjectAltName=DNS:tls.test']
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', ...subject]
  const program = ['openssl', 'req', '-x509', ...made, '-keyout', key, '-out', cert]
  try {
    const { error } = spawnSync(program[0]!, program.slice(1), { stdio: 'ignore' })
    return error ? null : { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const pair = selfSigned()
const describeTls = pair === null ? describe.skip : describe

describeTls(`OutboundClient and TLS${pair === null ? ' (skipped: openssl is not installed)' : ''}`, () => {
  const { key, cert } = pair ?? { key: '', cert: '' }

  const secure = async (listener: RequestListener) => {
    const port = await listening(createSecureServer({ key, cert }, listener))
    return { port, resolve: async () => ['127.0.0.1'] }
  }

  it('trusts a given CA beside the known ones, and anything only when told so', async () => {
    const { port, resolve } = await secure((_req, res) => res.end('tls'))
    const url = `https://tls.test:${port}/`
    const tls = client({ resolve })
    await expect(tls.request({ url })).rejects.toEqual(reason(/not trusted \(DEPTH_ZERO_SELF_SIGNED_CERT\)/))
    expect(await textOf(await tls.request({ url, ca: cert }))).toBe('tls')
    expect(await textOf(await tls.request({ url, insecure: true }))).toBe('tls')
    await expect(tls.request({ url: `https://other.test:${port}/`, ca: cert })).rejects.toEqual(
      reason(/not trusted \(ERR_TLS_CERT_ALTNAME/),
    )
    await expect(tls.request({ url, ca: 'no certificate' })).rejects.toEqual(
      expect.objectContaining({ kind: problems.badRequest.kind }),
    )
  })

  it('dials in TLS by the name, and compares the certificate with it', async () => {
    const names: unknown[] = []
    const server = createSecureServer({ key, cert, SNICallback: (name, done) => (names.push(name), done(null)) })
    const port = await listening(server)
    const dialler = client({ resolve: async () => ['127.0.0.1'] })
    const dial = (host: string, tls: { ca?: string; rejectUnauthorized?: boolean }) =>
      dialler.dial({ host, port, protocolPorts: [], tls, signal: new AbortController().signal })
    ;(await dial('tls.test', { ca: cert })).destroy()
    ;(await dial('other.test', { rejectUnauthorized: false })).destroy()
    await expect(dial('other.test', { ca: cert })).rejects.toEqual(reason(/not trusted \(ERR_TLS_CERT_ALTNAME/))
    await expect(dial('tls.test', {})).rejects.toEqual(reason('not trusted'))
    expect(names.slice(0, 3)).toEqual(['tls.test', 'other.test', 'other.test'])
  })

  it('trusts blindly only the host that it was told to', async () => {
    const other = await secure((_req, res) => res.end('other'))
    const { port, resolve } = await secure((_req, res) =>
      res.writeHead(302, { location: `https://other.test:${other.port}/` }).end(),
    )
    const answer = client({ resolve }).request({ url: `https://tls.test:${port}/`, insecure: true })
    await expect(answer).rejects.toEqual(reason('not trusted'))
  })

  it('does not follow from https to http', async () => {
    const plain = await http((_req, res) => res.end())
    const { port, resolve } = await secure((_req, res) => res.writeHead(302, { location: plain.url }).end())
    const answer = client({ resolve }).request({ url: `https://tls.test:${port}/`, ca: cert })
    await expect(answer).rejects.toEqual(reason('from https to http'))
    expect(plain.seen).toEqual([])
  })

  it('gives up on a server that accepts and never shakes hands, and says when it is not TLS', async () => {
    const hole = await raw(() => undefined)
    await expect(client().request({ url: `https://127.0.0.1:${hole.port}/`, idleMs: 40, totalMs: 0 })).rejects.toEqual(
      reason('silent'),
    )
    const plain = await raw((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    await expect(client().request({ url: `https://127.0.0.1:${plain.port}/` })).rejects.toEqual(
      reason('does not speak TLS'),
    )
  })
})
