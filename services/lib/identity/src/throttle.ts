import { createHash } from 'node:crypto'
import { isIPv4, isIPv6 } from 'node:net'
import { problems } from '@haven/errors'
import type { Redis } from 'ioredis'

const windowMs = 5 * 60_000
/** Wrong passwords for one account from one block of addresses, and for any account from one address (threats.md §5). */
const maxForAccount = 5
const maxForAddress = 50
/** Counters of one kind in memory; the ones that end first go first (A60). */
const maxCounters = 50_000

/** A guess that is being checked. Disposing it ends one that could not be: neither right nor wrong. */
type Attempt = Disposable & { failed(): Promise<void>; succeeded(): Promise<void> }

type Counter = { failures: number; pending: number; untilMs: number }

/**
 * Slows down who guesses passwords. Counted for an account *and* where the guess comes from, so that nobody can lock somebody
 * else out from elsewhere. In memory, and in Redis where one is given, for all replicas together; without it each counts alone.
 */
export class LoginThrottle {
  readonly #redis: Redis | null
  readonly #prefix: string
  readonly #now: () => number
  readonly #counters = { account: new Map<string, Counter>(), address: new Map<string, Counter>() }

  constructor(options: { redis?: Redis | null; prefix?: string; now?: () => number } = {}) {
    this.#redis = options.redis ?? null
    this.#prefix = options.prefix ?? 'haven'
    this.#now = options.now ?? Date.now
  }

  /**
   * Begins an attempt; the caller ends it with what became of it. Guesses that run at the same time count against the limit
   * too, else a hundred of them would pass before the first failed.
   * @throws tooManyRequests
   */
  async begin(account: string, address: string): Promise<Attempt> {
    const keys = {
      account: fingerprint(`${account}\n${addressBlock(address)}`),
      address: fingerprint(hostBlock(address)),
    }
    const mine = this.#counter('account', keys.account)
    const host = this.#counter('address', keys.address)
    if (mine.failures + mine.pending >= maxForAccount) throw this.#refusal(mine)
    if (host.failures >= maxForAddress) throw this.#refusal(host)
    mine.pending++
    let ended = false
    const end = () => {
      if (!ended) mine.pending--
      ended = true
    }
    try {
      await this.#askRedis(keys)
    } catch (error) {
      end()
      throw error
    }
    return {
      [Symbol.dispose]: end,
      failed: async () => {
        end()
        mine.failures++
        host.failures++
        await this.#count(keys)
      },
      succeeded: async () => {
        end()
        if (mine.failures === 0) return
        mine.failures = 0
        await this.#redis?.del(this.#key('account', keys.account)).catch(unheard)
      },
    }
  }

  /** How many counters are held. */
  get size(): number {
    return this.#counters.account.size + this.#counters.address.size
  }

  #counter(kind: 'account' | 'address', key: string): Counter {
    const counters = this.#counters[kind]
    const now = this.#now()
    const known = counters.get(key)
    if (known && now < known.untilMs) return known
    // The same object where there was one: attempts that are still running end on it.
    const counter = known ?? { failures: 0, pending: 0, untilMs: 0 }
    counter.failures = 0
    counter.untilMs = now + windowMs
    const [oldest] = counters.keys() // a Map keeps the order of insertion, which is the order of ending
    if (!known && counters.size >= maxCounters && oldest !== undefined) counters.delete(oldest)
    counters.delete(key)
    counters.set(key, counter)
    return counter
  }

  #refusal(counter: Counter) {
    return problems.tooManyRequests({ retryAfterSeconds: (counter.untilMs - this.#now()) / 1000 })
  }

  #key(kind: string, key: string) {
    return `${this.#prefix}:login:${kind}:${key}`
  }

  async #askRedis(keys: { account: string; address: string }): Promise<void> {
    if (!this.#redis) return
    const names = [this.#key('account', keys.account), this.#key('address', keys.address)] as const
    const counts = await this.#redis.mget(...names).catch(unheard)
    if (!counts) return
    const over = Number(counts[0] ?? 0) >= maxForAccount ? 0 : Number(counts[1] ?? 0) >= maxForAddress ? 1 : null
    if (over === null) return
    const leftMs = await this.#redis.pttl(names[over]).catch(unheard)
    throw problems.tooManyRequests({ retryAfterSeconds: (leftMs && leftMs > 0 ? leftMs : windowMs) / 1000 })
  }

  async #count(keys: { account: string; address: string }): Promise<void> {
    if (!this.#redis) return
    const pipeline = this.#redis.pipeline()
    for (const kind of ['account', 'address'] as const) {
      const key = this.#key(kind, keys[kind])
      pipeline.incr(key)
      pipeline.pexpire(key, windowMs, 'NX')
    }
    await pipeline.exec().catch(unheard)
  }
}

// Redis may be away: memory still counts, and a sign-in must not fail for it. Its absence shows in the readiness checks.
const unheard = () => null

const fingerprint = (text: string) => createHash('sha256').update(text).digest('base64url').slice(0, 22)

const unmapped = (address: string) =>
  address.startsWith('::ffff:') && isIPv4(address.slice(7)) ? address.slice(7) : address

/** What one household or server rack looks like from outside: a /24 of IPv4, a /64 of IPv6. */
export function addressBlock(address: string): string {
  const plain = unmapped(address)
  if (isIPv4(plain)) return `${plain.split('.').slice(0, 3).join('.')}.0/24`
  return hostBlock(plain)
}

/** One machine: the address itself, or the /64 within which an IPv6 machine chooses its addresses. */
export function hostBlock(address: string): string {
  const plain = unmapped(address)
  if (!isIPv6(plain)) return plain
  const [head = '', tail] = plain.replace(/%.*$/, '').split('::')
  const groups = (text: string | undefined) => (text ? text.split(':') : [])
  const before = groups(head)
  const after = groups(tail)
  const all = [...before, ...Array<string>(Math.max(0, 8 - before.length - after.length)).fill('0'), ...after]
  return `${all
    .slice(0, 4)
    .map((group) => parseInt(group, 16).toString(16))
    .join(':')}::/64`
}
