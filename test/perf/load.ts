import { createHash, randomBytes, type Hash } from 'node:crypto'
import { Agent, request } from 'node:http'
import { connect } from 'node:net'

/** One load on one subject: run in a process of its own, so that its CPU is not the server's. */
export type Load = {
  port: number
  headers: Record<string, string>
  connections: number
  seconds: number
} & (
  | {
      kind: 'read'
      method: 'GET' | 'HEAD'
      path: string
      /** What each answer must say its length is. */
      bytes: number
      /** What the first body of each connection must sum up to (SHA-256, hex); null for HEAD. */
      sha256: string | null
    }
  | { kind: 'push'; repository: string; bytes: number }
)

export type LoadResult = { operations: number; bytes: number; seconds: number; p50Ms: number; p99Ms: number }

/**
 * Runs the load for its time, and at least one operation a connection. Connecting, a first operation that is verified and what a lane
 * prepares are outside the clock; `onStart` is called when it starts.
 * @throws when an answer is not the expected one.
 */
export async function runLoad(load: Load, onStart: () => Promise<void>): Promise<LoadResult> {
  const latencies: number[] = []
  await using open = new AsyncDisposableStack()
  const lanes: Lane[] = []
  for (let n = 0; n < load.connections; n++) {
    const lane = open.use(load.kind === 'read' ? await readLane(load) : pushLane(load))
    await lane.prove()
    lanes.push(lane)
  }
  await onStart()
  const started = performance.now()
  const until = started + load.seconds * 1000
  await Promise.all(
    lanes.map(async (lane) => {
      do {
        const before = performance.now()
        await lane.once()
        latencies.push(performance.now() - before)
      } while (performance.now() < until)
    }),
  )
  const seconds = (performance.now() - started) / 1000
  latencies.sort((a, b) => a - b)
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!
  return {
    operations: latencies.length,
    bytes: latencies.length * load.bytes,
    seconds,
    p50Ms: at(0.5),
    p99Ms: at(0.99),
  }
}

type Lane = AsyncDisposable & {
  /** One operation, checked whole. */
  prove(): Promise<void>
  once(): Promise<void>
}

/**
 * Requests over one raw keep-alive socket: no HTTP client in the way. Of each answer the status and the length are checked; a server that
 * closes the connection fails the run, so keep-alive is what is measured.
 */
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
  let settle: { resolve: () => void; reject: (error: Error) => void } | null = null
  let head: Buffer | null = Buffer.alloc(0)
  let missing = 0
  let sum: Hash | null = null

  function onBytes(size: number, buffer: Uint8Array): boolean {
    let body = buffer.subarray(0, size)
    if (head) {
      head = head.byteLength === 0 ? Buffer.from(body) : Buffer.concat([head, body])
      const end = head.indexOf('\r\n\r\n')
      if (end < 0) return true
      const lines = head.toString('latin1', 0, end)
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(lines)?.[1] ?? -1)
      if (!lines.startsWith('HTTP/1.1 200 ') || length !== load.bytes) {
        settle?.reject(new Error(`${load.method} ${load.path} was answered ${lines}`))
        return true
      }
      missing = load.method === 'HEAD' ? 0 : length
      body = head.subarray(end + 4)
      head = null
    }
    sum?.update(body)
    missing -= body.byteLength
    if (missing <= 0) {
      head = Buffer.alloc(0)
      const done = settle
      settle = null
      done?.resolve()
    }
    return true
  }

  const once = () =>
    new Promise<void>((resolve, reject) => {
      settle = { resolve, reject }
      socket.write(text)
    })
  return {
    once,
    async prove() {
      if (load.sha256 !== null) sum = createHash('sha256')
      await once()
      if (sum && sum.digest('hex') !== load.sha256) throw new Error(`${load.path} brought other bytes`)
      sum = null
    },
    async [Symbol.asyncDispose]() {
      settle = null
      socket.destroy()
    },
  }
}

/** Whole pushes of a blob, as clients that know its digest do: POST for a location, one PUT with the bytes. Each blob is another one. */
function pushLane(load: Load & { kind: 'push' }): Lane {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const body = randomBytes(load.bytes)
  const saltAt = load.bytes - 16
  // Summed once; a blob differs in its last bytes, so its digest costs the client nothing while the clock runs.
  const prefix = createHash('sha256').update(body.subarray(0, saltAt))
  const next = () => {
    const salt = randomBytes(16)
    salt.copy(body, saltAt)
    return `sha256:${prefix.copy().update(salt).digest('hex')}`
  }
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
  const once = async () => {
    const digest = next()
    const location = await call('POST', `/v2/${load.repository}/blobs/uploads/`)
    const url = new URL(location, `http://127.0.0.1:${load.port}`)
    url.searchParams.set('digest', digest)
    await call('PUT', url.pathname + url.search, body)
    return digest
  }
  return {
    async prove() {
      const digest = await once()
      await call('HEAD', `/v2/${load.repository}/blobs/${digest}`)
    },
    async once() {
      await once()
    },
    async [Symbol.asyncDispose]() {
      agent.destroy()
    },
  }
}

if (process.send) {
  const tell = (message: object) => new Promise<void>((resolve) => void process.send!(message, () => resolve()))
  process.once('message', (load: Load) => {
    // The measuring process reads the counters before it lets the load begin.
    const onStart = async () => {
      const go = new Promise<void>((resolve) => void process.once('message', () => resolve()))
      await tell({ ready: true })
      await go
    }
    runLoad(load, onStart)
      .then(
        (result) => tell({ result }),
        (error: Error) => tell({ error: error.message }),
      )
      .finally(() => process.once('message', () => process.disconnect()))
  })
}
