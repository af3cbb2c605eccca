import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, request, type IncomingMessage } from 'node:http'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from '@jest/globals'
import { bodyChunks } from './body-chunks.ts'
import { awaitsReader, bodyIntake } from './body-intake.ts'
import { listen } from './listen.ts'
import { harmlessHeaders, type Asker } from './shortcut.ts'

const KiB = 1024
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

const UPLOAD = '/v2/some/blobs/uploads/one'

/** Serves `handle`, whose result is the answer. */
async function serve(handle: (req: IncomingMessage) => Promise<string>, tls?: { key: Buffer; cert: Buffer }) {
  const server = await listen(
    (req, res) => {
      handle(req).then(
        (text) => res.end(text),
        (error: Error) => res.end(`failed: ${error.message}`),
      )
    },
    {
      host: '127.0.0.1',
      port: 0,
      shortcut: { prefix: '/v2/', headers: new Set(harmlessHeaders), asker: () => answerShort },
      ...(tls && { tls }),
    },
  )
  const agent = new (tls ? TlsAgent : Agent)({ keepAlive: true, maxSockets: 1 })
  const { port } = server
  return {
    port,
    send: (body: Buffer, headers: Record<string, string | number> = { 'content-length': body.length }) =>
      new Promise<{ text: string; socket: unknown }>((resolve, reject) => {
        const options = {
          port,
          host: '127.0.0.1',
          path: UPLOAD,
          method: 'PUT',
          headers,
          agent,
          rejectUnauthorized: false,
        }
        const req = (tls ? tlsRequest : request)(options, (res) => {
          let text = ''
          res.setEncoding('utf8').on('data', (part: string) => (text += part))
          res.on('end', () => resolve({ text, socket: req.socket }))
        })
        req.once('error', reject)
        req.end(body)
      }),
    [Symbol.asyncDispose]: async () => {
      agent.destroy()
      await server.drain(100)
    },
  }
}

/** What is asked for is in memory. */
const answerShort: Asker = (_, target) =>
  target === '/v2/short' ? { status: 200, headers: 'Content-Length: 2\r\n', body: 'ok', onSent: () => {} } : null

const turn = () => new Promise((resolve) => setImmediate(resolve))

/** The sum of a body that is taken in buffers of a size. */
async function sumOf(req: IncomingMessage, sizeBytes: number, beforeEach: () => unknown = () => {}): Promise<string> {
  const intake = await bodyIntake(req)
  if (!intake) return 'piece by piece'
  const hash = createHash('sha256')
  const buffer = Buffer.alloc(sizeBytes)
  for (let filled = sizeBytes; filled === sizeBytes;) {
    await beforeEach()
    filled = await intake.fill(buffer)
    hash.update(buffer.subarray(0, filled))
  }
  intake.close()
  return hash.digest('hex')
}

