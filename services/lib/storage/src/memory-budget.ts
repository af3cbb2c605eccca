import { problems } from '@haven/errors'

interface Waiter {
  readonly bytes: number
  readonly admit: () => void
}

/**
 * Bounds the memory that all uploads of a process hold together. An upload waits for its first bytes only, in the order of
 * arrival; later it takes what is free or makes do with what it has, so those that hold memory never wait for each other.
 */
export class MemoryBudget {
  readonly #limitBytes: number
  readonly #patienceMs: number
  #used = 0
  readonly #waiting: Waiter[] = []

  constructor(limitBytes: number, patienceMs: number) {
    this.#limitBytes = limitBytes
    this.#patienceMs = patienceMs
  }

  /** Waits until the bytes are free; a 503 problem when that takes too long. */
  async reserve(bytes: number, signal?: AbortSignal): Promise<void> {
    if (this.tryReserve(bytes)) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter = { bytes, admit: resolve }
    const busy = () =>
      reject(problems.serviceUnavailable({ message: 'too many uploads at the same time', retryAfterSeconds: 5 }))
    const onAbort = () => reject(signal?.reason)
    const timer = setTimeout(busy, this.#patienceMs)
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#waiting.push(waiter)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      const at = this.#waiting.indexOf(waiter)
      if (at >= 0) this.#waiting.splice(at, 1)
    }
  }

  /** Whether the bytes were free, and are now taken. Those that wait come first. */
  tryReserve(bytes: number): boolean {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) return false
    this.#used += bytes
    return true
  }

  /** Takes bytes beyond the limit, where waiting could be for oneself. */
  overdraw(bytes: number): void {
    this.#used += bytes
  }

  release(bytes: number): void {
    this.#used -= bytes
    for (let next = this.#waiting[0]; next && this.#fits(next.bytes); next = this.#waiting[0]) {
      this.#used += next.bytes
      this.#waiting.shift()
      next.admit()
    }
  }

  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#limitBytes
  }
}
