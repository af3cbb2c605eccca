import { randomUUID, timingSafeEqual, createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { accessLog, type AccessLine } from './access-log.ts'
import type { Logger } from './logger.ts'
import type { Metrics } from './metrics.ts'

/** Headers between our own processes. The proxy drops all `x-haven-*` and the forwarding headers that come from outside. */
export const internalHeaders = {
  /** Proves that the proxy speaks. */
  proxy: 'x-haven-proxy',
  /** `1`: the proxy can read the blob store, so a service may answer with `send` instead of bytes. */
  canSend: 'x-haven-can-send',
  /**
   * In an answer: `<store> <key> <offset> <length>`, the body that the proxy is to send. The answer itself has an empty body and
   * says so (`Content-Length: 0`); the proxy sends `length` to the client.
   */
  send: 'x-haven-send',
} as const

/** How a service recognises its proxy. Null: no proxy is trusted, the socket's address is the client's. */
export interface Trust {
  readonly proxySecret: string | null
}

export interface RequestContext {
  readonly requestId: string
  readonly clientAddress: string
  readonly scheme: 'http' | 'https'
  /** The authority the client asked for. For showing, never for building links (threats.md R7). */
  readonly host: string
  /** Whether the body of a blob may be left to the proxy (`internalHeaders.send`). */
  readonly handOver: boolean
  /** Lines of this request. */
  readonly log: Logger
  /** Set by the handler to the template it matched; metrics name the request by it. */
  route: string
}

export interface Gate {
  readonly name: string
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
  /** Which requests leave a line in the service's own log, at info: `changes` are those but GET and HEAD, of which debug tells. Default `all`. */
  readonly tells?: 'all' | 'changes' | 'nothing'
  /** Of every answer of the service, as a list of names and values. */
  readonly headers?: readonly string[]
}

// On the request itself: with an entry in a WeakMap for each request the collector took a tenth of a small request.
const CONTEXT = Symbol('context')
type Carrier = IncomingMessage & { [CONTEXT]?: Context }

/** The context of a request that went through `enter` (as every request of `serviceApp` does). */
export function contextOf(req: IncomingMessage): RequestContext {
  const context = (req as Carrier)[CONTEXT]
  if (!context)
    throw new Error('the request has no context: its handler was not mounted behind enter() or serviceApp()')
  return context
}

/** A client's own request id, if it is harmless in logs and headers. */
export function saneRequestId(text: string | string[] | undefined): string | null {
  return typeof text === 'string' && /^[A-Za-z0-9._-]{1,128}$/.test(text) ? text : null
}

/** What an `Authorization` header shows as a bearer token, in the spelling of nearly all clients. */
export const bearerToken = (authorization: string | undefined): string | null =>
  authorization?.startsWith('Bearer ') ? authorization.slice('Bearer '.length) : null

/** The address of the other end, IPv4 written as IPv4. */
export function socketAddress({ socket }: Pick<IncomingMessage, 'socket'>): string {
  const address = socket.remoteAddress ?? ''
  return address.startsWith('::ffff:') ? address.slice(7) : address
}

/**
 * Called by the proxy before it calls a handler of its own process: the facts pass as values, not as headers.
 * @param headers of the answer, as a list of names and values; set when the service enters the request, unless it writes them itself.
 */
export function handOverRequest(
  req: IncomingMessage,
  facts: Pick<RequestContext, 'requestId' | 'clientAddress' | 'scheme' | 'host' | 'log'>,
  headers: readonly string[] = none,
): void {
  const { requestId, clientAddress, scheme, host, log } = facts
  ;(req as Carrier)[CONTEXT] = new Context(requestId, clientAddress, scheme, host, false, log, headers)
}

/**
 * Begins a request at a service: makes its context and counts it when its answer ends. Facts come from the proxy when it handed
 * the request over in this process or its headers prove that it sent them (in constant time); otherwise from the socket.
 */
export function enter(req: IncomingMessage, res: ServerResponse, gate: Gate): RequestContext {
  const context = enterDirectly(req, res, gate)
  settle(req, res)
  return context
}

/** Sets what `enterDirectly` left to do, for an answer that is written in another way. Once it is done there is nothing left. */
export function settle(req: IncomingMessage, res: ServerResponse): void {
  ;(contextOf(req) as Context).setHeaders(res)
}

/** Begins an answer that no header was set of, at once: setting one after the other and merging them costs four times as much. */
export function writeHead(req: IncomingMessage, res: ServerResponse, status: number, headers: HeaderList): void {
  res.writeHead(status, (contextOf(req) as Context).takeHeaders(headers))
}

/** As `enter`, for a handler that ends the request by `writeHead` or `settle`: the proxy's headers and the id are not set yet. */
export function enterDirectly(req: IncomingMessage, res: ServerResponse, gate: Gate): RequestContext {
  const given = (req as Carrier)[CONTEXT]
  const context =
    given ??
    (isProxy(req.headers[internalHeaders.proxy], gate.trust) ? fromProxy(req, gate.log) : fromSocket(req, gate.log))
  if (!given) (req as Carrier)[CONTEXT] = context
  context.adopt(gate)
  const startedAt = performance.now()
  const flying = gate.metrics.inFlight(gate.name)
  flying.now += 1
  const sentBefore = isTold(gate, req) ? req.socket.bytesWritten : null
  res.on('close', () => {
    flying.now -= 1
    const { method = '' } = req
    const route = routeOf(req)
    // 499, as nginx calls it: the client left before it had the answer.
    const status = res.writableFinished ? res.statusCode : 499
    const ms = performance.now() - startedAt
    gate.metrics.observe({ service: gate.name, method, route, status, seconds: ms / 1000 })
    if (sentBefore === null) return
    tellOf(gate, {
      request: context.requestId,
      client: context.clientAddress,
      method,
      url: req.url ?? '',
      status,
      bytes: req.socket.bytesWritten - sentBefore,
      ms: Math.round(ms * 1000) / 1000,
      to: route,
      agent: undefined,
    })
  })
  return context
}

function isTold({ log, tells = 'all' }: Gate, { method }: IncomingMessage): boolean {
  if (tells === 'all') return true
  if (tells === 'nothing') return false
  return (method !== 'GET' && method !== 'HEAD') || log.isLevelEnabled('debug')
}

const tellers = new WeakMap<Logger, (line: AccessLine) => void>()

function tellOf({ log }: Gate, line: AccessLine): void {
  let tell = tellers.get(log)
  if (!tell) tellers.set(log, (tell = accessLog(log)))
  tell(line)
}

/** The template that a request of a service matched, `none` before it did. */
export function routeOf(req: IncomingMessage): string {
  const route = (req as Carrier)[CONTEXT]?.route ?? 'none'
  return route === 'none' ? expressRoute(req) : route
}

/** The id of a request that has entered a service. */
export const requestIdOf = (req: IncomingMessage): string | undefined => (req as Carrier)[CONTEXT]?.requestId

/** The template that Express matched, as it leaves it on the request. */
function expressRoute(req: IncomingMessage): string {
  const { baseUrl, route } = req as { baseUrl?: unknown; route?: { path?: unknown } }
  return typeof route?.path === 'string' ? `${typeof baseUrl === 'string' ? baseUrl : ''}${route.path}` : 'none'
}

/** A name, then its value, and so on. */
export type HeaderList = (string | number | string[])[]

const none: readonly string[] = []

class Context implements RequestContext {
  readonly requestId: string
  readonly clientAddress: string
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly handOver: boolean
  route = 'none'
  #log: Logger
  #child: Logger | null = null
  #headers: readonly string[] | null
  #ofService: readonly string[] = none

  constructor(
    requestId: string,
    clientAddress: string,
    scheme: 'http' | 'https',
    host: string,
    handOver: boolean,
    log: Logger,
    headers: readonly string[],
  ) {
    this.requestId = requestId
    this.clientAddress = clientAddress
    this.scheme = scheme
    this.host = host
    this.handOver = handOver
    this.#log = log
    this.#headers = headers
  }

  // Most requests log nothing, and a child logger costs as much as a small request.
  get log(): Logger {
    return (this.#child ??= this.#log.child({ request: this.requestId }))
  }

  adopt({ log, headers = none }: Gate): void {
    this.#log = log
    this.#child = null
    this.#ofService = headers
  }

  setHeaders(res: ServerResponse): void {
    if (this.#headers === null) return
    const all = this.takeHeaders([])
    for (let i = 0; i < all.length; i += 2) res.setHeader(all[i] as string, all[i + 1]!)
  }

  takeHeaders(more: HeaderList): HeaderList {
    const headers = this.#headers
    if (headers === null) return more
    this.#headers = null
    const all: HeaderList = ['X-Request-Id', this.requestId]
    for (let i = 0; i < headers.length; i += 1) all.push(headers[i]!)
    for (let i = 0; i < this.#ofService.length; i += 1) all.push(this.#ofService[i]!)
    for (let i = 0; i < more.length; i += 1) all.push(more[i]!)
    return all
  }
}

export function isProxy(shown: string | string[] | undefined, trust: Trust): boolean {
  return typeof shown === 'string' && trust.proxySecret !== null && sameSecret(shown, trust.proxySecret)
}

/** Compares in a time that does not depend on where the texts differ, nor on their lengths (threats.md R8). */
export function sameSecret(shown: string, expected: string): boolean {
  if (expected.length === 0) return false
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(shown), digest(expected))
}

function fromProxy(req: IncomingMessage, log: Logger): Context {
  const { headers } = req
  return new Context(
    saneRequestId(headers['x-request-id']) ?? randomUUID(),
    String(headers['x-forwarded-for'] ?? ''),
    headers['x-forwarded-proto'] === 'https' ? 'https' : 'http',
    String(headers['x-forwarded-host'] ?? headers.host ?? ''),
    headers[internalHeaders.canSend] === '1',
    log,
    none,
  )
}

function fromSocket(req: IncomingMessage, log: Logger): Context {
  return new Context(
    saneRequestId(req.headers['x-request-id']) ?? randomUUID(),
    socketAddress(req),
    'encrypted' in req.socket ? 'https' : 'http',
    req.headers.host ?? '',
    false,
    log,
    none,
  )
}
