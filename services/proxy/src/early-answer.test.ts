import { request } from 'node:http'
import { connect } from 'node:net'
import { describe, expect, it } from '@jest/globals'
import { ociEnvelope, problems } from '@haven/errors'
import { createLogger, createMetrics, enter, listen, sendProblem, type RequestHandler } from '@haven/runtime'
import { MemoryStorage } from '@haven/storage'
import { openDoor } from './door.ts'
import { createProxy } from './service.ts'

const MiB = 1024 * 1024
const SECRET = 'the proxy is the proxy is the proxy'
const log = createLogger({ service: 'test', level: 'silent' })
const metrics = createMetrics()

/** A registry that refuses an upload, at once or after its first MiB. */
const refusing: RequestHandler = (req, res) => {
  enter(req, res, { name: 'registry', log, metrics, trust: { proxySecret: SECRET } })
  const refuse = () =>
    sendProblem(req, res, problems.denied({ message: 'requested access to the resource is denied' }), ociEnvelope)
  if (req.url!.endsWith('/1')) return refuse()
  let seen = 0
  req.on('data', (chunk: Buffer) => {
    seen += chunk.length
    if (seen < MiB || res.headersSent) return
    req.pause()
    refuse()
  })
}

async function door(shape: 'one process' | 'split') {
  const behind = shape === 'split' ? await listen(refusing, { host: '127.0.0.1', port: 0 }) : null
  const registry = behind ? `http://127.0.0.1:${behind.port}` : refusing
  const proxy = createProxy({
    targets: { registry, token: refusing, core: refusing },
    storage: new MemoryStorage(),
    secret: SECRET,
    log,
    metrics,
    portalFolder: import.meta.dirname,
    ...(shape === 'one process' && { shortAnswer: () => null }),
  })
  const { handler, shortcut } = proxy
  const { port, listening } = await openDoor(handler, { host: '127.0.0.1', port: 0, log, shortcut })
  return {
    port: port!,
    connections: () => [...listening, ...(behind ? [behind] : [])].reduce((sum, each) => sum + each.connections, 0),
    async stop() {
      await Promise.all([...listening, ...(behind ? [behind] : [])].map((each) => each.drain(100)))
      await proxy[Symbol.asyncDispose]()
    },
  }
}

describe.each(['one process', 'split'] as const)('a refusal in the middle of a large upload, %s', (shape) => {
  it.each(['1', '2'])(
    'reaches a client that sends 4 MiB before it looks, and leaves nothing behind (%s)',
    async (id) => {
      const at = await door(shape)
      for (let turn = 0; turn < 10; turn += 1) {
        const socket = connect({ host: '127.0.0.1', port: at.port, allowHalfOpen: true })
        socket.on('error', () => {})
        socket.pause()
        socket.write(`PATCH /v2/a/blobs/uploads/${id} HTTP/1.1\r\nHost: h\r\nContent-Length: ${1024 * MiB}\r\n\r\n`)
        let answer = ''
        socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
        await new Promise<void>((resolve) => socket.write(Buffer.alloc(4 * MiB), () => resolve()))
        await new Promise((resolve) => socket.once('end', resolve).once('close', resolve).resume())
        expect(answer).toMatch(/^HTTP\/1.1 403 [\s\S]*Connection: close[\s\S]*"DENIED"[\s\S]*\]}$/)
        socket.destroy()
      }
      for (const end = Date.now() + 10_000; at.connections() > 0 && Date.now() < end;) {
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
      expect(at.connections()).toBe(0)
      await at.stop()
    },
  )

  it("reaches Node's client", async () => {
    const at = await door(shape)
    const status = await new Promise((resolve, reject) => {
      const options = { method: 'PATCH', headers: { 'Content-Length': 64 * MiB } }
      const sending = request(`http://127.0.0.1:${at.port}/v2/a/blobs/uploads/1`, options, (res) => {
        res.resume().once('end', () => resolve(res.statusCode))
      })
      sending.on('error', reject)
      sending.end(Buffer.alloc(64 * MiB))
    })
    expect(status).toBe(403)
    await at.stop()
  })
})
