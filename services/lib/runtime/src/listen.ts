import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https'
import { Server as TcpServer, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { SecureContextOptions } from 'node:tls'
import { problems } from '@haven/errors'
import { BodyWatch } from './body-watch.ts'
import { hasBody } from './body.ts'
import { defaultLimits, type Limits } from './limits.ts'
import { lingerAfterEarlyAnswer } from './linger.ts'
import { answerPlainly, endPlainly, isClientHello } from './plain-answers.ts'
import type { RequestHandler } from './service.ts'
import type { Shortcut } from './shortcut.ts'
import { Wire } from './wire.ts'

/** How long our own agents keep an idle connection to a service: less than a service that is asked to stop leaves it open. */
export const AGENT_IDLE_MS = 4_000
/**
 * To close a kept connection is to lose the request that is on its way over it, and few requests may be sent twice. So in a drain an idle
 * connection stays for as long as our own agents would keep it: its client closes it, or is told to by the answer to its next request.
 */
const DRAIN_IDLE_MS = 5_000
/** In a drain, how often streams without an end are looked for: others may yet begin over connections that were kept. */
const END_STREAMS_EVERY_MS = 200
/** Accepted beyond `maxConnections` to be told so; Node drops what is over its own count without a word. */
const CONNECTIONS_TO_REFUSE = 256
/** Of reads from a socket: larger ones than Node's are fewer turns for an upload. */
const READ_BYTES = 256 * 1024
const BACKLOG = 1024

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

/**
 * Serves `handler` within the limits. Nothing that a connection does reaches the process as an unhandled error.
 * @throws problems.portInUse
 */
export async function listen(handler: RequestHandler, options: ListenOptions): Promise<Listening> {
  const port = new HttpPort(handler, options)
  await port.open()
  return port
}

class HttpPort implements Listening {
  readonly #handler: RequestHandler
  readonly #options: ListenOptions
  readonly #limits: Limits
  readonly #server: Server | TlsServer
  readonly #wire: Wire | null
  readonly #bodies: BodyWatch
  /** The answer that each connection is busy with. */
  readonly #answering = new Map<Duplex, ServerResponse>()
  readonly #perAddress = new Map<string, number>()
  /** Whatever else comes on these is not answered. */
  readonly #refused = new WeakSet<Duplex>()
  #port = 0
  #connections = 0
  #draining = false
  #idleMayStay = true

  constructor(handler: RequestHandler, options: ListenOptions) {
    const limits: Limits = { ...defaultLimits, ...options.limits }
    const { shortcut, tls } = options
    this.#handler = handler
    this.#options = options
    this.#limits = limits
    this.#server = serverOf(limits, tls)
    this.#bodies = new BodyWatch(limits)
    this.#wire = shortcut
      ? new Wire({
          ...limits,
          shortcut,
          onError: (error) => options.onError?.(toError(error)),
          onQuiet: () => this.#closeIdle(),
        })
      : null
    this.#server.on('request', (req, res) => this.#onRequest(req, res))
    if (this.#wire) {
      this.#server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => this.#wire!.watch(socket))
    }
    this.#server.on('connection', (socket: Socket) => this.#onConnection(socket))
    this.#server.on('clientError', (error, socket) => this.#onClientError(error, socket))
    this.#server.on('tlsClientError', (_error: Error, socket: Socket) => socket.destroy())
    this.#server.on('connect', (_req, socket) => this.#onConnect(socket))
    this.#server.on('timeout', (socket) => this.#onTimeout(socket))
  }

  async open(): Promise<void> {
    const { host, port, reusePort = false, portSetting: setting } = this.#options
    const server = this.#server
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen({ host, port, backlog: BACKLOG, reusePort }, () => {
          server.off('error', reject)
          resolve()
        })
      })
    } catch (error) {
      this.#bodies[Symbol.dispose]()
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'EADDRINUSE' && code !== 'EACCES') throw error
      throw problems.portInUse({ host, port, ...(setting === undefined ? {} : { setting }) }, { cause: error })
    }
    this.#port = (server.address() as AddressInfo).port
    server.on('error', (error) => this.#options.onError?.(error))
  }

  get port(): number {
    return this.#port
  }

  get connections(): number {
    return this.#connections
  }

  setTls(tls: SecureContextOptions): void {
    if (!('setSecureContext' in this.#server)) throw new Error('this port does not speak TLS')
    this.#server.setSecureContext({ minVersion: 'TLSv1.2', ...tls })
  }

  async drain(ms: number): Promise<boolean> {
    this.#draining = true
    this.#wire?.close()
    for (const res of this.#answering.values()) if (!res.headersSent) res.shouldKeepAlive = false
    this.#endStreams()
    const streams = setInterval(() => this.#endStreams(), END_STREAMS_EVERY_MS)
    // Not http's own `close`, which ends idle connections at once.
    const closed = new Promise<void>((resolve) => TcpServer.prototype.close.call(this.#server, () => resolve()))
    const idle = setTimeout(
      () => {
        this.#idleMayStay = false
        this.#closeIdle()
      },
      Math.min(DRAIN_IDLE_MS, ms / 2),
    )
    const clean = await Promise.race([
      closed.then(() => true),
      new Promise<boolean>((resolve) => setTimeout(resolve, ms, false).unref()),
    ])
    clearTimeout(idle)
    clearInterval(streams)
    this.#server.closeAllConnections()
    if (!clean) await closed
    this.#server.close() // ends what http keeps beside the connections
    this.#bodies[Symbol.dispose]()
    return clean
  }

  #onRequest(req: IncomingMessage, res: ServerResponse): void {
    const { socket } = req
    req.on('error', ignoreClientGone)
    res.on('error', ignoreClientGone)
    // RFC 9112, 9.6: behind an answer that closes the connection nothing is served, not even what came in the same packet.
    if (this.#refused.has(socket) || !socket.writable || hasClosed(this.#answering.get(socket))) return
    if (this.#draining) res.shouldKeepAlive = false
    this.#wire?.began(req, res)
    this.#answering.set(socket, res)
    res.once('close', () => {
      if (this.#answering.get(socket) === res) this.#answering.delete(socket)
      if (!this.#idleMayStay) setImmediate(() => this.#closeIdle())
    })
    if (!req.complete && hasBody(req)) {
      this.#bodies.add(req, res)
      lingerAfterEarlyAnswer(req, res, {
        limits: this.#limits.linger,
        mayKeepAlive: () => !this.#draining,
        onLinger: () => this.#refused.add(socket),
      })
    }
    if (req.rawHeaders.length > 2 * this.#limits.maxHeaders) return answerPlainly(res, 431)
    try {
      this.#handler(req, res)
    } catch (error) {
      // A handler answers its own errors; this one is a bug, and only its request may suffer.
      this.#options.onError?.(toError(error))
      if (res.headersSent) res.destroy()
      else answerPlainly(res, 500)
    }
  }

  #onConnection(socket: Socket): void {
    const { maxConnections, maxConnectionsPerAddress } = this.#limits
    const address = socket.remoteAddress ?? ''
    const count = (this.#perAddress.get(address) ?? 0) + 1
    this.#perAddress.set(address, count)
    this.#connections += 1
    socket.on('error', ignoreClientGone)
    socket.once('close', () => {
      this.#connections -= 1
      const left = this.#perAddress.get(address)! - 1
      if (left === 0) this.#perAddress.delete(address)
      else this.#perAddress.set(address, left)
    })
    if (count <= maxConnectionsPerAddress && this.#connections <= maxConnections) return
    this.#refused.add(socket)
    if (this.#options.tls) socket.destroy()
    else endPlainly(socket, 503, { headers: 'Retry-After: 5\r\n' })
  }

  /** Node's parser, or its clock, gives up. */
  #onClientError(error: NodeJS.ErrnoException & { rawPacket?: Buffer }, socket: Duplex): void {
    if (this.#refused.has(socket)) return
    if (!socket.writable || this.#answering.get(socket)?.headersSent || error.code === 'ECONNRESET') {
      socket.destroy()
    } else if (error.code === 'HPE_HEADER_OVERFLOW') endPlainly(socket, 431)
    else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') endPlainly(socket, 408)
    else if (isClientHello(error.rawPacket)) {
      endPlainly(socket, 400, { body: 'Client sent an HTTPS request to an HTTP server.\n' })
    } else endPlainly(socket, 400)
  }

  /** The method CONNECT, which has no parser and no answer of Node's. */
  #onConnect(socket: Duplex): void {
    this.#wire?.forget(socket)
    socket.on('error', ignoreClientGone)
    endPlainly(socket, 405)
  }

  /** Node has seen no byte move for the whole time: a waiting write is a reader that does not read. */
  #onTimeout(socket: Socket): void {
    const { keepAliveMs, stalledReaderMs } = this.#limits
    if (this.#wire?.asks(socket)) socket.setTimeout(keepAliveMs)
    else if (!this.#answering.has(socket) || socket.writableLength > 0) socket.destroy()
    else socket.setTimeout(stalledReaderMs)
  }

  /** Those have no end of their own, and their clients come back for the rest. */
  #endStreams(): void {
    for (const res of this.#answering.values()) {
      if (res.headersSent && res.getHeader('content-type') === 'text/event-stream') res.end()
    }
  }

  #closeIdle(): void {
    if (!this.#idleMayStay && !this.#wire?.busy) this.#server.closeIdleConnections()
  }
}

function serverOf(limits: Limits, tls: SecureContextOptions | undefined): Server | TlsServer {
  const options = {
    maxHeaderSize: limits.maxHeaderBytes,
    headersTimeout: limits.headersTimeoutMs,
    // Node's rule would end any upload of more than five minutes; `BodyWatch` has rules of its own.
    requestTimeout: 0,
    connectionsCheckingInterval: Math.max(50, Math.min(5_000, limits.headersTimeoutMs / 4)),
    keepAliveTimeout: limits.keepAliveMs,
    requireHostHeader: true,
    noDelay: true,
    highWaterMark: READ_BYTES,
  }
  const handshakeTimeout = limits.headersTimeoutMs
  const server = tls
    ? createTlsServer({ ...options, ...tls, minVersion: 'TLSv1.2', handshakeTimeout })
    : createServer(options)
  // Node drops what is over this count without a word; the request is refused instead.
  server.maxHeadersCount = 0
  server.maxConnections = limits.maxConnections + CONNECTIONS_TO_REFUSE
  server.timeout = limits.stalledReaderMs
  return server
}

const toError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)))

const hasClosed = (res: ServerResponse | undefined) =>
  res?.headersSent === true && (!res.shouldKeepAlive || res.getHeader('connection') === 'close')

// A client may leave at any moment; whoever waits for the stream learns it from the stream.
function ignoreClientGone(): void {}
