import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from '@jest/globals'
import type { Limits } from './limits.ts'
import { listen, type Listening } from './listen.ts'
import type { ShortAnswer, Shortcut } from './shortcut.ts'

const HARMLESS = ['accept', 'authorization', 'connection', 'host', 'user-agent']
const open: Listening[] = []
const clients: Client[] = []
afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy()
  await Promise.all(open.splice(0).map((server) => server.drain(100)))
})

/** Answers `/v2/known/…` from memory and everything else by a handler that tells what it got. */
async function serve({ limits, handler, ...more }: Serving = {}) {
  const asked: string[] = []
  const failures: unknown[] = []
  const shortcut: Shortcut = {
    prefix: '/v2/',
    headers: new Set(HARMLESS),
    asker: (headers) => (method, target) => {
      asked.push(`${method} ${target}`)
      if (target.includes('broken')) throw new Error('a bug')
      if (target.startsWith('/v2/later/')) return new Promise((settle, fail) => later.push({ target, settle, fail }))
      if (!target.startsWith('/v2/known/')) return null
      const body = target.endsWith('large')
        ? Buffer.alloc(6 << 20, 7)
        : `memory of ${target} for ${headers.get('user-agent') ?? '?'}`
      const lines = `Content-Length: ${body.length}\r\n`
      return { status: 200, headers: lines, body, onSent: (bytes) => void sent.push(bytes) }
    },
  }
  const sent: number[] = []
  const later: Later[] = []
  const tell = (req: IncomingMessage, res: ServerResponse) => {
    const sum = createHash('sha256')
    let bytes = 0
    req.on('data', (piece: Buffer) => {
      bytes += piece.length
      sum.update(piece)
    })
    req.on('end', () => {
      const text = `handler of ${req.method} ${req.url}, ${bytes} bytes, ${sum.digest('hex').slice(0, 8)}`
      res.writeHead(200, { 'Content-Length': text.length }).end(text)
    })
  }
  const server = await listen(handler ?? tell, {
    host: '127.0.0.1',
    port: 0,
    shortcut,
    onError: (error) => failures.push(error.message),
    ...(limits && { limits }),
    ...more,
  })
  open.push(server)
  return { port: server.port, server, asked, sent, failures, later }
}
type Later = { target: string; settle: (answer: ShortAnswer | null) => void; fail: (error: Error) => void }
type Serving = {
  limits?: Partial<Limits>
  handler?: (req: IncomingMessage, res: ServerResponse) => void
  tls?: { key: Buffer; cert: Buffer }
}

/** Sends bytes as they are, and reads answers one by one. */
class Client {
  readonly socket: Socket
  #got = Buffer.alloc(0)
  closed = false
  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (piece: Buffer) => (this.#got = Buffer.concat([this.#got, piece])))
    socket.on('error', () => {})
    socket.on('close', () => (this.closed = true))
    clients.push(this)
  }

  send(bytes: string | Buffer): this {
    this.socket.write(bytes)
    return this
  }

