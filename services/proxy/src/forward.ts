import { Agent, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Problem } from '@haven/errors'
import { harborEnvelope, ociEnvelope, problems } from '@haven/errors'
import { AGENT_IDLE_MS, internalHeaders, sendProblem, type Logger } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'
import httpProxy from 'http-proxy'
import { handOver, parseHandOver } from './hand-over.ts'
import { outboundHeaders } from './headers.ts'
import { mayRepeat } from './may-repeat.ts'

/** What the proxy vouches for towards a service. */
export interface Vouched {
  readonly requestId: string
  readonly clientAddress: string
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly log: Logger
}

export interface ForwardOptions {
  readonly name: string
  readonly url: string
  readonly secret: string
  readonly storage: BlobStorage | null
  /** Without a byte from the service for this long, the request is given up. */
  readonly answerWithinMs: number
}

const RETRY_AFTER_SECONDS = 2
/** Of two processes one of which has died, a new connection finds either until its address is taken out of the balancer. */
const MAX_REPEATS = 3

/** Sends requests to a service of another process, over connections that are kept. */
export class Forwarder implements Disposable {
  readonly #options: ForwardOptions
  readonly #agent: Agent
  readonly #proxy: httpProxy
  readonly #vouched = new WeakMap<IncomingMessage, Vouched>()
  readonly #repeats = new WeakMap<IncomingMessage, number>()

  constructor(options: ForwardOptions) {
    this.#options = options
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1024, maxFreeSockets: 64, timeout: AGENT_IDLE_MS })
    this.#proxy = httpProxy.createProxyServer({
      target: options.url,
      agent: this.#agent,
      selfHandleResponse: true,
      proxyTimeout: options.answerWithinMs,
    })
    this.#proxy.on('proxyReq', (upstream, _req, res) => {
      // http-proxy watches the request only, which says nothing any more once its body is here.
      res.once('close', () => {
        if (!res.writableFinished) upstream.destroy()
      })
    })
    this.#proxy.on('proxyRes', (upstream, req, res) => this.#answer(upstream, req, res))
    this.#proxy.on('error', (error, req, res) => this.#failed(error, req, res as ServerResponse))
    // Client gone before the service answered: nobody is left to tell.
    this.#proxy.on('econnreset', () => {})
  }

  forward(req: IncomingMessage, res: ServerResponse, vouched: Vouched): void {
    const { headers } = req
    const { secret, storage } = this.#options
    delete headers.expect
    headers[internalHeaders.proxy] = secret
    if (storage) headers[internalHeaders.canSend] = '1'
    headers['x-request-id'] = vouched.requestId
    headers['x-forwarded-for'] = vouched.clientAddress
    headers['x-forwarded-proto'] = vouched.scheme
    headers['x-forwarded-host'] = vouched.host
    // Without it http-proxy would pass the client's wish on; the connection to the service is ours.
    headers.connection = 'keep-alive'
    this.#vouched.set(req, vouched)
    this.#proxy.web(req, res)
  }

  [Symbol.dispose](): void {
    this.#proxy.close()
    this.#agent.destroy()
  }

  #answer(upstream: IncomingMessage, req: IncomingMessage, res: ServerResponse): void {
    const { log } = this.#vouched.get(req)!
    // A service that dies in the middle must not leave a body that looks whole.
    upstream.on('error', (err) => {
      if (!res.destroyed) log.warn({ err, to: this.#options.name }, 'a service broke off its answer')
      res.destroy()
    })
    if (res.destroyed) {
      upstream.destroy()
      return
    }
    const order = upstream.headers[internalHeaders.send]
    res.statusCode = upstream.statusCode ?? 502
    if (order === undefined) {
      res.writeHead(res.statusCode, outboundHeaders(upstream))
      upstream.pipe(res)
      return
    }
    upstream.resume()
    const storage = this.#options.storage
    const wanted = parseHandOver(order)
    if (storage === null || wanted === null || wanted.store !== storage.name) {
      log.error({ to: this.#options.name, store: wanted?.store }, 'a service handed over what cannot be read here')
      sendProblem(req, res, problems.badGateway({}), ociEnvelope)
      return
    }
    // The service's own length is that of its empty body.
    const headers = outboundHeaders(upstream, contentLength)
    const own = new Set(res.getHeaderNames())
    for (let i = 0; i < headers.length; i += 2) res.appendHeader(headers[i]!, headers[i + 1]!)
    res.setHeader('Content-Length', wanted.length)
    void handOver(req, res, storage, wanted, log, () => {
      for (const name of res.getHeaderNames()) if (!own.has(name)) res.removeHeader(name)
      delete req.headers[internalHeaders.canSend]
      this.#proxy.web(req, res)
    })
  }

  #failed(error: NodeJS.ErrnoException, req: IncomingMessage, res: ServerResponse): void {
    if (res.destroyed || res.writableEnded) return
    const { log } = this.#vouched.get(req)!
    const { name } = this.#options
    if (res.headersSent) {
      log.warn({ err: error, to: name }, 'a service broke off its answer')
      res.destroy()
      return
    }
    const repeats = this.#repeats.get(req) ?? 0
    if (repeats < MAX_REPEATS && mayRepeat(req, error)) {
      this.#repeats.set(req, repeats + 1)
      this.#proxy.web(req, res)
      return
    }
    log.error({ err: error, to: name }, 'a service cannot be reached')
    const away = error.code === 'ECONNREFUSED' || error.code === 'ENOENT' || error.code === 'ENOTFOUND'
    const problem: Problem = away
      ? problems.serviceUnavailable({ retryAfterSeconds: RETRY_AFTER_SECONDS })
      : problems.badGateway({}, { headers: { 'Retry-After': String(RETRY_AFTER_SECONDS) } })
    sendProblem(req, res, problem, name === 'registry' ? ociEnvelope : harborEnvelope)
  }
}

const contentLength: ReadonlySet<string> = new Set(['content-length'])
