import { Agent, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Problem } from '@haven/errors'
import { harborEnvelope, ociEnvelope, problems } from '@haven/errors'
import { AGENT_IDLE_MS, hasBody, internalHeaders, sendProblem, type Logger } from '@haven/runtime'
import { apiVersion } from '@haven/oci'
import type { BlobStorage } from '@haven/storage'
import httpProxy from 'http-proxy'
import type { Pool } from 'undici'
import { handOver, parseHandOver } from './hand-over.ts'
import { outboundHeaders } from './headers.ts'
import { mayRepeat } from './may-repeat.ts'
import { WholeAnswer } from './whole-answer.ts'
import { WithoutBody } from './without-body.ts'

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

/** A request on its way to a service. */
export interface Errand {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly vouched: Vouched
  repeats: number
}

/** What a service answered, whichever client read it. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
}

/** An answer with its body. */
export interface WholeReply extends Answer {
  readonly body: Buffer
}

const RETRY_AFTER_SECONDS = 2
/** Of two processes one of which has died, a new connection finds either until its address is taken out of the balancer. */
const MAX_REPEATS = 3
const MAX_CONNECTIONS = 1024

/**
 * Sends requests to a service of another process, over connections that are kept: those with a body through http-proxy, the others, which are
 * nearly all, through undici for half of the CPU (decision 0016).
 */
export class Forwarder implements Disposable {
  readonly #options: ForwardOptions
  readonly #agent: Agent
  readonly #proxy: httpProxy
  readonly #errands = new WeakMap<IncomingMessage, Errand>()
  /** Before the paths of requests, when the service is not at the root of its host. */
  readonly #base: string
  /** Null until it is loaded. */
  #pool: Pool | null = null
  #disposed = false

