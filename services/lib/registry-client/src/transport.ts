import { Readable } from 'node:stream'
import { problems } from '@haven/errors'
import { formatRegistryPath, type RegistryPath, type RepositoryName, type Scope } from '@haven/oci'
import type { OutboundClient, OutboundRequest, OutboundResponse } from '@haven/outbound'
import { failed } from './answers.ts'
import { Authorizer } from './authorizer.ts'
import type { Endpoint } from './registry.ts'
import { Retries, type RetryOptions } from './retries.ts'

export type RegistryRequest = Omit<OutboundRequest, 'url' | 'signal' | 'insecure' | 'ca'> & {
  readonly scopes: readonly Scope[]
  readonly signal?: AbortSignal | undefined
}

/** Requests of one registry: its addresses, its credential, its retries. */
export class Transport {
  readonly base: URL
  readonly authorizer: Authorizer
  readonly retries: Retries
  readonly #endpoint: Endpoint
  readonly #outbound: OutboundClient

  /** @throws problems.outboundRefused for an endpoint that is no http or https URL. */
  constructor(endpoint: Endpoint, outbound: OutboundClient, options: RetryOptions) {
    const base = URL.parse(endpoint.url)
    if (base === null || !['http:', 'https:'].includes(base.protocol) || base.username || base.password) {
      throw problems.outboundRefused({ host: base?.host || 'such a URL' })
    }
    this.base = base
    this.#endpoint = endpoint
    this.#outbound = outbound
    this.retries = new Retries(options)
    this.authorizer = new Authorizer(base, endpoint, outbound, this.retries)
  }

  url(path: RegistryPath, query: Readonly<Record<string, string | number>> = {}): URL {
    const url = new URL(this.base.origin + this.base.pathname.replace(/\/+$/, '') + formatRegistryPath(path))
    for (const [key, value] of Object.entries(query)) url.searchParams.set(key, String(value))
    return url
  }

  /**
   * Where the registry sends us on: a `Location` or a `Link`. Only within its origin (threats.md A83, CVE-2026-50151); a registry behind a
   * proxy that ends TLS may call itself http.
   */
  own(location: string | undefined, from: URL): URL {
    const url = location === undefined ? null : URL.parse(location, from.href)
    if (url === null) throw failed(this.base, 'it names no place to go on')
    if (this.base.protocol === 'https:' && url.protocol === 'http:' && url.hostname === this.base.hostname) {
      url.protocol = 'https:'
      url.port = this.base.port
    }
    if (url.origin !== this.base.origin || url.username || url.password)
      throw failed(this.base, 'it sends us on to another origin')
    return url
  }

  /**
   * Any status but those that a retry or a token cured.
   * @throws problems.outboundFailed, problems.outboundRefused, the signal's reason.
   */
  async send(url: URL, request: RegistryRequest): Promise<OutboundResponse> {
    const { method = 'GET', body, signal } = request
    const repeatable = !(body instanceof Readable)
    try {
      return await this.retries.run(() => this.#authorized(url, request), {
        repeatable,
        idempotent: method !== 'POST' && method !== 'PATCH',
        signal,
      })
    } finally {
      // The token may have failed before the body was handed over.
      if (body instanceof Readable && !body.readableDidRead) body.destroy()
    }
  }

  async #authorized(url: URL, { scopes, signal, ...request }: RegistryRequest): Promise<OutboundResponse> {
    const { ca, insecure = false } = this.#endpoint
    const common = { ...request, url, insecure, ...(ca !== undefined && { ca }), ...(signal && { signal }) }
    const send = (authorization: string | undefined) =>
      this.#outbound.request({
        ...common,
        headers: { ...request.headers, ...(authorization !== undefined && { authorization }) },
      })

    const first = await this.retries.apart(this.authorizer.header(scopes))
    const answer = await send(first)
    // A 401 of where it redirected us to is no word of the registry.
    if (answer.status !== 401 || answer.url.origin !== this.base.origin) return answer
    answer.body.destroy()
    await this.retries.apart(this.authorizer.learn(answer, scopes))
    if (request.body instanceof Readable) return answer
    const second = await this.retries.apart(this.authorizer.header(scopes))
    // The same password again would only bring its account nearer to being locked.
    if (second === undefined || second === first) return answer
    return send(second)
  }
}

/** What is to be done with a repository. */
export function scopeOf(name: RepositoryName, ...actions: string[]): Scope {
  return { type: 'repository', name, actions }
}
