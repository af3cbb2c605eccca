import { createHash, randomBytes } from 'node:crypto'
import { problems } from '@haven/errors'
import type { Redis } from 'ioredis'
import type { Authorities } from './authorities.ts'
import type { Principal } from './principal.ts'

type UserPrincipal = Extract<Principal, { kind: 'user' }>

export type Session = { readonly id: string; readonly principal: UserPrincipal }

type Stored = {
  readonly userId: number
  /** The password that was valid when the session began; a session does not outlive it (threats.md A05, A69). */
  readonly passwordId: number | null
}

const idBytes = 32

/**
 * Sessions of people in browsers. Redis holds who began one, under a hash of its id, so that reading Redis opens none; the user
 * is looked up live at each request (threats.md R10). A session ends when it is idle for its lifetime, or its user is disabled
 * or deleted or gets another password. Emptying Redis signs everybody out and loses nothing else.
 */
export class Sessions {
  readonly #redis: Redis
  readonly #authorities: Pick<Authorities, 'of'>
  readonly #prefix: string
  readonly #lifetimeMs: () => Promise<number>

  constructor(
    redis: Redis,
    authorities: Pick<Authorities, 'of'>,
    options: { prefix?: string; lifetimeMs?: () => Promise<number> } = {},
  ) {
    this.#redis = redis
    this.#authorities = authorities
    this.#prefix = options.prefix ?? 'haven'
    this.#lifetimeMs = options.lifetimeMs ?? (() => Promise.resolve(60 * 60_000))
  }

  /** Begins a session under an id of its own; whoever had another one before ends that (A59). */
  async create(user: UserPrincipal): Promise<Session> {
    const id = randomBytes(idBytes).toString('base64url')
    const { passwordId } = await this.#authorities.of(user)
    const stored: Stored = { userId: user.id, passwordId }
    await this.#redis.set(this.#key(id), JSON.stringify(stored), 'PX', await this.#lifetimeMs())
    return { id, principal: user }
  }

  /** The session of this id, with its user as he is now; null when there is none (any more). `renew`: its idle time starts anew. */
  async load(id: string, { renew }: { renew: boolean }): Promise<Session | null> {
    const key = this.#key(id)
    const text = renew ? await this.#redis.getex(key, 'PX', await this.#lifetimeMs()) : await this.#redis.get(key)
    if (text === null) return null
    const stored = JSON.parse(text) as Stored
    const authority = await this.#authorities.of({ kind: 'user', id: stored.userId, name: '' })
    const { principal, active, passwordId } = authority
    if (!active || passwordId !== stored.passwordId || principal.kind !== 'user') {
      await this.#redis.del(key)
      return null
    }
    return { id, principal }
  }

  async destroy(id: string): Promise<void> {
    await this.#redis.del(this.#key(id))
  }

  /** @throws redisUnreachable */
  async check(): Promise<void> {
    try {
      await this.#redis.ping()
    } catch (cause) {
      throw problems.redisUnreachable({ reason: 'it does not answer' }, { cause })
    }
  }

  #key(id: string): string {
    return `${this.#prefix}:session:${createHash('sha256').update(id).digest('base64url')}`
  }
}