function selfSigned(): { key: Buffer; cert: Buffer } | null {
  const folder = mkdtempSync(join(tmpdir(), 'haven-tls-'))
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=x']
  const program = ['openssl', 'req', '-x509', ...made, '-keyout', key, '-out', cert]
  try {
    const { error } = spawnSync(program[0]!, program.slice(1), { stdio: 'ignore' })
    return error ? null : { key: readFileSync(key), cert: readFileSync(cert) }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe('bodyIntake', () => {
  const body = randomBytes(3 * 1024 * KiB + 7)

  it('brings every byte of several while short requests go first', async () => {
    await using server = await serve((req) => sumOf(req, 256 * KiB))
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const askShort = () =>
      new Promise<string>((resolve, reject) => {
        const req = request({ port: server.port, host: '127.0.0.1', path: '/v2/short', agent }, (res) => {
          let text = ''
          res.setEncoding('utf8').on('data', (part: string) => (text += part))
          res.on('end', () => resolve(text))
        })
        req.once('error', reject).end()
      })
    await askShort() // Node's, and so the connection's state is known from now on
    const short = new Set<string>()
    let uploading = true
    const asking = (async () => {
      while (uploading) short.add(await askShort())
    })()
    await using other = await serve((req) => sumOf(req, 1000 * KiB))
    const answers = await Promise.all([server.send(body), other.send(body.subarray(1))])
    uploading = false
    await asking
    agent.destroy()
    expect(answers.map(({ text }) => text)).toEqual([sha256(body), sha256(body.subarray(1))])
    expect([...short]).toEqual(['ok'])
  })

  it.each([
    ['in large buffers', 1024 * KiB, undefined],
    ['in one that holds all of it', 4096 * KiB, undefined],
    ['in small ones', 1000, undefined],
    ['by a reader that is slower than the client', 64 * KiB, () => new Promise((resolve) => setTimeout(resolve, 2))],
  ])('brings every byte once, %s, of one body after the other', async (_, size, pause) => {
    await using server = await serve((req) => sumOf(req, size, pause))
    const answers = []
    for (let n = 0; n < 3; n += 1) answers.push(await server.send(body.subarray(n)))
    expect(answers.map(({ text }) => text)).toEqual([0, 1, 2].map((n) => sha256(body.subarray(n))))
    expect(new Set(answers.map(({ socket }) => socket)).size).toBe(1)
  })

  const pair = selfSigned()
  const itOverTls = pair === null ? it.skip : it
  itOverTls(
    `brings every byte once over TLS${pair === null ? ' (skipped: openssl is not installed)' : ''}`,
    async () => {
      await using server = await serve((req) => sumOf(req, 256 * KiB), pair!)
      expect([(await server.send(body)).text, (await server.send(body)).text]).toEqual([sha256(body), sha256(body)])
    },
  )

  it('brings a body whose length is that of its buffers, and one that came with its head', async () => {
    await using server = await serve((req) => sumOf(req, 64 * KiB))
    const [whole, small] = [body.subarray(0, 256 * KiB), body.subarray(0, 65_536)]
    expect((await server.send(whole)).text).toBe(sha256(whole))
    expect((await server.send(small)).text).toBe(sha256(small))
  })

  it.each([
    ['long', body, 0],
    ['of which little is left when its reader comes', body.subarray(0, 100_000), 90_000],
  ])('A47: leaves what stands behind a body to the parser: %s', async (_, whole, early) => {
    const begun: PromiseWithResolvers<void>[] = []
    await using server = await serve(async (req) => {
      if (req.method !== 'PUT') return `got ${req.url}`
      while (req.socket.bytesRead < early) await turn()
      return sumOf(req, 1024 * KiB, () => begun.at(-1)!.resolve())
    })
    const socket = connect(server.port, '127.0.0.1').setEncoding('utf8')
    let text = ''
    socket.on('data', (part: string) => (text += part))
    const behind = 'GET /behind HTTP/1.1\r\nHost: x\r\n\r\n'
    // The second upload finds a connection that was read directly before.
    for (let n = 1; n <= 2; n += 1) {
      begun.push(Promise.withResolvers<void>())
      socket.write(`PUT ${UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: ${whole.length}\r\n\r\n`)
      socket.write(whole.subarray(0, early))
      await begun.at(-1)!.promise
      socket.write(Buffer.concat([whole.subarray(early), Buffer.from(behind)]))
      while (text.split('got /behind').length <= n) await turn()
    }
    expect(text.split(sha256(whole))).toHaveLength(3)
    socket.destroy()
  })

  it.each([
    ['in chunked framing', { 'transfer-encoding': 'chunked' }],
    ['short', { 'content-length': 10_000 }],
  ] as [string, Record<string, string | number>][])(
    'is not there for a body that is %s, which comes piece by piece',
    async (_, headers) => {
      await using server = await serve(async (req) => {
        if (await bodyIntake(req)) return 'taken'
        const hash = createHash('sha256')
        for await (const piece of bodyChunks(req)) hash.update(piece)
        return hash.digest('hex')
      })
      const sent = body.subarray(0, Number(headers['content-length'] ?? body.length))
      expect((await server.send(sent, headers)).text).toBe(sha256(sent))
    },
  )

  it('writes nothing into a buffer that was left, and lets the request be answered and the connection go on', async () => {
    const left: Buffer[] = []
    let leave = true
    await using server = await serve(async (req) => {
      if (!leave) return sumOf(req, 64 * KiB)
      const intake = (await bodyIntake(req))!
      await intake.fill(Buffer.alloc(KiB))
      const buffer = Buffer.alloc(8192 * KiB)
      left.push(buffer)
      intake.fill(buffer).catch(() => {})
      while (buffer[0] === 0) await turn()
      intake.close()
      buffer.fill(0)
      req.resume()
      await new Promise((resolve) => req.once('end', resolve))
      return 'left'
    })
    const marked = Buffer.alloc(4096 * KiB, 1)
    const first = await server.send(marked)
    leave = false
    const second = await server.send(marked)
    expect([first.text, second.text]).toEqual(['left', sha256(marked)])
    expect(second.socket).toBe(first.socket)
    expect(left[0]!.every((byte) => byte === 0)).toBe(true)
  })

  it('fails when the client leaves within the body, and the next connection is read as ever', async () => {
    const failures: string[] = []
    await using server = await serve((req) =>
      sumOf(req, 256 * KiB).catch((error: Error) => {
        failures.push(error.message)
        return 'failed'
      }),
    )
    for (let n = 0; n < 3; n += 1) {
      const socket = connect(server.port, '127.0.0.1')
      socket.write(`PUT ${UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n`)
      socket.write(body.subarray(0, 300_000), () => setTimeout(() => socket.destroy(), 20))
      while (failures.length === n) await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(failures).toEqual(Array.from({ length: 3 }, () => 'aborted'))
    // A parser is used again, and a body in chunks goes through its own listener.
    await using other = await serve(async (req) => {
      const hash = createHash('sha256')
      for await (const piece of bodyChunks(req)) hash.update(piece)
      return hash.digest('hex')
    })
    expect((await other.send(body, { 'transfer-encoding': 'chunked' })).text).toBe(sha256(body))
  })

  it('leaves a body with the kernel until its reader comes, on a connection that was read directly', async () => {
    const before: { bytes: number; waits: boolean }[] = []
    let bytesBefore = 0
    await using server = await serve(async (req) => {
      // Long enough for the client, which is in this process, to send what the kernel takes.
      for (let turns = 0; turns < 200; turns += 1) await turn()
      before.push({ bytes: req.socket.bytesRead - bytesBefore, waits: awaitsReader(req) })
      const sum = await sumOf(req, 1024 * KiB)
      bytesBefore = req.socket.bytesRead
      return sum
    })
    for (let n = 0; n < 3; n += 1) expect((await server.send(body)).text).toBe(sha256(body))
    expect(before.map(({ waits }) => waits)).toEqual([true, true, true])
    expect(before.slice(1).filter(({ bytes }) => bytes > 16 * KiB)).toEqual([])
  })

  it('brings what came in chunked framing over a connection that was read directly', async () => {
    await using server = await serve(async (req) => {
      const sum = await sumOf(req, 256 * KiB)
      if (sum !== 'piece by piece') return sum
      const hash = createHash('sha256')
      for await (const piece of bodyChunks(req)) hash.update(piece)
      return hash.digest('hex')
    })
    const whole = await server.send(body)
    const chunked = await server.send(body, { 'transfer-encoding': 'chunked' })
    expect([whole.text, chunked.text]).toEqual([sha256(body), sha256(body)])
    expect(chunked.socket).toBe(whole.socket)
  })

  it('takes no more from a client than its reader asked for, and says that the body waits for the reader', async () => {
    const seen = Promise.withResolvers<{ waits: boolean[]; readBytes: number }>()
    await using server = await serve(async (req) => {
      const intake = (await bodyIntake(req))!
      const buffer = Buffer.alloc(64 * KiB)
      await intake.fill(buffer)
      const filling = intake.fill(buffer)
      const waits = [awaitsReader(req)]
      await filling
      for (let n = 0; n < 100; n += 1) await turn()
      waits.push(awaitsReader(req))
      seen.resolve({ waits, readBytes: req.socket.bytesRead })
      intake.close()
      return 'enough'
    })
    const socket = connect(server.port, '127.0.0.1').on('error', () => {})
    socket.write(`PUT ${UPLOAD} HTTP/1.1\r\nHost: x\r\nContent-Length: ${64 * 1024 * KiB}\r\n\r\n`)
    for (let n = 0; n < 64; n += 1) socket.write(Buffer.alloc(1024 * KiB))
    const { waits, readBytes } = await seen.promise
    expect(waits).toEqual([false, true])
    expect(readBytes).toBeLessThan(1024 * KiB)
    socket.destroy()
  })
})
