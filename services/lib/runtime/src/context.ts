import { randomUUID, timingSafeEqual, createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
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
}

const contexts = new WeakMap<IncomingMessage, RequestContext>()

/** The context of a request that went through `enter` (as every request of `serviceApp` does). */
export function contextOf(req: IncomingMessage): RequestContext {
  const context = contexts.get(req)
  if (!context)
    throw new Error('the request has no context: its handler was not mounted behind enter() or serviceApp()')
  return context
}

/** A client's own request id, if it is harmless in logs and headers. */
export function saneRequestId(text: string | string[] | undefined): string | null {
  return typeof text === 'string' && /^[A-Za-z0-9._-]{1,128}$/.test(text) ? text : null
}

/** The address of the other end, IPv4 written as IPv4. */
export function socketAddress(req: IncomingMessage): string {
  const address = req.socket.remoteAddress ?? ''
  return address.startsWith('::ffff:') ? address.slice(7) : address
}

/** Called by the proxy before it calls a handler of its own process: the facts pass as values, not as headers. */
export function handOverRequest(
  req: IncomingMessage,
  facts: Pick<RequestContext, 'requestId' | 'clientAddress' | 'scheme' | 'host' | 'log'>,
): void {
  contexts.set(req, new Context({ ...facts, handOver: false }))
}

/**
 * Begins a request at a service: makes its context and counts it when its answer ends. Facts come from the proxy when it handed
 * the request over in this process or its headers prove that it sent them (in constant time); otherwise from the socket.
 */
export function enter(req: IncomingMessage, res: ServerResponse, gate: Gate): RequestContext {
  const given = contexts.get(req)
  const facts = given ?? (isProxy(req, gate.trust) ? fromProxy(req) : fromSocket(req))
  const context = new Context({ ...facts, log: gate.log })
  contexts.set(req, context)
  const startedAt = performance.now()
  res.once('close', () => {
    gate.metrics.observe({
      service: gate.name,
      method: req.method ?? '',
      route: context.route === 'none' ? expressRoute(req) : context.route,
      // 499, as nginx calls it: the client left before it had the answer.
      status: res.writableFinished ? res.statusCode : 499,
      seconds: (performance.now() - startedAt) / 1000,
    })
  })
  return context
}

/** The template that Express matched, as it leaves it on the request. */
function expressRoute(req: IncomingMessage): string {
  const { baseUrl, route } = req as { baseUrl?: unknown; route?: { path?: unknown } }
  return typeof route?.path === 'string' ? `${typeof baseUrl === 'string' ? baseUrl : ''}${route.path}` : 'none'
}

interface Facts {
  readonly requestId: string
  readonly clientAddress: string
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly handOver: boolean
}

class Context implements RequestContext {
  readonly requestId: string
  readonly clientAddress: string
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly handOver: boolean
  route = 'none'
  readonly #log: Logger
  #child: Logger | null = null

  constructor(facts: Facts & { log: Logger }) {
    this.requestId = facts.requestId
    this.clientAddress = facts.clientAddress
    this.scheme = facts.scheme
    this.host = facts.host
    this.handOver = facts.handOver
    this.#log = facts.log
  }

  // Most requests log nothing, and a child logger costs as much as a small request.
  get log(): Logger {
    return (this.#child ??= this.#log.child({ request: this.requestId }))
  }
}

function isProxy(req: IncomingMessage, trust: Trust): boolean {
  const shown = req.headers[internalHeaders.proxy]
  return typeof shown === 'string' && trust.proxySecret !== null && sameSecret(shown, trust.proxySecret)
}

/** Compares in a time that does not depend on where the texts differ, nor on their lengths (threats.md R8). */
export function sameSecret(shown: string, expected: string): boolean {
  if (expected.length === 0) return false
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(shown), digest(expected))
}

function fromProxy(req: IncomingMessage): Facts {
  const { headers } = req
  return {
    requestId: saneRequestId(headers['x-request-id']) ?? randomUUID(),
    clientAddress: String(headers['x-forwarded-for'] ?? ''),
    scheme: headers['x-forwarded-proto'] === 'https' ? 'https' : 'http',
    host: String(headers['x-forwarded-host'] ?? headers.host ?? ''),
    handOver: headers[internalHeaders.canSend] === '1',
  }
}

function fromSocket(req: IncomingMessage): Facts {
  return {
    requestId: saneRequestId(req.headers['x-request-id']) ?? randomUUID(),
    clientAddress: socketAddress(req),
    scheme: 'encrypted' in req.socket ? 'https' : 'http',
    host: req.headers.host ?? '',
    handOver: false,
  }
}
