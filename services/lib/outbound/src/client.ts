import { lookup as resolveName } from 'node:dns/promises'
import { Agent as HttpAgent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import { pipeline, Readable } from 'node:stream'
import { problems } from '@haven/errors'
import { AddressGuard, type AddressPolicy } from './addresses.ts'
import { countBytes } from './count-bytes.ts'

export type Resolve = (host: string) => Promise<readonly string[]>

export type OutboundOptions = AddressPolicy & {
  /** `host:port` of our own services: refused even when their network is allowed. */
  ownAddresses?: readonly string[]
  /** For tests: how names are resolved. */
  resolve?: Resolve
  userAgent?: string
}

export type OutboundRequest = {
  url: string | URL
  method?: string
  headers?: Readonly<Record<string, string>>
  body?: string | Uint8Array | Readable
  signal?: AbortSignal
  /** From the first byte sent to the end of the answer's body. Default 30 s; 0: no limit, for streamed blobs. */
  totalMs?: number
  /** Longest silence. Default 10 s. */
  idleMs?: number
  /** Longest body. Default 1 MiB. */
  maxBytes?: number
  /** How many redirects are followed. Default 3. */
  redirects?: number
  /** Accept a certificate that nobody known has signed. */
  insecure?: boolean
  /** PEM certificates to trust beside the system's. */
  ca?: string
}

export type OutboundResponse = {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Where the answer came from, after redirects. */
  readonly url: URL
  /** Fails past `maxBytes`, after silence, and when it ends before its Content-Length. */
  readonly body: Readable
}

const TOTAL_MS = 30_000
const IDLE_MS = 10_000
const MAX_BYTES = 1024 * 1024
const MAX_REDIRECTS = 3

/**
 * The only way out (threats.md R11). Every hop, redirects included: the scheme is http or https, the name is resolved, every address it
 * has is checked, and the connection goes to the checked address, so that a name cannot change its mind in between. Credentials never follow
 * to another origin.
 */
export class OutboundClient {
  readonly #guard: AddressGuard
  readonly #own: ReadonlySet<string>
  readonly #resolve: Resolve
  readonly #userAgent: string

  constructor(options: OutboundOptions) {
    this.#guard = new AddressGuard(options)
    this.#own = new Set(options.ownAddresses)
    this.#resolve = options.resolve ?? resolveAll
    this.#userAgent = options.userAgent ?? 'haven'
  }

  /** @throws Problem outboundRefused for an address that may not be reached, outboundFailed for one that does not answer as it should. */
  async request(request: OutboundRequest): Promise<OutboundResponse> {
    const started = performance.now()
    let url = parse(request.url)
    let { headers = {}, method = 'GET', body } = request
    for (let hops = 0; ; hops++) {
      const answer = await this.#hop({ ...request, headers, method }, url, body, started)
      const next = redirectOf(answer, url)
      if (!next) return respond(answer, url, request, started)
      answer.resume()
      if (hops >= (request.redirects ?? MAX_REDIRECTS)) throw problems.outboundFailed({ host: url.host, reason: 'too many redirects' })
      if (body instanceof Readable) {
        throw problems.outboundFailed({ host: url.host, reason: 'redirected a request whose body cannot be sent again' })
      }
      if (next.origin !== url.origin) headers = withoutCredentials(headers)
      // RFC 9110, 15.4: 303 asks for a GET; 301 and 302 in practice too for a POST.
      if (answer.statusCode === 303 || (method === 'POST' && (answer.statusCode === 301 || answer.statusCode === 302))) {
        method = 'GET'
        body = undefined
      }
      url = next
    }
  }

  async #hop(request: OutboundRequest, url: URL, body: OutboundRequest['body'], started: number): Promise<IncomingMessage> {
    const address = await this.#check(url)
    const signal = deadline(request, started)
    const secure = url.protocol === 'https:'
    const lookup: LookupFunction = (_host, options, callback) => {
      const family = isIP(address) as 4 | 6
      if (options.all) callback(null, [{ address, family }])
      else callback(null, address, family)
    }
    const options = {
      method: request.method ?? 'GET',
      headers: { 'user-agent': this.#userAgent, ...request.headers },
      lookup,
      signal,
      // A connection of its own each: a pooled one would be to an address checked for somebody else.
      agent: secure
        ? new HttpsAgent({ rejectUnauthorized: request.insecure !== true, ...(request.ca ? { ca: request.ca } : {}) })
        : new HttpAgent(),
    }
    const idleMs = request.idleMs ?? IDLE_MS
    return new Promise((resolve, reject) => {
      const outgoing = secure ? httpsRequest(url, options) : httpRequest(url, options)
      const fail = (cause: Error) => reject(failed(url, cause))
      outgoing.once('error', fail)
      outgoing.setTimeout(idleMs, () => outgoing.destroy(new Error(`no byte for ${idleMs / 1000} s`)))
      outgoing.once('response', (answer) => {
        outgoing.off('error', fail)
        outgoing.on('error', (error) => answer.destroy(error))
        resolve(answer)
      })
      send(outgoing, body, reject, url)
    })
  }

  /** The address to connect to. @throws Problem outboundRefused */
  async #check(url: URL): Promise<string> {
    const host = url.hostname.replace(/^\[|\]$/g, '')
    const port = url.port || (url.protocol === 'https:' ? '443' : '80')
    const addresses = isIP(host) ? [host] : await this.#resolved(url, host)
    for (const address of addresses) {
      if (!this.#guard.allows(address) || this.#own.has(`${address}:${port}`)) throw problems.outboundRefused({ host: url.host })
    }
    const [first] = addresses
    if (first === undefined) throw problems.outboundFailed({ host: url.host, reason: 'the name has no address' })
    return first
  }

  async #resolved(url: URL, host: string): Promise<readonly string[]> {
    try {
      return await this.#resolve(host)
    } catch (cause) {
      throw problems.outboundFailed({ host: url.host, reason: 'the name cannot be resolved' }, { cause })
    }
  }
}

