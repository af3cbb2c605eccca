import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { Server as TcpServer, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SecureContextOptions } from 'node:tls'
import { problems } from '@haven/errors'
import { awaitsReader } from './body-intake.ts'
import { lingerAfterEarlyAnswer, type LingerLimits } from './linger.ts'
import type { RequestHandler } from './service.ts'
import type { Shortcut } from './shortcut.ts'
import { Wire } from './wire.ts'

/** Threats.md §5. */
export interface Limits {
  /** Request line and headers together; beyond: 431. */
  readonly maxHeaderBytes: number
  readonly maxHeaders: number
  /** From the first byte of a connection or request to the end of its headers; beyond: 408. */
  readonly headersTimeoutMs: number
  /** For the whole body of a request that is no upload; beyond: 408. */
  readonly bodyTimeoutMs: number
  /** An upload must bring this much in each window; below: 408. */
  readonly uploadRate: { readonly bytesPerSecond: number; readonly windowMs: number }
  /** What is read and dropped of a body that was answered before its end, so that the client sees the answer. */
  readonly linger: LingerLimits
  /** A reader that takes nothing of a waiting answer for this long is cut off. */
  readonly stalledReaderMs: number
  /** Idle time between requests. Longer than the idle time of whoever keeps connections to us. */
  readonly keepAliveMs: number
  readonly maxConnections: number
  /** For one address; beyond: 503. Only where the address is the client's, that is at the door. */
  readonly maxConnectionsPerAddress: number
  /** Whether the body of a request may take as long as it keeps its rate. */
  readonly isUpload: (req: IncomingMessage) => boolean
}

/** How long our own agents keep an idle connection to a service: less than a service that is asked to stop leaves it open. */
export const AGENT_IDLE_MS = 4_000
/**
 * To close a kept connection is to lose the request that is on its way over it, and few requests may be sent twice. So in a drain an idle
 * connection stays for as long as our own agents would keep it: its client closes it, or is told to by the answer to its next request.
 */
const DRAIN_IDLE_MS = 5_000

export const defaultLimits: Limits = {
  maxHeaderBytes: 16 * 1024,
  maxHeaders: 100,
  headersTimeoutMs: 20_000,
  bodyTimeoutMs: 60_000,
  uploadRate: { bytesPerSecond: 1024, windowMs: 60_000 },
  linger: { bytes: 32 * 1024 * 1024, ms: 5_000 },
  stalledReaderMs: 60_000,
  keepAliveMs: 75_000,
  maxConnections: 8192,
  maxConnectionsPerAddress: Infinity,
  isUpload: (req) => (req.url ?? '').startsWith('/v2/') && (req.url ?? '').includes('/blobs/uploads/'),
}

export interface ListenOptions {
  readonly host: string
  readonly port: number
  /** Answers what it can from memory, before `handler` is asked. */
  readonly shortcut?: Shortcut | undefined
  readonly limits?: Partial<Limits>
  /** Several processes of one installation accept on the same port. */
  readonly reusePort?: boolean
  /** With it the port speaks TLS. */
  readonly tls?: SecureContextOptions
  /** Called when the server itself fails after it has begun. */
  readonly onError?: (error: Error) => void
  /** The setting that chooses the port, for the message when it is taken. */
  readonly portSetting?: string
}

export interface Listening {
  readonly port: number
  /** Changes the certificate for connections to come. */
  setTls(tls: SecureContextOptions): void
  readonly connections: number
  /** Stops accepting, lets what was accepted finish for up to `ms`, then cuts. True when no request had to be cut. */
  drain(ms: number): Promise<boolean>
}

interface OpenRequest {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly upload: boolean
  windowStart: number
  windowBytes: number
}

/**
 * Serves `handler` within the limits. Nothing that a connection does reaches the process as an unhandled error.
 * @throws problems.portInUse
 */
