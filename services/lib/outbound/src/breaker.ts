const FAILURES = 5
const REST_MS = 10_000
const MOST_TARGETS = 1000

type Target = { failures: number; restUntil: number }

/**
 * Spares a server that is down, and the callers that would wait for it (reliability.md §4, rule 14): after five calls in a row without
 * any answer, calls fail at once for ten seconds; then one goes through and decides.
 */
export class CircuitBreaker {
  readonly #targets = new Map<string, Target>()
  readonly #now: () => number

  /** @param now milliseconds of a clock that never goes back. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** False while the target rests. */
  admits(origin: string): boolean {
    const target = this.#targets.get(origin)
    if (target === undefined || target.failures < FAILURES) return true
    if (this.#now() < target.restUntil) return false
    target.restUntil = this.#now() + REST_MS // the others wait for what this one finds
    return true
  }

  answered(origin: string) {
    this.#targets.delete(origin)
  }

  silent(origin: string) {
    const failures = (this.#targets.get(origin)?.failures ?? 0) + 1
    this.#targets.delete(origin)
    this.#targets.set(origin, { failures, restUntil: this.#now() + REST_MS })
    if (this.#targets.size > MOST_TARGETS) this.#targets.delete(this.#targets.keys().next().value!)
  }
}
