const LARGE = 1024 * 1024
const SMALL = 256 * 1024
const MAX_KEPT = 64
const MANY_STREAMS = 64

/**
 * Buffers for bulk bytes. Fresh ones cost a page fault every 4 KiB, which is most of the CPU of copying a file; reused ones do not.
 * 1 MiB each, 256 KiB when more than 64 streams are open or no more is needed.
 */
export class BufferPool {
  readonly #free = { [LARGE]: [] as Buffer[], [SMALL]: [] as Buffer[] }
  #streams = 0

  /** A stream announces itself, takes buffers of the size it is told, and leaves. */
  enter(expectedBytes = Infinity): number {
    this.#streams += 1
    return expectedBytes <= SMALL || this.#streams > MANY_STREAMS ? SMALL : LARGE
  }

  leave(): void {
    this.#streams -= 1
  }

  take(size: number): Buffer {
    return this.#free[size]?.pop() ?? Buffer.allocUnsafeSlow(size)
  }

  /** Only for a buffer that nothing will read any more: a write in flight would send another stream's bytes. */
  give(buffer: Buffer): void {
    const free = this.#free[buffer.length]
    if (free && free.length < MAX_KEPT) free.push(buffer)
  }
}