  /** The next answer: its status, its lines of headers, and its body, by their length. */
  async answer(method = 'GET'): Promise<{ status: number; head: string; body: string }> {
    for (;;) {
      const end = this.#got.indexOf('\r\n\r\n') + 4
      if (end >= 4) {
        const head = this.#got.toString('latin1', 0, end)
        const length = method === 'HEAD' ? 0 : Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
        if (this.#got.length >= end + length) {
          const body = this.#got.toString('latin1', end, end + length)
          this.#got = this.#got.subarray(end + length)
          return { status: Number(head.slice(9, 12)), head, body }
        }
      }
      if (this.closed) throw new Error(`closed after ${this.#got.toString('latin1')}`)
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }

  get rest(): string {
    return this.#got.toString('latin1')
  }
}

const dial = async (port: number): Promise<Client> => {
  const socket = connect({ port, host: '127.0.0.1' })
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.setNoDelay(true)
  return new Client(socket)
}
/** A connection that Node has served once, which is when the shortcut begins. */
const dialed = async (port: number): Promise<Client> => {
  const client = await dial(port)
  await client.send(get('/first')).answer()
  return client
}
const get = (target: string, ...headers: string[]) =>
  `GET ${target} HTTP/1.1\r\n${['Host: h', ...headers].join('\r\n')}\r\n\r\n`
const pause = (ms = 20) => new Promise((resolve) => setTimeout(resolve, ms))
const until = async (condition: () => boolean) => {
  while (!condition()) await pause(2)
}

/** Buffers of two sockets. */
const KERNEL_MIB = 24
/** Sends 64 MiB, as far as they are taken at once. @returns how many MiB were */
async function takenOf({ socket }: Client): Promise<number> {
  let taken = 0
  const piece = Buffer.alloc(1 << 20)
  const more = () => {
    while (taken < 64 && socket.write(piece)) taken += 1
  }
  socket.on('drain', more)
  more()
  await pause(300)
  return taken
}

describe('requests that are answered from memory', () => {
  it('look as those of Node do', async () => {
    const { port, sent } = await serve()
    const client = await dialed(port)
    const long = await client.send(get('/v2/other')).answer()
    const short = await client.send(get('/v2/known/a', 'User-Agent: me')).answer()
    expect(short.body).toBe('memory of /v2/known/a for me')
    const shape = (head: string) => head.replaceAll(/(length|Date): .*/gi, '$1: …')
    expect(shape(short.head)).toBe(shape(long.head))
    expect(sent).toEqual([short.head.length + short.body.length])
    const head = await client.send(get('/v2/known/a').replace('GET', 'HEAD')).answer('HEAD')
    expect([head.status, client.rest]).toEqual([200, ''])
  })

  it('are the second and later ones of a connection, until Node has something to say in between', async () => {
    const { port, asked } = await serve()
    const client = await dial(port)
    expect((await client.send(get('/v2/known/a')).answer()).body).toContain('handler')
    expect((await client.send(get('/v2/known/a')).answer()).body).toContain('memory')
    expect((await client.send(get('/v2/other')).answer()).body).toContain('handler')
    expect((await client.send(get('/v2/known/b')).answer()).body).toContain('memory of /v2/known/b')
    expect(asked).toEqual(['GET /v2/known/a', 'GET /v2/other', 'GET /v2/known/b'])
  })

  it.each([
    ['another header', get('/v2/known/a', 'Range: bytes=0-1')],
    ['the same header twice', get('/v2/known/a', 'Accept: a', 'Accept: b')],
    ['a connection that is to close', get('/v2/known/a', 'Connection: close')],
    ['HTTP/1.0', get('/v2/known/a').replace('1.1', '1.0')],
    ['another method', get('/v2/known/a').replace('GET', 'DELETE')],
    ['another place', get('/v1/known/a')],
    ['bytes that are no text', get('/v2/known/a', 'Accept: caf\u00e9')],
  ])('A47: are not those with %s', async (_name, request) => {
    const { port } = await serve()
    const client = await dialed(port)
    expect((await client.send(Buffer.from(request, 'latin1')).answer()).body).toContain('handler')
  })

  it.each([
    ['a line that ends without CR', 'GET /v2/known/a HTTP/1.1\nHost: h\r\n\r\n'],
    ['a bare CR', 'GET /v2/known/a HTTP/1.1\r\nHost: h\rX: y\r\n\r\n'],
    ['a folded header', 'GET /v2/known/a HTTP/1.1\r\nHost: h\r\n more\r\n\r\n'],
    ['a space before the colon', 'GET /v2/known/a HTTP/1.1\r\nHost : h\r\n\r\n'],
    ['two hosts', 'GET /v2/known/a HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n'],
    ['two lengths', 'GET /v2/known/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n'],
    [
      'a length and chunks',
      'POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\nTransfer-Encoding: chunked\r\n\r\n',
    ],
  ])('A47: leave %s to Node’s parser', async (_name, bytes) => {
    const { port, asked } = await serve()
    const client = await dialed(port)
    client.send(bytes)
    const { status, body } = await client.answer()
    expect(body).not.toContain('memory')
    if (!bytes.includes('Host: i')) expect(status).toBe(400)
    expect(asked).toEqual([])
  })

  it('A47: two in one packet are both answered, in their order, and so are later ones', async () => {
    const { port } = await serve()
    const client = await dialed(port)
    client.send(get('/v2/known/a') + get('/v2/known/b'))
    expect((await client.answer()).body).toContain(' /v2/known/a')
    expect((await client.answer()).body).toContain(' /v2/known/b')
    expect((await client.send(get('/v2/known/c')).answer()).body).toContain('handler of GET /v2/known/c')
  })

  it('a head in pieces is Node’s', async () => {
    const { port, asked } = await serve()
    const client = await dialed(port)
    client.send('GET /v2/known/a HTTP/1.1\r\nHo')
    await pause()
    expect((await client.send('st: h\r\n\r\n').answer()).body).toContain('handler of GET /v2/known/a')
    expect((await client.send(get('/v2/known/b')).answer()).body).toContain('handler')
    expect(asked).toEqual([])
  })

  it('A47: what looks like a request within a body is body', async () => {
    const { port, asked } = await serve()
    const client = await dialed(port)
    const inner = get('/v2/known/secret')
    for (const framing of [`Content-Length: ${inner.length}`, 'Transfer-Encoding: chunked']) {
      const chunked = framing.includes('chunked')
      client.send(`POST /x HTTP/1.1\r\nHost: h\r\n${framing}\r\n\r\n`)
      await pause()
      if (chunked) client.send(`${inner.length.toString(16)}\r\n`)
      await pause()
      client.send(inner)
      await pause()
      if (chunked) client.send('\r\n0\r\n\r\n')
      expect((await client.answer()).body).toContain(`handler of POST /x, ${inner.length} bytes`)
    }
    expect(asked).toEqual([])
  })

  it('A47: nor after an answer that came before the body', async () => {
    const { port, asked } = await serve({
      handler: (_req, res) => void res.writeHead(200, { 'Content-Length': 2 }).end('ok'),
    })
    const client = await dialed(port)
    const inner = get('/v2/known/secret')
    client.send(`POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: ${inner.length}\r\n\r\n`)
    expect((await client.answer()).body).toBe('ok')
    client.send(inner)
    await pause()
    expect([asked, client.rest]).toEqual([[], ''])
    expect((await client.send(get('/after')).answer()).body).toBe('ok')
  })

  it('A47: nor behind empty lines, which the head does not end with', async () => {
    const { port, asked } = await serve({
      handler: (_req, res) => void res.writeHead(200, { 'Content-Length': 2 }).end('ok'),
    })
    const client = await dialed(port)
    const inner = get('/v2/known/secret', `User-Agent: ${'a'.repeat(40)}`)
    // As long as the body that is still to come, so that the bytes add up when the empty lines are taken for a head.
    const outer = `POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: ${inner.length}\r\nX: \r\n\r\n`
    client.send(`\r\n\r\n${outer.replace('X: ', `X: ${'x'.repeat(inner.length - outer.length)}`)}`)
    expect((await client.answer()).body).toBe('ok')
    client.send(inner)
    await pause()
    expect([asked, client.rest]).toEqual([[], ''])
    expect((await client.send(get('/after')).answer()).body).toBe('ok')
  })

  it('wait for an answer of Node’s that is still to come', async () => {
    const waiting: ServerResponse[] = []
    const { port, asked } = await serve({ handler: (_req, res) => void waiting.push(res) })
    const client = await dial(port)
    client.send(get('/first'))
    await until(() => waiting.length === 1)
    waiting[0]!.end('1')
    await pause()
    client.send(get('/slow'))
    await until(() => waiting.length === 2)
    client.send(get('/v2/known/a'))
    await pause()
    expect(asked).toEqual([])
    waiting[1]!.end('2')
    await until(() => waiting.length === 3)
    waiting[2]!.end('3')
    await until(() => client.rest.endsWith('3'))
  })

  it('a body of known length gives the connection back', async () => {
    const { port } = await serve()
    const client = await dialed(port)
    client.send('POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n12')
    await pause()
    await client.send('345').answer()
    expect((await client.send(get('/v2/known/a')).answer()).body).toContain('memory')
  })

  it('a large answer to a client that does not read leaves what comes after it to Node', async () => {
    const { port } = await serve()
    const client = await dialed(port)
    client.socket.pause()
    client.send(get('/v2/known/large'))
    await pause(50)
    client.send(get('/v2/known/a'))
    await pause(50)
    client.socket.resume()
    expect((await client.answer()).body).toHaveLength(6 << 20)
    expect((await client.answer()).body).toContain('/v2/known/a')
  })

  it('a shortcut that fails is told of, and the request is answered', async () => {
    const { port, failures } = await serve()
    const client = await dialed(port)
    expect((await client.send(get('/v2/broken')).answer()).body).toContain('handler of GET /v2/broken')
    expect(failures).toEqual(['a bug'])
  })

  it('end with a drain, which closes the connection behind the next answer', async () => {
    const { port, server } = await serve()
    const client = await dialed(port)
    expect((await client.send(get('/v2/known/a')).answer()).body).toContain('memory')
    const drained = server.drain(2000)
    const { body, head } = await client.send(get('/v2/known/a')).answer()
    expect([body, /Connection: (.*)\r/.exec(head)?.[1]]).toEqual([expect.stringContaining('handler'), 'close'])
    expect(await drained).toBe(true)
  })

  it('a connection that only asks from memory outlives the time for a head, and ends when it is idle', async () => {
    const { port } = await serve({ limits: { headersTimeoutMs: 100, keepAliveMs: 400 } })
    const client = await dialed(port)
    for (let turn = 0; turn < 12; turn += 1) {
      expect((await client.send(get('/v2/known/a')).answer()).body).toContain('memory')
      await pause(50)
    }
    await until(() => client.closed)
  })

  it('CONNECT is refused, and what comes behind it is nothing', async () => {
    const { port } = await serve()
    const client = await dialed(port)
    client.send('CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n')
    expect((await client.answer()).status).toBe(405)
    client.send(get('/v2/known/a'))
    await until(() => client.closed)
    expect(client.rest).toBe('')
  })
})

describe('requests that a shortcut answers later', () => {
  const answerOf = (body: string | Buffer): ShortAnswer => ({
    status: 200,
    headers: `Content-Length: ${body.length}\r\n`,
    body,
    onSent: () => {},
  })

  it('are answered, and the connection is as it was', async () => {
    const { port, later } = await serve()
    const client = await dialed(port)
    client.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    client.send(get('/v2/known/b'))
    await pause()
    expect(client.rest).toBe('')
    later[0]!.settle(answerOf('late'))
    expect((await client.answer()).body).toBe('late')
    expect((await client.answer()).body).toContain('memory of /v2/known/b')
    expect((await client.send(get('/v2/known/c')).answer()).body).toContain('memory of /v2/known/c')
  })

  it('do not hold up those of others', async () => {
    const { port, later } = await serve()
    const [one, other] = [await dialed(port), await dialed(port)]
    one.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    expect((await other.send(get('/v2/known/b')).answer()).body).toContain('memory of /v2/known/b')
    later[0]!.settle(answerOf('late'))
    expect((await one.answer()).body).toBe('late')
  })

  it.each(['decline', 'fail'])('go to Node when they %s after all, with what came behind them', async (how) => {
    const { port, later, failures } = await serve()
    const client = await dialed(port)
    client.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    const body = randomBytes(100_000)
    client.send(
      Buffer.concat([
        Buffer.from(`PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\nContent-Length: ${body.length}\r\n\r\n`),
        body,
      ]),
    )
    await pause()
    if (how === 'fail') later[0]!.fail(new Error('no luck'))
    else later[0]!.settle(null)
    expect((await client.answer()).body).toContain('handler of GET /v2/later/a, 0 bytes')
    expect((await client.answer()).body).toContain(`handler of PUT /v2/a/blobs/uploads/1, ${body.length} bytes`)
    expect(failures).toEqual(how === 'fail' ? ['no luck'] : [])
    expect((await client.send(get('/z')).answer()).body).toContain('handler of GET /z')
  })

  it('A54: wait without reading on', async () => {
    const { port, later } = await serve()
    const client = await dialed(port)
    client.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    expect(await takenOf(client)).toBeLessThan(KERNEL_MIB)
  })

  it('of a client that has left are told of as such', async () => {
    const { port, later } = await serve()
    const client = await dialed(port)
    client.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    client.socket.destroy()
    await pause()
    const bytes = await new Promise((onSent) => later[0]!.settle({ ...answerOf('late'), onSent }))
    expect(bytes).toBe(0)
  })

  it('are waited for longer than an idle connection', async () => {
    const { port, later } = await serve({ limits: { keepAliveMs: 50, stalledReaderMs: 50 } })
    const client = await dialed(port)
    client.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    await pause(1500) // Node adds a second to the time that it tells clients
    later[0]!.settle(answerOf('late'))
    expect((await client.answer()).body).toBe('late')
    await until(() => client.closed)
  })

  it('and their reading are waited for by a drain', async () => {
    const { port, later, server } = await serve()
    const client = await dialed(port)
    client.send(get('/v2/later/a'))
    await until(() => later.length === 1)
    const drained = server.drain(1000)
    await pause(600) // idle connections end after half of it
    client.socket.pause()
    later[0]!.settle(answerOf(Buffer.alloc(6 << 20, 7)))
    await pause(100)
    client.socket.resume()
    expect((await client.answer()).body).toHaveLength(6 << 20)
    expect(await drained).toBe(true)
  })
})

describe('long bodies of uploads', () => {
  const body = randomBytes(3 << 20)
  const sum = createHash('sha256').update(body).digest('hex').slice(0, 8)
  const upload = (length: number | string = body.length, ...headers: string[]) =>
    `PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\n${['Host: h', `Content-Length: ${length}`, ...headers].join('\r\n')}\r\n\r\n`

  it.each([
    ['behind their heads', (client: Client) => client.send(Buffer.concat([Buffer.from(upload()), body]))],
    [
      'apart from their heads',
      async (client: Client) => {
        client.send(upload())
        await pause()
        client.send(body)
      },
    ],
    [
      'in crumbs',
      async (client: Client) => {
        client.send(upload())
        for (let at = 0; at < body.length; at += 300_001) {
          client.send(body.subarray(at, at + 300_001))
          await pause(1)
        }
      },
    ],
    ['that are waited for', (client: Client) => client.send(upload(body.length, 'Expect: 100-continue')).send(body)],
  ])('arrive whole %s, and the next request stands behind them', async (name, send) => {
    const { port } = await serve()
    const client = await dial(port)
    for (let turn = 0; turn < 3; turn += 1) {
      await send(client)
      if (name === 'that are waited for') expect((await client.answer()).status).toBe(100)
      expect((await client.answer()).body).toBe(`handler of PATCH /v2/a/blobs/uploads/1, ${body.length} bytes, ${sum}`)
    }
    expect((await client.send(get('/v2/known/a')).answer()).body).toContain('memory')
  })

  it.each([300_000, 3 << 20])(
    'of %i bytes are read late and slowly, and the next request stands behind them',
    async (length) => {
      const { port } = await serve({
        async handler(req, res) {
          let bytes = 0
          await pause(30)
          for await (const piece of req) {
            bytes += (piece as Buffer).length
            await pause(1)
          }
          res.writeHead(200, { 'Content-Length': String(bytes).length }).end(String(bytes))
        },
      })
      const client = await dial(port)
      for (let turn = 0; turn < 3; turn += 1) {
        client.send(Buffer.concat([Buffer.from(upload(length)), body.subarray(0, length)]))
        expect((await client.answer()).body).toBe(String(length))
      }
    },
  )

  it('tell their handler what it would be told by Node', async () => {
    const seen: unknown[] = []
    const { port } = await serve({
      handler(req, res) {
        seen.push(req.headers['content-length'], req.rawHeaders, req.complete)
        req.on('data', () => {})
        req.on('end', () => {
          seen.push(req.complete)
          res.end()
        })
      },
    })
    const client = await dial(port)
    await client.send(Buffer.concat([Buffer.from(upload()), body])).answer()
    const length = String(body.length)
    expect(seen).toEqual([length, ['Host', 'h', 'Content-Length', length], false, true])
  })

  it('A47: with a request behind them in the same packet are followed by its answer', async () => {
    const { port } = await serve()
    const client = await dial(port)
    client.send(Buffer.concat([Buffer.from(upload()), body, Buffer.from(get('/v2/known/a') + get('/b'))]))
    expect((await client.answer()).body).toContain(sum)
    expect((await client.answer()).body).toMatch(/\/v2\/known\/a/)
    expect((await client.answer()).body).toContain('handler of GET /b')
  })

  it.each([
    ['two lengths', upload(body.length, `Content-Length: ${body.length}`)],
    ['two lengths that differ', upload(body.length, 'Content-Length: 70000')],
    ['a length and chunks', upload(body.length, 'Transfer-Encoding: chunked')],
    ['a length with a sign', upload('+99999')],
    ['a length of hexadecimal digits', upload('0x99999')],
    ['a length without end', upload('9'.repeat(40))],
  ])('A47: with %s are refused by Node’s parser', async (_name, head) => {
    const { port, asked } = await serve()
    const client = await dialed(port)
    client.send(head)
    expect((await client.answer()).status).toBe(400)
    client.send(get('/v2/known/a'))
    await until(() => client.closed)
    expect([asked, client.rest]).toEqual([[], ''])
  })

  it('A47: what Node refuses before it is a request is not read as another', async () => {
    const { port, asked } = await serve()
    const client = await dialed(port)
    // RFC 9112, 3.2: no Host.
    client.send(`PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nContent-Length: ${body.length}\r\n\r\n`)
    await pause()
    client.send(get('/v2/known/a'))
    await until(() => client.closed)
    expect([asked, client.rest.match(/HTTP\/1.1 \d+/g)]).toEqual([[], ['HTTP/1.1 400']])
  })

  it('wait while their reader does', async () => {
    let request: IncomingMessage | null = null
    const { port } = await serve({ handler: (req) => void (request = req) })
    const client = await dial(port)
    client.send(upload(64 << 20))
    expect(await takenOf(client)).toBeLessThan(KERNEL_MIB)
    expect(request).not.toBeNull()
    let bytes = 0
    request!.on('data', (part: Buffer) => (bytes += part.length))
    await until(() => bytes >= 40 << 20)
  })

  it('A55: of a client that leaves end their request with an error', async () => {
    const ends: string[] = []
    const { port } = await serve({
      handler(req) {
        req.on('data', () => {})
        req.on('end', () => ends.push('end'))
        req.on('error', (error: NodeJS.ErrnoException) => ends.push(String(error.code)))
        req.on('close', () => ends.push(`close, complete: ${req.complete}`))
      },
    })
    const client = await dial(port)
    client.send(upload()).send(body.subarray(0, 1 << 20))
    await pause()
    client.socket.destroy()
    await until(() => ends.length === 2)
    expect(ends).toEqual(['ECONNRESET', 'close, complete: false'])
  })

  it('A54: that come too slowly are refused', async () => {
    const { port } = await serve({ limits: { uploadRate: { bytesPerSecond: 1 << 20, windowMs: 100 } } })
    const client = await dial(port)
    client.send(upload()).send('x')
    expect((await client.answer()).status).toBe(408)
  })

  it('a drain lets them finish', async () => {
    const { port, server } = await serve()
    const client = await dial(port)
    client.send(upload()).send(body.subarray(0, 1 << 20))
    await pause()
    const drained = server.drain(5000)
    await pause(50)
    const { body: text, head } = await client.send(body.subarray(1 << 20)).answer()
    expect([text.endsWith(sum), /Connection: (.*)\r/.exec(head)?.[1]]).toEqual([true, 'close'])
    expect(await drained).toBe(true)
  })
})