  constructor(options: ForwardOptions) {
    this.#options = options
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: MAX_CONNECTIONS,
      maxFreeSockets: 64,
      timeout: AGENT_IDLE_MS,
    })
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
    this.#proxy.on('proxyRes', (upstream, req) => this.#copy(upstream, this.#errands.get(req)!))
    this.#proxy.on('error', (error, req) => this.failed(this.#errands.get(req)!, error))
    // Client gone before the service answered: nobody is left to tell.
    this.#proxy.on('econnreset', () => {})
    this.#base = new URL(options.url).pathname.replace(/\/$/, '')
    void this.#loadPool()
  }

  forward(req: IncomingMessage, res: ServerResponse, vouched: Vouched): void {
    const { headers } = req
    delete headers.expect
    Object.assign(headers, this.vouchersOf(vouched))
    if (this.#options.storage) headers[internalHeaders.canSend] = '1'
    headers['x-request-id'] = vouched.requestId
    // Without it http-proxy would pass the client's wish on; the connection to the service is ours.
    headers.connection = 'keep-alive'
    this.#send({ req, res, vouched, repeats: 0 })
  }

  /** What the service believes because the proxy says it. */
  vouchersOf({ clientAddress, scheme, host }: Pick<Vouched, 'clientAddress' | 'scheme' | 'host'>) {
    return {
      [internalHeaders.proxy]: this.#options.secret,
      'x-forwarded-for': clientAddress,
      'x-forwarded-proto': scheme,
      'x-forwarded-host': host,
    }
  }

  /**
   * Asks for something without a body whose answer is short, and takes that as a whole. Null when the service gave none: `forward` asks again,
   * as may be done for a GET or HEAD, and says what is wrong.
   */
  ask(method: 'GET' | 'HEAD', target: string, headers: Record<string, string>): Promise<WholeReply | null> {
    return new Promise((resolve) => {
      if (!this.#pool) return resolve(null)
      this.#pool.dispatch({ method, path: this.#base + target, headers, reset: false }, new WholeAnswer(resolve))
    })
  }

  [Symbol.dispose](): void {
    this.#disposed = true
    this.#proxy.close()
    this.#agent.destroy()
    void this.#pool?.destroy()
  }

  /** Begins the answer to the client. False when the body of the service's answer is not the client's. */
  answered(errand: Errand, answer: Answer): boolean {
    const { req, res } = errand
    const { log } = errand.vouched
    const order = answer.headers[internalHeaders.send]
    res.statusCode = answer.status
    if (order === undefined) {
      res.writeHead(res.statusCode, outboundHeaders(answer))
      return true
    }
    const storage = this.#options.storage
    const wanted = parseHandOver(order)
    if (storage === null || wanted === null || wanted.store !== storage.name) {
      log.error({ to: this.#options.name, store: wanted?.store }, 'a service handed over what cannot be read here')
      sendProblem(req, res, problems.badGateway({}), ociEnvelope)
      return false
    }
    // The service's own length is that of its empty body.
    const headers = outboundHeaders(answer, contentLength)
    const own = new Set(res.getHeaderNames())
    for (let i = 0; i < headers.length; i += 2) res.appendHeader(headers[i]!, headers[i + 1]!)
    res.setHeader('Content-Length', wanted.length)
    void handOver(req, res, storage, wanted, log, () => {
      for (const name of res.getHeaderNames()) if (!own.has(name)) res.removeHeader(name)
      delete req.headers[internalHeaders.canSend]
      this.#send(errand)
    })
    return false
  }

  /** The service gave no answer, or not all of it. */
  failed(errand: Errand, error: NodeJS.ErrnoException): void {
    const { req, res, vouched } = errand
    if (res.destroyed || res.writableEnded) return
    const { log } = vouched
    const { name } = this.#options
    if (res.headersSent) {
      // A service that dies in the middle must not leave a body that looks whole.
      log.warn({ err: error, to: name }, 'a service broke off its answer')
      res.destroy()
      return
    }
    if (errand.repeats < MAX_REPEATS && mayRepeat(req, error)) {
      errand.repeats += 1
      this.#send(errand)
      return
    }
    log.error({ err: error, to: name }, 'a service cannot be reached')
    const away = error.code === 'ECONNREFUSED' || error.code === 'ENOENT' || error.code === 'ENOTFOUND'
    const problem: Problem = away
      ? problems.serviceUnavailable({ retryAfterSeconds: RETRY_AFTER_SECONDS })
      : problems.badGateway({}, { headers: { 'Retry-After': String(RETRY_AFTER_SECONDS) } })
    if (name === 'registry') res.setHeader(...apiVersion)
    sendProblem(req, res, problem, name === 'registry' ? ociEnvelope : harborEnvelope)
  }

  /** Loaded here and not with the module: it takes 15 MiB, and a process that has the services itself has nothing to forward. */
  async #loadPool(): Promise<void> {
    // By its default: in the images it is bundled, and then a package in CommonJS has no other names.
    const { Pool } = (await import('undici')).default
    if (this.#disposed) return
    const { url, answerWithinMs } = this.#options
    this.#pool = new Pool(new URL(url).origin, {
      connections: MAX_CONNECTIONS,
      // One request at a time, so that none waits for another's answer, or is lost with it.
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: AGENT_IDLE_MS,
      keepAliveMaxTimeout: AGENT_IDLE_MS,
      headersTimeout: answerWithinMs,
      bodyTimeout: answerWithinMs,
    })
  }

  #send(errand: Errand): void {
    const { req, res } = errand
    const { method = '', url = '', headers } = req
    if (this.#pool && (method === 'GET' || method === 'HEAD') && !hasBody(req)) {
      // `reset`: undici would close the connection after each HEAD, for servers that send a body all the same.
      this.#pool.dispatch({ method, path: this.#base + url, headers, reset: false }, new WithoutBody(this, errand))
    } else {
      this.#errands.set(req, errand)
      this.#proxy.web(req, res)
    }
  }

  #copy(upstream: IncomingMessage, errand: Errand): void {
    const { res } = errand
    upstream.on('error', (error) => this.failed(errand, error))
    if (res.destroyed) {
      upstream.destroy()
      return
    }
    const { statusCode: status = 502, headers, rawHeaders } = upstream
    if (this.answered(errand, { status, headers, rawHeaders })) upstream.pipe(res)
    else upstream.resume()
  }
}

const contentLength: ReadonlySet<string> = new Set(['content-length'])