export async function listen(handler: RequestHandler, options: ListenOptions): Promise<Listening> {
  const limits: Limits = { ...defaultLimits, ...options.limits }
  const answering = new Map<Duplex, ServerResponse>()
  const bodies = new Set<OpenRequest>()
  const perAddress = new Map<string, number>()
  const refused = new WeakSet<Duplex>()
  const toError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)))
  const { shortcut } = options
  const wire = shortcut
    ? new Wire({
        ...limits,
        shortcut,
        onError: (error) => options.onError?.(toError(error)),
        onQuiet: () => closeIdle(),
      })
    : null
  let connections = 0
  let draining = false
  let idleMayStay = true

  const serverOptions = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    // Node's rule would end any upload of more than five minutes; the sweep below has rules of its own.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.max(50, Math.min(5000, limits.headersTimeoutMs / 4)),
    keepAliveTimeout: limits.keepAliveMs,
    requireHostHeader: true,
    noDelay: true,
    // Larger socket reads into the parser: fewer turns for an upload.
    highWaterMark: 256 * 1024,
  }
  const onRequest = (req: IncomingMessage, res: ServerResponse) => {
    const { socket } = req
    req.on('error', ignoreClientGone)
    res.on('error', ignoreClientGone)
    // RFC 9112, 9.6: behind an answer that closes the connection nothing is served, not even what came in the same packet.
    if (refused.has(socket) || !socket.writable || hasClosed(answering.get(socket))) return
    if (draining) res.shouldKeepAlive = false
    wire?.began(req, res)
    answering.set(socket, res)
    res.once('close', () => {
      if (answering.get(socket) === res) answering.delete(socket)
      if (!idleMayStay) setImmediate(closeIdle)
    })
    if (!req.complete && hasBody(req)) {
      const upload = limits.isUpload(req)
      bodies.add({ req, res, upload, windowStart: Date.now(), windowBytes: socket.bytesRead })
      lingerAfterEarlyAnswer(req, res, {
        limits: limits.linger,
        mayKeepAlive: () => !draining,
        onLinger: () => refused.add(socket),
      })
    }
    if (req.rawHeaders.length > 2 * limits.maxHeaders) return answerPlainly(res, 431)
    try {
      handler(req, res)
    } catch (error) {
      // A handler answers its own errors; this one is a bug, and only its request may suffer.
      options.onError?.(toError(error))
      if (res.headersSent) res.destroy()
      else answerPlainly(res, 500)
    }
  }
  const server: Server = options.tls
    ? createTlsServer({
        ...serverOptions,
        ...options.tls,
        minVersion: 'TLSv1.2',
        handshakeTimeout: limits.headersTimeoutMs,
      })
    : createServer(serverOptions)
  const closeIdle = () => {
    if (!idleMayStay && !wire?.busy) server.closeIdleConnections()
  }
  // Node drops what is over this count without a word; the request is refused above instead.
  server.maxHeadersCount = 0
  server.maxConnections = limits.maxConnections + 256
  server.timeout = limits.stalledReaderMs

  server.on('request', onRequest)
  if (wire) server.on(options.tls ? 'secureConnection' : 'connection', (socket: Socket) => wire.watch(socket))
  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? ''
    const count = (perAddress.get(address) ?? 0) + 1
    perAddress.set(address, count)
    connections += 1
    socket.on('error', ignoreClientGone)
    socket.once('close', () => {
      connections -= 1
      const left = perAddress.get(address)! - 1
      if (left === 0) perAddress.delete(address)
      else perAddress.set(address, left)
    })
    if (count > limits.maxConnectionsPerAddress || connections > limits.maxConnections) {
      refused.add(socket)
      if (options.tls) socket.destroy()
      else endWith(socket, 503, { 'Retry-After': '5' })
    }
  })
  server.on('clientError', (error: NodeJS.ErrnoException & { rawPacket?: Buffer }, socket: Duplex) => {
    const res = answering.get(socket)
    if (refused.has(socket)) return
    if (!socket.writable || res?.headersSent || error.code === 'ECONNRESET') {
      socket.destroy()
      return
    }
    if (error.code === 'HPE_HEADER_OVERFLOW') endWith(socket, 431)
    else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') endWith(socket, 408)
    else if (isClientHello(error.rawPacket))
      endWith(socket, 400, {}, 'Client sent an HTTPS request to an HTTP server.\n')
    else endWith(socket, 400)
  })
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  server.on('connect', (_req, socket) => {
    wire?.forget(socket)
    socket.on('error', ignoreClientGone)
    endWith(socket, 405)
  })
  server.on('timeout', (socket) => {
    const res = answering.get(socket)
    // Node has seen no byte move for the whole time: a waiting write is a reader that does not read.
    if (wire?.asks(socket)) socket.setTimeout(limits.keepAliveMs)
    else if (!res || socket.writableLength > 0) socket.destroy()
    else socket.setTimeout(limits.stalledReaderMs)
  })

  const sweepMs = Math.max(20, Math.min(limits.bodyTimeoutMs, limits.uploadRate.windowMs, 4000) / 4)
  const sweep = setInterval(() => sweepBodies(bodies, limits), sweepMs)
  sweep.unref()

  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(
        { host: options.host, port: options.port, backlog: 1024, reusePort: options.reusePort ?? false },
        () => {
          server.off('error', reject)
          resolve()
        },
      )
    })
  } catch (error) {
    clearInterval(sweep)
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw error
    const { host, port, portSetting: setting } = options
    throw problems.portInUse({ host, port, ...(setting === undefined ? {} : { setting }) }, { cause: error })
  }
  server.on('error', (error) => options.onError?.(error))

  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return connections
    },
    setTls(tls) {
      if (!('setSecureContext' in server)) throw new Error('this port does not speak TLS')
      ;(server as ReturnType<typeof createTlsServer>).setSecureContext({ minVersion: 'TLSv1.2', ...tls })
    },
    async drain(ms) {
      draining = true
      wire?.close()
      for (const res of answering.values()) if (!res.headersSent) res.shouldKeepAlive = false
      // They have no end of their own, and their clients come back for the rest. Others may yet begin over connections that were kept.
      const endStreams = () => {
        for (const res of answering.values()) {
          if (res.headersSent && res.getHeader('content-type') === 'text/event-stream') res.end()
        }
      }
      endStreams()
      const streams = setInterval(endStreams, 200)
      // Not http's own `close`, which ends idle connections at once.
      const closed = new Promise<void>((resolve) => TcpServer.prototype.close.call(server, () => resolve()))
      const idle = setTimeout(
        () => {
          idleMayStay = false
          closeIdle()
        },
        Math.min(DRAIN_IDLE_MS, ms / 2),
      )
      const clean = await Promise.race([
        closed.then(() => true),
        new Promise<boolean>((resolve) => setTimeout(resolve, ms, false).unref()),
      ])
      clearTimeout(idle)
      clearInterval(streams)
      server.closeAllConnections()
      if (!clean) await closed
      server.close() // ends what http keeps beside the connections
      clearInterval(sweep)
      return clean
    },
  }
}

