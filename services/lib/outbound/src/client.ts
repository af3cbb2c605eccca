import { X509Certificate } from 'node:crypto'
import { lookup as resolveName } from 'node:dns/promises'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { isIP, type LookupFunction, type Socket } from 'node:net'
import { pipeline, Readable } from 'node:stream'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { Problem, problems } from '@haven/errors'
import { AddressGuard, type AddressPolicy } from './addresses.ts'
import { answerBody, Silence, TooLong } from './answer-body.ts'
import { CircuitBreaker } from './breaker.ts'
import { connectTo, type DialTarget } from './dial.ts'

export type Resolve = (host: string) => Promise<readonly string[]>

export type OutboundOptions = AddressPolicy & {
  /** How names are resolved; the system's way unless given. */
  readonly resolve?: Resolve
  readonly userAgent?: string
  /** Milliseconds of a clock that never goes back. */
  readonly now?: () => number
}

export type OutboundRequest = {
  readonly url: string | URL
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  /** A stream is destroyed whatever happens. */
  readonly body?: string | Uint8Array | Readable
  readonly signal?: AbortSignal
  /** From the call to the end of the answer's body, in ms. Default 30 s; 0: no limit, for streamed blobs. */
  readonly totalMs?: number
  /** Longest time to connect, longest pause of a body either way, longest wait for the whole head of the answer. Default 10 s. */
  readonly idleMs?: number
  /** Longest body of the answer. Default 1 MiB. */
  readonly maxBytes?: number
  /** How many redirects are followed. Default 3. */
  readonly redirects?: number
  /** Accept a certificate that nobody known has signed. */
  readonly insecure?: boolean
  /** PEM certificates to trust beside the system's. */
  readonly ca?: string
}

export type OutboundResponse = {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  /** Where the answer came from, after redirects. */
  readonly url: URL
  /**
   * To be read or destroyed: until then the connection is open. Fails with problems.outboundFailed past `maxBytes`, after silence, and when
   * it ends before its Content-Length; with the signal's reason when the caller gave up.
   */
  readonly body: Readable
}

// Threats.md §5, "Outbound".
const TOTAL_MS = 30_000
const IDLE_MS = 10_000
const MAX_BYTES = 1024 * 1024
const MAX_REDIRECTS = 3
const MAX_HEADER_BYTES = 32 * 1024

/** One call with its redirects. */
type Call = { readonly request: OutboundRequest; readonly signal: AbortSignal; readonly idleMs: number }
/** What is sent to one place. */
type Hop = {
  readonly url: URL
  readonly method: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: OutboundRequest['body']
}

/**
 * The only way out (threats.md R11). On every hop, redirects included: the scheme is http or https, the name is resolved, every address it
 * has is checked, and the connection goes to a checked address, so that a name cannot change its mind in between. Credentials never follow
 * to another origin. Problems repeat nothing that the other side said.
 */
export class OutboundClient {
  readonly #guard: AddressGuard
  readonly #resolve: Resolve
  readonly #userAgent: string
  readonly #breaker: CircuitBreaker
  readonly #trust = new Map<string, SecureContext>()

  /** @throws problems.settingsInvalid for an `allow` or `ownAddresses` that cannot be read. */
  constructor(options: OutboundOptions) {
    this.#guard = new AddressGuard(options)
    this.#resolve = options.resolve ?? resolveAll
    this.#userAgent = options.userAgent ?? 'haven'
    this.#breaker = new CircuitBreaker(options.now ?? (() => performance.now()))
  }

