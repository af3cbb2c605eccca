import { setTimeout as pause } from 'node:timers/promises'
import { TwoGenerations } from '@haven/db'
import type { BlobStorage } from '@haven/storage'

/** A client is told of an object that was seen not longer ago; one that is lost in between shows on the next look. */
const SEEN_MS = 60_000
/** A store that says nothing for so long is not asked for an answer: the record counts, and the push will tell. */
const PATIENCE_MS = 1_000
const MAX_OBJECTS = 20_000

/**
 * Objects that this process wrote or found in the store not long ago. A client that is told "it is there" does not send its bytes, so of a blob whose
 * file was lost nobody would ever bring it back (reliability.md §6); but to ask an object store each time would cost more than the answer.
 */
export class SeenObjects {
  readonly #seenAt = new TwoGenerations<number>(MAX_OBJECTS)

  note(key: string): void {
    this.#seenAt.set(key, performance.now())
  }

  /** Whether it was not long ago. */
  lately(key: string): boolean {
    return performance.now() - (this.#seenAt.get(key) ?? -Infinity) < SEEN_MS
  }

  /** False only when the store says that the object is not there or has another size. */
  async holds(storage: Pick<BlobStorage, 'stat'>, { key, sizeBytes }: { key: string; sizeBytes: number }) {
    if (this.lately(key)) return true
    const waiting = new AbortController()
    const unknown = pause(PATIENCE_MS, undefined, { signal: waiting.signal, ref: false })
    try {
      const found = await Promise.race([storage.stat(key), unknown])
      if (found === undefined) return true
      if (found?.sizeBytes !== sizeBytes) return false
      this.note(key)
      return true
    } catch {
      // A store that cannot be used is told of by its health check and by whoever moves bytes.
      return true
    } finally {
      waiting.abort()
    }
  }
}
