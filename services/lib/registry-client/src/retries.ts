import { setTimeout as sleepFor } from 'node:timers/promises'
import { problems } from '@haven/errors'
import type { OutboundResponse } from '@haven/outbound'
import { headerOf } from './answers.ts'

const ATTEMPTS = 4
const FIRST_WAIT_MS = 250
/** A server that wants us to wait longer gets its answer passed on instead. */
const LONGEST_WAIT_MS = 30_000
const BUDGET = 10
const BUDGET_OF_A_CALL = 0.1

export type RetryOptions = {
  /** How often a call is made at most; 4 unless given. */
  readonly attempts?: number
  readonly sleep?: (ms: number, signal?: AbortSignal) => Promise<void>
  /** From 0 to 1. */
  readonly random?: () => number
  /** Milliseconds since 1970, for a Retry-After that is a date. */
  readonly now?: () => number
}

export type RetryRules = {
  /** The request has a body that can be sent again, or none. */
  readonly repeatable: boolean
  /** Also repeat when nobody knows whether the server did it. */
  readonly idempotent: boolean
  readonly signal?: AbortSignal | undefined
}

/**
 * Repeats what failed for now (reliability.md §4, rule 14): 429 and 503 since the server did nothing yet, other gateway errors and broken
 * connections when repeating does no harm. Waits grow with full jitter, never less than Retry-After, and all calls of one registry share a
 * budget, so that a server in trouble sees a tenth more of them and not four times as many.
 */
export class Retries {
  #budget = BUDGET
  readonly #final = new WeakSet()
  readonly #sleep: (ms: number, signal?: AbortSignal) => Promise<void>
  readonly #random: () => number
  readonly #now: () => number
  readonly #attempts: number

  constructor({ attempts, sleep, random, now }: RetryOptions) {
    this.#attempts = attempts ?? ATTEMPTS
    this.#sleep = sleep ?? ((ms, signal) => sleepFor(ms, undefined, signal && { signal }))
    this.#random = random ?? Math.random
    this.#now = now ?? Date.now
  }

  async run(
    call: () => Promise<OutboundResponse>,
    { repeatable, idempotent, signal }: RetryRules,
  ): Promise<OutboundResponse> {
    this.#budget = Math.min(BUDGET, this.#budget + BUDGET_OF_A_CALL)
    for (let attempt = 1; ; attempt++) {
      const jittered = this.#random() * FIRST_WAIT_MS * 4 ** (attempt - 1)
      const last = !repeatable || attempt >= this.#attempts || this.#budget < 1
      let waitMs = jittered
      try {
        const answer = await call()
        const passing = [429, 503].includes(answer.status) || (idempotent && [500, 502, 504].includes(answer.status))
        waitMs = Math.max(jittered, this.#retryAfterMs(answer))
        if (!passing || last || waitMs > LONGEST_WAIT_MS) return answer
        answer.body.destroy()
      } catch (error) {
        if (last || !idempotent || !problems.outboundFailed.is(error) || this.#final.has(error)) throw error
      }
      this.#budget--
      await this.pause(waitMs, signal)
    }
  }

  /** Work within a call that has its own retries: its failure is not repeated by the call's. */
  async apart<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      if (problems.outboundFailed.is(error)) this.#final.add(error)
      throw error
    }
  }

  /** @throws the signal's reason. */
  async pause(ms: number, signal?: AbortSignal) {
    try {
      await this.#sleep(ms, signal)
    } catch (error) {
      throw signal?.aborted ? signal.reason : error
    }
  }

  #retryAfterMs(answer: OutboundResponse): number {
    const text = headerOf(answer, 'retry-after') ?? ''
    if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
    const date = Date.parse(text)
    return Number.isNaN(date) ? 0 : Math.max(0, date - this.#now())
  }
}
