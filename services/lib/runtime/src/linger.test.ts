import { spawn } from 'node:child_process'
import { request, type IncomingMessage } from 'node:http'
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from '@jest/globals'
import { listen, type Limits, type Listening, type RequestHandler } from './index.ts'

const MiB = 1024 * 1024
const toStop: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const stop of toStop.splice(0)) await stop()
})

async function serve(handler: RequestHandler, limits: Partial<Limits> = {}): Promise<Listening> {
  const server = await listen(handler, { host: '127.0.0.1', port: 0, limits })
  toStop.push(() => server.drain(0))
  return server
}

const refuse: RequestHandler = (_req, res) => void res.writeHead(403, { 'Content-Length': 6 }).end('denied')
/** As a handler that learns half way that the rest has no room. */
const refuseHalfWay: RequestHandler = (req, res) => {
  let seen = 0
  req.on('data', (chunk: Buffer) => {
    seen += chunk.length
    if (seen < MiB || res.headersSent) return
    req.pause()
    res.writeHead(413, { 'Content-Length': 6 }).end('denied')
  })
}

interface Sent {
  answer: string
  sent: number
  /** How the server ended its half: in order, or by a reset before its answer was read. */
  end: 'fin' | 'reset'
}

/** Sends without a pause, and reads nothing before `readAfter` bytes have left: what a reset throws away, it never sees. */
function keepSending(socket: Socket, head: string, { readAfter = 4 * MiB, stopAtFin = true } = {}): Promise<Sent> {
  const piece = Buffer.alloc(64 * 1024)
  return new Promise((resolve) => {
    const seen: Sent = { answer: '', sent: 0, end: 'reset' }
    const next = () => {
      while (!socket.destroyed && socket.writable) {
        seen.sent += piece.length
        if (seen.sent >= readAfter) socket.resume()
        if (!socket.write(piece)) return void socket.once('drain', next)
      }
    }
    socket.pause()
    socket.on('data', (chunk: Buffer) => (seen.answer += chunk.toString()))
    socket.on('end', () => {
      seen.end = 'fin'
      if (stopAtFin) socket.destroy()
    })
    socket.on('error', () => {})
    socket.once('close', () => resolve(seen))
    socket.write(head)
    next()
  })
}

const plain = ({ port }: Listening) => connect({ host: '127.0.0.1', port, allowHalfOpen: true })
const put = (headers: string) => `PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: h\r\n${headers}\r\n\r\n`
const LONG = put(`Content-Length: ${1024 * MiB}`)

describe('an answer before the end of a body', () => {
  it.each([
    ['at once', refuse, 403],
    ['half way', refuseHalfWay, 413],
  ] as const)('reaches a client that sends 4 MiB before it looks (%s)', async (_, handler, status) => {
    for (let turn = 0; turn < 10; turn += 1) {
      const { answer, end } = await keepSending(plain(await serve(handler)), LONG)
      expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} [\\s\\S]*Connection: close[\\s\\S]*denied$`))
      expect(end).toBe('fin')
    }
  })

  it('reaches clients whose body is chunked', async () => {
    const server = await serve(refuse)
    const socket = plain(server)
    const sent = await keepSending(socket, `${put('Transfer-Encoding: chunked')}40000000\r\n`)
    expect(sent).toMatchObject({ answer: expect.stringContaining('403'), end: 'fin' })
  })

  it("reaches Node's client, fetch and curl", async () => {
    const { port } = await serve(refuse)
    const url = `http://127.0.0.1:${port}/v2/a/blobs/uploads/1`
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const sending = request(
        url,
        { method: 'PUT', headers: { 'Content-Length': 64 * MiB } },
        (res: IncomingMessage) => {
          res.resume().once('end', () => resolve(res.statusCode))
        },
      )
      sending.on('error', reject)
      sending.end(Buffer.alloc(64 * MiB))
    })
    expect(status).toBe(403)

    const answer = await fetch(url, { method: 'PUT', body: new Uint8Array(16 * MiB) })
    expect([answer.status, await answer.text()]).toEqual([403, 'denied'])

    const curl = spawn('curl', ['-sS', '-H', 'Expect:', '-w', ' %{http_code}', '-T', '-', url])
    curl.stdin.on('error', () => {})
    curl.stdin.end(Buffer.alloc(16 * MiB))
    let output = ''
    for (const stream of [curl.stdout, curl.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
    await new Promise((resolve) => curl.once('close', resolve))
    expect(output).toBe('denied 403')
  })

  it('does not read without end: so many bytes', async () => {
    const server = await serve(refuse, { linger: { bytes: 8 * MiB, ms: 600_000 } })
    const { answer, sent } = await keepSending(plain(server), LONG, { stopAtFin: false })
    expect(answer).toContain('403')
    expect(sent).toBeGreaterThan(8 * MiB)
    // Besides, what the kernel's buffers of both ends hold.
    expect(sent).toBeLessThan(64 * MiB)
    expect(await settled(server)).toBe(0)
  })

  it('does not read without end: so long, also of a client that sends nothing more', async () => {
    const server = await serve(refuse, { linger: { bytes: Infinity, ms: 100 } })
    const socket = plain(server)
    socket.on('error', () => {})
    socket.write(LONG)
    socket.write('the beginning')
    socket.resume()
    await new Promise((resolve) => socket.once('end', resolve))
    expect(await settled(server)).toBe(0)
    socket.destroy()
  })

  it('closes when the body has come to its end, and answers nothing behind it', async () => {
    const seen: string[] = []
    const server = await serve((req, res) => {
      seen.push(req.url!)
      refuse(req, res)
    })
    const socket = plain(server)
    let answer = ''
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
    socket.on('error', () => {})
    socket.write(put(`Content-Length: ${MiB}`))
    await new Promise((resolve) => socket.once('end', resolve))
    socket.write(Buffer.alloc(MiB))
    socket.write('GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n')
    expect(await settled(server)).toBe(0)
    socket.destroy()
    expect(seen).toEqual(['/v2/a/blobs/uploads/1'])
    expect(answer.match(/HTTP\/1.1/g)).toHaveLength(1)
  })

  it.each([refuse, (req: IncomingMessage, res) => (req.once('data', () => req.pause()), refuse(req, res))] as [
    RequestHandler,
    RequestHandler,
  ])('keeps the connection for a short body, whatever its handler read of it', async (handler) => {
    const server = await serve((req, res) => (req.method === 'GET' ? void res.end('second') : handler(req, res)))
    const socket = plain(server)
    let answer = ''
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
    socket.write(put('Content-Length: 60000'))
    await until(() => answer.includes('denied'))
    expect(answer).not.toMatch(/connection: close/i)
    socket.write(Buffer.alloc(60_000))
    socket.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n')
    await until(() => answer.includes('second'))
    socket.destroy()
  })

  it('keeps the connection of an upload that was read to its end', async () => {
    const server = await serve((req, res) => void req.resume().once('end', () => res.writeHead(201).end()))
    const socket = plain(server)
    let answer = ''
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
    for (const turn of [1, 2]) {
      socket.write(put(`Content-Length: ${MiB}`))
      socket.write(Buffer.alloc(MiB))
      await until(() => (answer.match(/201 Created/g) ?? []).length === turn)
    }
    expect(answer).not.toMatch(/connection: close/i)
    socket.destroy()
  })
})

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !condition();) {
    if (Date.now() > end) throw new Error(`it did not happen: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** The connections that are left, when the last is gone or after ten seconds. */
async function settled(server: Listening): Promise<number> {
  await until(() => server.connections === 0).catch(() => {})
  return server.connections
}
