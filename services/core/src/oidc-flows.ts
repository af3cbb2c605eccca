import { createHash, randomBytes } from 'node:crypto'
import { problems } from '@haven/errors'
import { hostBlock, type OidcChallenge, type OidcPerson, type OidcTokens, type Sealer } from '@haven/identity'
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
/** Sign-ins that one machine, or all behind one address, may begin in that time: each is about a kilobyte of Redis. */
const maxBegun = 300

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

  /**
   * Lets a client begin one more sign-in. Nobody has proved anything yet, so without a bound anybody could fill Redis.
   * @throws tooManyRequests
   */
  async admit(address: string): Promise<void> {
    const key = this.#key(`from ${hostBlock(address)}`)
    const answers = await this.#redis.multi().set(key, 0, 'PX', lifetimeMs, 'NX').incr(key).pttl(key).exec()
    const [begun, leftMs] = (answers ?? []).slice(1).map(([error, value]) => {
      if (error) throw error
      return Number(value)
    })
    if ((begun ?? 0) > maxBegun) {
      throw problems.tooManyRequests({ retryAfterSeconds: Math.ceil((leftMs ?? lifetimeMs) / 1000) })
    }
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