  /**
   * Sends one request. Any status is an answer; redirects are followed.
   *
   * @throws problems.outboundRefused for an address that may not be reached, problems.outboundFailed for one that does not answer as it
   * should, problems.badRequest for a header that cannot be sent, and the reason of `signal` when that ended the call.
   */
  async request(request: OutboundRequest): Promise<OutboundResponse> {
    const { body, headers = {}, method = 'GET', idleMs = IDLE_MS } = request
    const call = { request, signal: deadline(request), idleMs }
    try {
      let hop: Hop = { url: parse(request.url), method, headers, body }
      for (let redirects = 0; ; redirects++) {
        const answer = await this.#send(call, hop)
        const next = redirectOf(answer, hop)
        if (next === null) return respond(call, hop, answer)
        answer.destroy()
        if (redirects >= (request.redirects ?? MAX_REDIRECTS)) throw failed(hop.url, 'too many redirects')
        hop = next
      }
    } catch (error) {
      if (body instanceof Readable) body.destroy()
      throw error
    }
  }

  /**
   * Opens a connection for a protocol other than HTTP, by the same rule but that private networks are allowed. Resolves when it is open,
   * with TLS when its handshake is done; the socket is the caller's from then on.
   *
   * @throws problems.outboundRefused for an address that may not be reached, problems.outboundFailed, whose cause is the system's error, and
   * the reason of `signal` when that ended it.
   */
  async dial(target: DialTarget): Promise<Socket> {
    const { host, port, protocolPorts, signal } = target
    const at = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
    const fail = (cause: unknown) =>
      signal.aborted
        ? asError(signal.reason)
        : problems.outboundFailed(
            { host: at, reason: reasonOf((cause as NodeJS.ErrnoException).code ?? '') },
            { cause },
          )
    const addresses = await this.#resolved(host, signal).catch((cause: unknown) => {
      throw fail(cause)
    })
    if (addresses.length === 0 || !addresses.every((one) => this.#guard.allowsDialling(one, port, protocolPorts)))
      throw problems.outboundRefused({ host: at })
    return connectTo(target, lookupOf(addresses)).catch((cause: unknown) => {
      throw fail(cause)
    })
  }

  async #send(call: Call, hop: Hop): Promise<IncomingMessage> {
    const { origin } = hop.url
    const addresses = await this.#addresses(call, hop.url)
    if (!this.#breaker.admits(origin))
      throw failed(hop.url, 'it did not answer the last calls; try again in some seconds')
    try {
      const answer = await this.#exchange(call, hop, addresses)
      this.#breaker.answered(origin)
      return answer
    } catch (error) {
      if (problems.outboundFailed.is(error) && isSilence(error.cause)) this.#breaker.silent(origin)
      throw error
    }
  }

  #exchange(call: Call, { url, method, headers, body }: Hop, addresses: readonly string[]): Promise<IncomingMessage> {
    const { request, signal, idleMs } = call
    const secure = url.protocol === 'https:'
    const options = {
      method,
      headers: { 'user-agent': this.#userAgent, ...headers },
      lookup: lookupOf(addresses),
      signal,
      timeout: idleMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      // Each has a connection of its own: a pooled one may hold bytes that an earlier answer left behind (CVE-2026-48931).
      agent: false as const,
      // Who trusts one host blindly does not mean the one that it redirects to.
      ...(secure && {
        rejectUnauthorized: request.insecure !== true || url.hostname !== new URL(request.url).hostname,
      }),
      ...(secure && request.ca !== undefined && { secureContext: this.#trusting(request.ca) }),
    }
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown) => reject(failure(call, url, cause))
      let outgoing: ReturnType<typeof httpRequest>
      try {
        outgoing = secure ? httpsRequest(url, options) : httpRequest(url, options)
      } catch (cause) {
        reject(problems.badRequest({ message: `the headers for ${url.host} cannot be sent` }, { cause }))
        return
      }
      let phase: 'connecting' | 'sending' | 'waiting' = 'connecting'
      const giveUp = () => void outgoing.destroy(new Silence())
      // The socket's timeout starts anew with each byte, so that a head could drip for ever; this one does not.
      const patience = setTimeout(() => phase !== 'sending' && giveUp(), idleMs).unref()
      outgoing.on('socket', (socket) =>
        socket.once(secure ? 'secureConnect' : 'connect', () => {
          if (phase === 'connecting') phase = 'sending'
        }),
      )
      outgoing.on('finish', () => {
        phase = 'waiting'
        patience.refresh()
      })
      // When we wait for the source of the body, the other side is not to blame.
      outgoing.on('timeout', () => (!(body instanceof Readable) || outgoing.writableNeedDrain) && giveUp())
      outgoing.on('close', () => {
        clearTimeout(patience)
        fail({ code: 'ECONNRESET' }) // an answer 101 ends without another event
      })
      outgoing.on('error', fail)
      outgoing.on('response', (answer) => {
        clearTimeout(patience)
        outgoing.removeAllListeners('timeout').on('timeout', () => undefined)
        answer.on('error', () => undefined) // between here and its reader; the reader sees it by the stream's state
        resolve(answer)
      })
      if (body instanceof Readable) pipeline(body, outgoing, (error) => error && fail(error))
      else outgoing.end(body)
    })
  }

  /** Every address of the name, all of them checked. @throws problems.outboundRefused */
  async #addresses({ signal, request }: Call, url: URL): Promise<readonly string[]> {
    const host = url.hostname.replace(/^\[|\]$/g, '')
    const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80))
    const addresses = await this.#resolved(host, signal).catch((cause: unknown) => {
      if (signal.aborted) throw failure({ request, signal }, url, cause)
      throw failed(url, 'the name cannot be resolved', cause)
    })
    if (addresses.length === 0) throw failed(url, 'the name has no address')
    if (!addresses.every((address) => this.#guard.allows(address, port)))
      throw problems.outboundRefused({ host: url.host })
    return addresses
  }

  /** Every address that the name has now; an address is its own. */
  async #resolved(host: string, signal: AbortSignal): Promise<readonly string[]> {
    return isIP(host) === 0 ? abortable(this.#resolve(host), signal) : [host]
  }

  /** Reading the system's certificates takes 10 ms and more, so it is done once for each `ca`. */
  #trusting(ca: string): SecureContext {
    let context = this.#trust.get(ca)
    if (context === undefined) {
      try {
        // Read once more as a certificate, since createSecureContext passes over what is none.
        context = createSecureContext({ ca: [...getCACertificates('default'), ca, new X509Certificate(ca).toString()] })
      } catch (cause) {
        throw problems.badRequest({ message: 'the CA certificate cannot be read' }, { cause })
      }
      if (this.#trust.size >= 100) this.#trust.clear()
      this.#trust.set(ca, context)
    }
    return context
  }
}

