/** So long after a short request another one is expected. */
const EXPECTED_MS = 5
/** Behind each MiB of a long body, while short requests are expected: 330 MiB/s for all bodies together (decision 0019). */
const PAUSE_MS = 3
const MIB = 1024 * 1024

type Clock = { now(): number; after(ms: number, call: () => void): void }

const real: Clock = { now: () => performance.now(), after: (ms, call) => void setTimeout(call, ms) }

/**
 * Who waits for little goes before who sends much. Long bodies are received as fast as they come, until there are requests that can be answered
 * from memory: then all of them together pause behind what they have brought.
 */
export class Precedence {
  readonly #clock: Clock
  #shortAt = -Infinity
  /** When the last pause ends. */
  #freeAt = -Infinity
  readonly #waiting = new Set<() => void>()
  #willWake = false

  constructor(clock = real) {
    this.#clock = clock
  }

  /** A short request was answered. */
  answered(): void {
    this.#shortAt = this.#clock.now()
  }

  /** Calls `read` now, or after the pauses, in the order of asking. @returns what takes it back; null when it was called */
  ask(read: () => void): (() => void) | null {
    if (this.#waiting.size === 0 && this.#clock.now() >= this.#freeAt) {
      read()
      return null
    }
    this.#waiting.add(read)
    this.#wakeLater()
    return () => void this.#waiting.delete(read)
  }

  /** A long body brought so many bytes. */
  brought(bytes: number): void {
    const now = this.#clock.now()
    if (now - this.#shortAt < EXPECTED_MS) this.#freeAt = Math.max(this.#freeAt, now) + (bytes / MIB) * PAUSE_MS
  }

  #wakeLater(): void {
    if (this.#willWake) return
    this.#willWake = true
    this.#clock.after(Math.max(0, this.#freeAt - this.#clock.now()), () => {
      this.#willWake = false
      this.#callNext()
    })
  }

  #callNext(): void {
    for (const read of this.#waiting) {
      if (this.#clock.now() < this.#freeAt) return this.#wakeLater()
      this.#waiting.delete(read)
      read()
    }
  }
}

/** One for all ports of the process: they share its loop. */
export const precedence = new Precedence()
