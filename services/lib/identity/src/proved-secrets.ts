import { createHmac, randomBytes } from 'node:crypto'
import { TwoGenerations } from '@haven/db'
import { isCheap, verifySecret, type StoredSecret } from './passwords.ts'

const maxAgeMs = 60 * 60_000

/**
 * Which secrets belong to which hashes, as far as this process worked it out within the hour: somebody who signs in again and again costs
 * one hash an hour (P21). No change can make it untrue, since another password has another hash; so whoever asks must have read the hash just
 * now. Kept under a key that only this process knows. What does not belong is never kept: a wrong secret stays as slow as the hash.
 */
export class ProvedSecrets {
  readonly #key = randomBytes(32)
  readonly #kept = new TwoGenerations<number>(10_000, Infinity, undefined, 'secrets')
  readonly #now: () => number
  readonly #verify: typeof verifySecret

  constructor(now: () => number = Date.now, verify: typeof verifySecret = verifySecret) {
    this.#now = now
    this.#verify = verify
  }

  /** As `verifySecret`. */
  async verify(stored: StoredSecret, secret: string): Promise<boolean> {
    if (isCheap(stored)) return this.#verify(stored, secret)
    const key = createHmac('sha256', this.#key)
      .update(JSON.stringify([stored.version, stored.hash, stored.salt, secret]))
      .digest('base64url')
    if (this.#now() < (this.#kept.get(key) ?? 0)) return true
    const untilMs = this.#now() + maxAgeMs
    const belongs = await this.#verify(stored, secret)
    if (belongs) this.#kept.set(key, untilMs)
    return belongs
  }
}