const resolveAll: Resolve = async (host) => (await resolveName(host, { all: true })).map(({ address }) => address)

function parse(given: string | URL): URL {
  const url = URL.canParse(String(given)) ? new URL(String(given)) : null
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw problems.outboundRefused({ host: url?.host ?? 'an unreadable URL' })
  }
  if (url.username || url.password) throw problems.outboundRefused({ host: url.host })
  return url
}

function deadline(request: OutboundRequest, started: number): AbortSignal {
  const totalMs = request.totalMs ?? TOTAL_MS
  const signals = request.signal ? [request.signal] : []
  if (totalMs > 0) signals.push(AbortSignal.timeout(Math.max(1, Math.ceil(totalMs - (performance.now() - started)))))
  return AbortSignal.any(signals)
}

function send(outgoing: ClientRequest, body: OutboundRequest['body'], reject: (error: Error) => void, url: URL) {
  if (!(body instanceof Readable)) outgoing.end(body)
  else pipeline(body, outgoing, (error) => error && reject(failed(url, error)))
}

function redirectOf(answer: IncomingMessage, from: URL): URL | null {
  const { statusCode = 0 } = answer
  const { location } = answer.headers
  if (![301, 302, 303, 307, 308].includes(statusCode) || location === undefined) return null
  if (!URL.canParse(location, from.href)) throw problems.outboundFailed({ host: from.host, reason: 'redirected to an unreadable URL' })
  return parse(new URL(location, from.href).href)
}

function withoutCredentials(headers: Readonly<Record<string, string>>): Record<string, string> {
  const secret = new Set(['authorization', 'cookie', 'proxy-authorization', 'x-api-key'])
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !secret.has(name.toLowerCase())))
}

function respond(answer: IncomingMessage, url: URL, request: OutboundRequest, _started: number): OutboundResponse {
  const maxBytes = request.maxBytes ?? MAX_BYTES
  const announced = Number(answer.headers['content-length'] ?? 0)
  if (announced > maxBytes && request.method !== 'HEAD') {
    answer.destroy()
    throw problems.outboundFailed({ host: url.host, reason: `the answer is longer than ${maxBytes} bytes` })
  }
  const counted = countBytes(maxBytes, () => problems.outboundFailed({ host: url.host, reason: `the answer is longer than ${maxBytes} bytes` }))
  const body = pipeline(answer, counted, () => undefined) as unknown as Readable
  return { status: answer.statusCode ?? 0, headers: answer.headers, url, body }
}

function failed(url: URL, cause: Error): Error {
  const { code, name, message } = cause as Error & { code?: string }
  const reason = name === 'TimeoutError' || name === 'AbortError' ? 'no answer in time' : (code ?? message)
  return problems.outboundFailed({ host: url.host, reason }, { cause })
}

/** Reads a bounded body whole. */
export async function textOf(response: OutboundResponse): Promise<string> {
  const chunks: Uint8Array[] = []
  for await (const chunk of response.body) chunks.push(chunk as Uint8Array)
  return Buffer.concat(chunks).toString('utf8')
}