const resolveAll: Resolve = async (host) => (await resolveName(host, { all: true })).map(({ address }) => address)

/** Answers with what was checked, whatever the name says by now. */
function lookupOf(addresses: readonly string[]): LookupFunction {
  const all = addresses.map((address) => ({ address, family: isIP(address) }))
  return (_host, options, callback) => {
    if (options.all) callback(null, all)
    else callback(null, all[0]!.address, all[0]!.family)
  }
}

function parse(given: string | URL): URL {
  const url = URL.parse(String(given))
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.username || url.password) {
    throw problems.outboundRefused({ host: url?.host || 'such a URL' })
  }
  return url
}

function deadline({ signal, totalMs = TOTAL_MS }: OutboundRequest): AbortSignal {
  return AbortSignal.any([...(signal ? [signal] : []), ...(totalMs > 0 ? [AbortSignal.timeout(totalMs)] : [])])
}

async function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => reject(signal.reason as Error)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([work, promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

// What one origin may be told and the next one may too. A list of secrets would miss the header that a webhook's owner invented.
const HARMLESS = new Set([
  'accept',
  'accept-encoding',
  'accept-language',
  'content-type',
  'range',
  'if-range',
  'user-agent',
])

/** Null when the answer is none. @throws Problem when it may not be followed. */
function redirectOf(
  { statusCode = 0, headers }: IncomingMessage,
  { url, method, headers: sent, body }: Hop,
): Hop | null {
  if (![301, 302, 303, 307, 308].includes(statusCode) || headers.location === undefined) return null
  const target = URL.parse(headers.location, url.href)
  if (target === null) throw failed(url, 'redirected to an unreadable URL')
  const next = parse(target)
  if (url.protocol === 'https:' && next.protocol === 'http:') throw failed(url, 'redirected from https to http')
  const kept = Object.entries(sent).filter(([name]) => next.origin === url.origin || HARMLESS.has(name.toLowerCase()))
  // RFC 9110, 15.4: 303 asks for a GET; 301 and 302 in practice too for a POST.
  if ((statusCode === 303 && method !== 'HEAD') || (method === 'POST' && statusCode <= 302)) {
    const about = kept.filter(([name]) => !name.toLowerCase().startsWith('content-'))
    return { url: next, method: 'GET', headers: Object.fromEntries(about), body: undefined }
  }
  if (body instanceof Readable) throw failed(url, 'redirected a request whose body cannot be sent again')
  // A body may be a secret as well as a header: a token request's is a password.
  if (body !== undefined && next.origin !== url.origin)
    throw failed(url, 'redirected a request with a body to another origin')
  return { url: next, method, headers: Object.fromEntries(kept), body }
}

function respond(call: Call, { url, method }: Hop, answer: IncomingMessage): OutboundResponse {
  const { maxBytes = MAX_BYTES } = call.request
  if (Number(answer.headers['content-length'] ?? 0) > maxBytes && method !== 'HEAD') {
    answer.destroy()
    throw failure(call, url, new TooLong())
  }
  const body = answerBody(answer, {
    maxBytes,
    idleMs: call.idleMs,
    signal: call.signal,
    failure: (cause) => failure(call, url, cause),
  })
  return { status: answer.statusCode ?? 0, headers: answer.headers, url, body }
}

function failed(url: URL, reason: string, cause?: unknown): Problem {
  return problems.outboundFailed({ host: url.host, reason }, { cause })
}

function failure({ request, signal }: Pick<Call, 'request' | 'signal'>, url: URL, cause: unknown): Error {
  if (request.signal?.aborted) return asError(request.signal.reason)
  if (signal.aborted) return failed(url, 'no whole answer in time', cause)
  if (cause instanceof Problem) return cause
  if (cause instanceof Silence) return failed(url, 'it fell silent', cause)
  if (cause instanceof TooLong)
    return failed(url, `the answer is longer than ${request.maxBytes ?? MAX_BYTES} bytes`, cause)
  return failed(url, reasonOf((cause as NodeJS.ErrnoException).code ?? ''), cause)
}

const asError = (reason: unknown) =>
  reason instanceof Error ? reason : new Error('the call was given up', { cause: reason })

/** No answer at all. A wrong certificate or garbage is one: the next caller's settings may suit it. */
function isSilence(cause: unknown): boolean {
  const { name = '', code = '' } = (cause ?? {}) as { name?: string; code?: string }
  return cause instanceof Silence || name === 'TimeoutError' || /^E(?:CONN|HOST|NET|TIMEDOUT|PIPE)/.test(code)
}

/** From the system's code, never its text: that of a TLS error quotes the other side's certificate. */
function reasonOf(code: string): string {
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'the name cannot be resolved'
  if (code === 'ECONNREFUSED') return 'the connection was refused'
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'the connection was cut'
  if (code === 'HPE_HEADER_OVERFLOW') return 'its headers are too long'
  if (code.startsWith('HPE_')) return 'it does not speak HTTP'
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) return 'it does not speak TLS as we do'
  if (/CERT|SIGNATURE|UNABLE_TO_/.test(code)) return `its certificate is not trusted (${code})`
  return code === '' ? 'the connection failed' : `the connection failed (${code})`
}

/** Reads a bounded body whole. */
export async function bytesOf({ body }: OutboundResponse): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of body) chunks.push(chunk as Uint8Array)
  return Buffer.concat(chunks)
}

/** Reads a bounded body whole, as UTF-8. */
export async function textOf(response: OutboundResponse): Promise<string> {
  return (await bytesOf(response)).toString('utf8')
}