const hasClosed = (res: ServerResponse | undefined) =>
  res?.headersSent === true && (!res.shouldKeepAlive || res.getHeader('connection') === 'close')

function hasBody(req: IncomingMessage): boolean {
  return req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? 0) > 0
}

function sweepBodies(bodies: Set<OpenRequest>, limits: Limits): void {
  const now = Date.now()
  for (const open of bodies) {
    const { req, res, upload } = open
    const { socket } = req
    if (req.complete || socket.destroyed) {
      bodies.delete(open)
      continue
    }
    // Bytes that the handler has not asked for: the pace is ours.
    if (awaitsReader(req)) {
      open.windowStart = now
      open.windowBytes = socket.bytesRead
      continue
    }
    const elapsed = now - open.windowStart
    if (elapsed < (upload ? limits.uploadRate.windowMs : limits.bodyTimeoutMs)) continue
    const received = socket.bytesRead - open.windowBytes
    if (upload && received >= (limits.uploadRate.bytesPerSecond * elapsed) / 1000) {
      open.windowStart = now
      open.windowBytes = socket.bytesRead
      continue
    }
    bodies.delete(open)
    if (res.headersSent) socket.destroy()
    else {
      res.once('finish', () => req.destroy(problems.requestTimeout()))
      answerPlainly(res, 408)
    }
  }
}

/** Not the catalogue's envelope: who speaks no proper HTTP, or not in time, has no API surface yet. */
function answerPlainly(res: ServerResponse, status: number): void {
  const body = `${STATUS_CODES[status]}\n`
  res.shouldKeepAlive = false
  res.writeHead(status, {
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
  })
  res.end(body)
}

/** An answer for a connection whose requests cannot be read (any more). */
function endWith(socket: Duplex, status: number, headers: Record<string, string> = {}, body?: string): void {
  const text = body ?? `${STATUS_CODES[status]}\n`
  const lines = Object.entries({
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': String(Buffer.byteLength(text)),
    Connection: 'close',
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${text}`)
  // The other end may keep its half open for ever.
  setTimeout(() => socket.destroy(), 1000).unref()
}

function isClientHello(packet: Buffer | undefined): boolean {
  return packet?.[0] === 0x16 && packet[1] === 0x03
}

// A client may leave at any moment; whoever waits for the stream learns it from the stream.
function ignoreClientGone(): void {}
