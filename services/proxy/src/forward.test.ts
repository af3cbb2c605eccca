import { createServer, type RequestListener } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { describe, expect, it } from '@jest/globals'
import { createLogger, createMetrics } from '@haven/runtime'
import { openDoor } from './door.ts'
import { createProxy } from './service.ts'

const log = createLogger({ service: 'test', level: 'silent' })

/** A door before a service that answers as it is told, with what forwards requests without a body loaded. */
async function before(service: RequestListener, { path = '', answerWithinMs = 60_000 } = {}) {
  const server = createServer(service)
  const connections = new Set<Socket>()
  server.on('connection', (socket: Socket) => connections.add(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`
  const proxy = createProxy({
    targets: { registry: url, token: url, core: url },
    storage: null,
    secret: 'the proxy is the proxy is the proxy',
    log,
    metrics: createMetrics(),
    portalFolder: import.meta.dirname,
    answerWithinMs,
  })
  await import('undici')
  await new Promise((resolve) => setImmediate(resolve))
  const door = await openDoor(proxy.handler, { host: '127.0.0.1', port: 0, log })
  return {
    url: `http://127.0.0.1:${door.port}`,
    port: door.port!,
    connections,
    async [Symbol.asyncDispose]() {
      await door.listening[0]!.drain(100)
      await proxy[Symbol.asyncDispose]()
      server.closeAllConnections()
      server.close()
    },
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !condition();) {
    if (Date.now() > end) throw new Error(`it did not happen: ${condition}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('a request without a body', () => {
  it('leaves the connection to the service for the next one, also when it is a HEAD', async () => {
    await using at = await before((_req, res) => void res.end('x'))
    for (const method of ['GET', 'HEAD', 'HEAD', 'GET', 'HEAD', 'GET']) {
      const answer = await fetch(`${at.url}/v2/`, { method })
      expect([answer.status, await answer.text()]).toEqual([200, method === 'HEAD' ? '' : 'x'])
    }
    expect(at.connections.size).toBe(1)
  })

  it('is asked below the path of the service', async () => {
    await using at = await before((req, res) => void res.end(req.url), { path: '/behind/' })
    expect(await (await fetch(`${at.url}/v2/a/tags/list?n=1`)).text()).toBe('/behind/v2/a/tags/list?n=1')
  })

  it('is given up, once and for all, when the service is silent for too long', async () => {
    let asked = 0
    await using at = await before(() => void (asked += 1), { answerWithinMs: 100 })
    const answer = await fetch(`${at.url}/v2/`)
    expect([answer.status, answer.headers.get('retry-after'), asked]).toEqual([502, '2', 1])
  })

  it('is not waited for when its client has left', async () => {
    let [asked, left] = [false, false]
    await using at = await before((req) => {
      asked = true
      req.socket.once('close', () => (left = true))
    })
    const client = connect(at.port, '127.0.0.1', () => client.write('GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n'))
    await until(() => asked)
    client.destroy()
    await until(() => left)
  })

  it('has one answer, whatever the service says before it', async () => {
    await using at = await before((_req, res) => {
      res.writeEarlyHints({ link: '</a.css>; rel=preload' })
      res.end('whole')
    })
    const answer = await fetch(`${at.url}/v2/`)
    expect([answer.status, await answer.text()]).toEqual([200, 'whole'])
  })

  it('takes no more of an answer than its client reads', async () => {
    const size = 64 * 1024 * 1024
    const piece = Buffer.alloc(64 * 1024)
    let sent = 0
    let waits = false
    await using at = await before((_req, res) => {
      res.setHeader('Content-Length', size)
      const more = () => {
        waits = false
        while (sent < size && !waits) {
          sent += piece.length
          waits = !res.write(piece)
        }
        if (sent === size) res.end()
      }
      res.on('drain', more)
      more()
    })
    const client = connect(at.port, '127.0.0.1', () => client.write('GET /v2/ HTTP/1.1\r\nHost: h\r\n\r\n'))
    client.pause()
    for (let last = -1; last !== sent || sent === 0;) {
      last = sent
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
    expect(sent).toBeLessThan(size / 2)
    let received = 0
    client.on('data', (chunk: Buffer) => (received += chunk.length)).resume()
    await until(() => received > size)
    client.destroy()
  })
})
