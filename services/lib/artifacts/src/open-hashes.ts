import type { SupportedAlgorithm } from '@haven/oci'
import { beginSum, type RunningSum } from '@haven/storage'

type Entry = { readonly hash: RunningSum; readonly offsetBytes: number; readonly algorithm: SupportedAlgorithm }

/** An upload that somebody opened and left takes a few hundred bytes here until newer ones push it out. */
const MAX_ENTRIES = 10_000

/**
 * Sums of uploads that this process has seen from their first byte. Node cannot export a hash's state, so an upload that goes on
 * in another process is read again at its end instead.
 */
export class OpenHashes {
  readonly #entries = new Map<string, Entry>()
  #summing = 0
  /** Whether two ever received bytes at once: the other thread is there since. */
  #metOthers = false

  /** How many uploads are receiving bytes now. */
  get summing(): number {
    return this.#summing
  }

  /** Whether bytes are received that nobody else's have been beside, now or before. */
  get alone(): boolean {
    return this.#summing === 0 && !this.#metOthers
  }

  enter(): void {
    this.#summing += 1
    if (this.#summing > 1) this.#metOthers = true
  }

  leave(): void {
    this.#summing -= 1
  }

  /**
   * The sum of the upload's first `offsetBytes` bytes, to go on with; null when this process did not see all of them.
   * @param aside whether a sum that begins now is made on another thread.
   */
  take(upload: string, offsetBytes: number, algorithm: SupportedAlgorithm, aside = false): RunningSum | null {
    const entry = this.#entries.get(upload)
    this.#entries.delete(upload)
    if (entry?.offsetBytes === offsetBytes && entry.algorithm === algorithm && !entry.hash.lost) return entry.hash
    return offsetBytes === 0 ? beginSum(algorithm, { aside }) : null
  }

  keep(upload: string, offsetBytes: number, algorithm: SupportedAlgorithm, hash: RunningSum): void {
    if (this.#entries.size >= MAX_ENTRIES) {
      for (const oldest of this.#entries.keys()) {
        this.#entries.delete(oldest)
        break
      }
    }
    this.#entries.set(upload, { hash, offsetBytes, algorithm })
  }

  forget(upload: string): void {
    this.#entries.delete(upload)
  }
}
