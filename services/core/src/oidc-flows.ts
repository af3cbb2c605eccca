import { createHash, randomBytes } from 'node:crypto'
import type { OidcChallenge, OidcPerson, OidcTokens, Sealer } from '@haven/identity'
import type { Redis } from 'ioredis'

/** A browser on its way through a provider. */
export type OidcFlow =
  | {
      readonly step: 'signing-in'
      readonly challenge: OidcChallenge
      /** Path on this origin. */
      readonly returnTo: string
      /** The session that the browser has so far; it ends with the sign-in (threats.md A59). */
      readonly sessionId: string | null
    }
  /** Somebody new, who chooses a name yet. */
  | { readonly step: 'onboarding'; readonly person: OidcPerson; readonly tokens: OidcTokens }

const lifetimeMs = 10 * 60_000
const idBytes = 32

/**
 * What a sign-in by OIDC remembers between its steps, for ten minutes. It lies in Redis, sealed and under a hash of its id; the id is in a
 * cookie of the one browser, so that nobody can finish in another browser what he began in his own.
 */
export class OidcFlows {
  readonly #redis: Redis
  readonly #prefix: string
  readonly #sealer: Sealer

  constructor(redis: Redis, sealer: Sealer, prefix: string) {
    this.#redis = redis
    this.#sealer = sealer
    this.#prefix = prefix
  }

  /** Answers the id. */
  async begin(flow: OidcFlow): Promise<string> {
    const id = randomBytes(idBytes).toString('base64url')
    await this.#redis.set(this.#key(id), this.#sealer.seal(JSON.stringify(flow)), 'PX', lifetimeMs)
    return id
  }

  async find(id: string): Promise<OidcFlow | null> {
    return this.#opened(await this.#redis.get(this.#key(id)))
  }

  /** Finds it once: whoever comes again, or at the same time, finds nothing (threats.md A63). */
  async take(id: string): Promise<OidcFlow | null> {
    return this.#opened(await this.#redis.getdel(this.#key(id)))
  }

  async end(id: string): Promise<void> {
    await this.#redis.del(this.#key(id))
  }

  #opened(sealed: string | null): OidcFlow | null {
    return sealed === null ? null : (JSON.parse(this.#sealer.open(sealed)) as OidcFlow)
  }

  #key(id: string): string {
    return `${this.#prefix}:oidc:${createHash('sha256').update(id).digest('base64url')}`
  }
}
