import { createHash, randomBytes } from 'node:crypto'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'

/** One load on one subject: run in a process of its own, so that its CPU is not the server's. */
export type Load = {
  port: number
  headers: Record<string, string>
  connections: number
  seconds: number
} & ({ kind: 'read'; method: 'GET' | 'HEAD'; path: string } | { kind: 'push'; repository: string; bytes: number })

export type LoadResult = { operations: number; bytes: number; seconds: number; p50Ms: number; p99Ms: number }

/** Runs the load for its time and at least one operation a connection. @throws when an answer is not the expected success. */
export async function runLoad(load: Load): Promise<LoadResult> {
  const latencies: number[] = []
  let bytes = 0
  const started = performance.now()
  const until = started + load.seconds * 1000
  const lane = load.kind === 'read' ? readLane : pushLane
  await Promise.all(
    Array.from({ length: load.connections }, async () => {
      await using operation = await lane(load as never)
      do {
        const before = performance.now()
        bytes += await operation.once()
        latencies.push(performance.now() - before)
      } while (performance.now() < until)
    }),
  )
  const seconds = (performance.now() - started) / 1000
  latencies.sort((a, b) => a - b)
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!
  return { operations: latencies.length, bytes, seconds, p50Ms: at(0.5), p99Ms: at(0.99) }
}

type Lane = AsyncDisposable & { once(): Promise<number> }

/** Requests over one raw keep-alive socket: no HTTP client in the way, bodies are counted and dropped. */
async function readLane(load: Load & { kind: 'read' }): Promise<Lane> {
  const socket = connect({
    port: load.port,
    host: '127.0.0.1',
    onread: { buffer: Buffer.alloc(1 << 20), callback: onBytes },
  })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  socket.on('error', (error) => settle?.reject(error))
  socket.on('close', () => settle?.reject(new Error('the server closed the connection')))
  const text = [
    `${load.method} ${load.path} HTTP/1.1`,
    `Host: 127.0.0.1:${load.port}`,
    ...Object.entries(load.headers).map(([name, value]) => `${name}: ${value}`),
    '\r\n',
  ].join('\r\n')
  let settle: { resolve: (bytes: number) => void; reject: (error: Error) => void } | null = null
  let head: Buffer | null = Buffer.alloc(0)
  let missing = 0
  let length = 0

  function onBytes(size: number, buffer: Uint8Array): boolean {
    let body = size
    if (head) {
      head = Buffer.concat([head, buffer.subarray(0, size)])
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) return true
      const lines = head.toString('latin1', 0, end)
      if (!/^HTTP\/1\.1 20[06]/.test(lines)) settle?.reject(new Error(lines.split('\r\n')[0]))
      length = load.method === 'HEAD' ? 0 : Number(/\r\ncontent-length: (\d+)/i.exec(lines)?.[1] ?? 0)
      missing = length
      body = head.byteLength - end - 4
      head = null
    }
    missing -= body
    if (missing <= 0) {
      head = Buffer.alloc(0)
      const done = settle
      settle = null
      done?.resolve(length)
    }
    return true
  }

  return {
    once: () =>
      new Promise((resolve, reject) => {
        settle = { resolve, reject }
        socket.write(text)
      }),
    async [Symbol.asyncDispose]() {
      settle = null
      socket.destroy()
    },
  }
}

/** Whole pushes of a blob: POST for a location, one PUT with the bytes. The digest is made outside the clock's busy part: once a lane, then patched. */
async function pushLane(load: Load & { kind: 'push' }): Promise<Lane> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const body = randomBytes(load.bytes)
  const prepared = Array.from({ length: 64 }, () => {
    const salt = randomBytes(16)
    const hash = createHash('sha256').update(salt).update(body.subarray(16))
    return { salt, digest: `sha256:${hash.digest('hex')}` }
  })
  const call = (method: string, path: string, payload?: Buffer) =>
    new Promise<string>((resolve, reject) => {
      const headers = {
        ...load.headers,
        'content-length': String(payload?.byteLength ?? 0),
        ...(payload ? { 'content-type': 'application/octet-stream' } : {}),
      }
      const outgoing = request({ agent, host: '127.0.0.1', port: load.port, method, path, headers }, (answer) => {
        answer.resume()
        answer.once('end', () => {
          if ((answer.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${answer.statusCode}`))
          else resolve(answer.headers.location ?? '')
        })
      })
      outgoing.once('error', reject)
      outgoing.end(payload)
    })
  let next = 0
  return {
    async once() {
      const blob = prepared[next++]
      if (!blob) throw new Error('the run outlasted its prepared blobs')
      blob.salt.copy(body)
      const location = await call('POST', `/v2/${load.repository}/blobs/uploads/`)
      const url = new URL(location, `http://127.0.0.1:${load.port}`)
      url.searchParams.set('digest', blob.digest)
      await call('PUT', url.pathname + url.search, body)
      return load.bytes
    },
    async [Symbol.asyncDispose]() {
      agent.destroy()
    },
  }
}

if (process.send) {
  process.once('message', (load: Load) => {
    runLoad(load).then(
      (result) => process.send?.({ result }, () => process.disconnect()),
      (error: Error) => process.send?.({ error: error.message }, () => process.disconnect()),
    )
  })
}
