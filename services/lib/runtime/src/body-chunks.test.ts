import { createHash, randomBytes } from 'node:crypto'
import { createServer, request, type IncomingMessage } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { describe, expect, it } from '@jest/globals'
import { bodyChunks } from './body-chunks.ts'

async function piecesOf(req: IncomingMessage): Promise<number[]> {
  const lengths: number[] = []
  for await (const chunk of bodyChunks(req)) lengths.push(chunk.length)
  return lengths
}

/** Serves one request with `handle`; gives what the client and the handler saw. */
async function serve(handle: (req: IncomingMessage) => Promise<unknown>) {
  const handled = Promise.withResolvers<unknown>()
  const server = createServer((req, res) => {
    handle(req).then(
      (value) => {
        handled.resolve(value)
        res.end('answered')
      },
      (error: Error) => {
        handled.resolve(error)
        res.end('failed')
      },
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    handled: handled.promise,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function send(port: number, body: Buffer, chunked = false): Promise<string> {
  return new Promise((resolve, reject) => {
    const headers = chunked ? {} : { 'content-length': body.length }
    const req = request({ port, host: '127.0.0.1', method: 'PUT', headers }, (res) => {
      res.setEncoding('utf8').once('data', resolve)
    })
    req.once('error', reject)
    req.end(body)
  })
}

describe('bodyChunks', () => {
  const body = randomBytes(5 * 1024 * 1024 + 7)
  const sum = createHash('sha256').update(body).digest('hex')

  it.each([
    ['as fast as it comes', false, 0],
    ['in chunked framing', true, 0],
    ['by a reader that is slower than the client', false, 2],
  ])('brings every byte once, %s', async (_, chunked, pauseMs) => {
    await using server = await serve(async (req) => {
      const hash = createHash('sha256')
      for await (const chunk of bodyChunks(req)) {
        hash.update(chunk)
        if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs))
      }
      return hash.digest('hex')
    })
    expect(await send(server.port, body, chunked)).toBe('answered')
    expect(await server.handled).toBe(sum)
  })

  it('gives the memory of a piece back when the next is asked for', async () => {
    await using server = await serve(async (req) => {
      const sizes: number[] = []
      let last: Buffer | null = null
      for await (const chunk of bodyChunks(req)) {
        if (last) sizes.push(last.byteLength)
        last = chunk.byteLength >= 16 * 1024 ? chunk : null
      }
      return sizes
    })
    await send(server.port, body)
    const sizes = (await server.handled) as number[]
    expect(sizes.length).toBeGreaterThan(10)
    expect(new Set(sizes)).toEqual(new Set([0]))
  })

  it('ends at once for an empty body', async () => {
    await using server = await serve((req) => piecesOf(req))
    await send(server.port, Buffer.alloc(0))
    expect(await server.handled).toEqual([])
  })

  it('leaves the request open when the reader stops early, so that it can be answered', async () => {
    await using server = await serve(async (req) => {
      for await (const chunk of bodyChunks(req)) return chunk.length > 0
    })
    expect(await send(server.port, body)).toBe('answered')
    expect(await server.handled).toBe(true)
  })

  it('fails when the client leaves within the body', async () => {
    await using server = await serve((req) => piecesOf(req))
    const socket = connect(server.port, '127.0.0.1')
    socket.write('PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc', () => socket.destroy())
    expect(await server.handled).toMatchObject({ code: 'ECONNRESET' })
  })
})
