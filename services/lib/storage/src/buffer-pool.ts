const LARGE = 1024 * 1024
const SMALL = 256 * 1024
const MAX_KEPT = 64
const MANY_STREAMS = 64
// Not among the types of Node.
declare const WebAssembly: {
  Memory: new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
}

/** A page of WebAssembly is 64 KiB. */
const MEMORY_PAGES = (MAX_KEPT * LARGE) / (64 * 1024)

/**
 * Buffers for bulk bytes. Fresh ones cost a page fault every 4 KiB, which is most of the CPU of copying a file; reused ones do not.
 * 1 MiB each, 256 KiB when more than 64 streams are open or no more is needed.
 */
export class BufferPool {
  readonly #free = { [LARGE]: [] as Buffer[], [SMALL]: [] as Buffer[] }
  #streams = 0
  #aligned: ArrayBuffer | null = null
  #carved = 0

  /** A stream announces itself, takes buffers of the size it is told, and leaves. */
  enter(expectedBytes = Infinity): number {
    this.#streams += 1
    return expectedBytes <= SMALL || this.#streams > MANY_STREAMS ? SMALL : LARGE
  }

  leave(): void {
    this.#streams -= 1
  }

  take(size: number): Buffer {
    return this.#free[size]?.pop() ?? (size === LARGE ? this.#carve() : Buffer.allocUnsafeSlow(size))
  }

  /** Whether the buffer lies on a page boundary, as writing around the page cache demands. */
  isAligned(buffer: Buffer): boolean {
    return buffer.length === LARGE && buffer.buffer === this.#aligned
  }

  /** A large buffer on a page boundary, until there are as many of them as are kept. */
  #carve(): Buffer {
    if (this.#carved === MAX_KEPT) return Buffer.allocUnsafeSlow(LARGE)
    // The one memory in Node that is sure to begin on a page. Nothing of it is resident before it is written to.
    this.#aligned ??= new WebAssembly.Memory({ initial: MEMORY_PAGES, maximum: MEMORY_PAGES }).buffer
    return Buffer.from(this.#aligned, LARGE * this.#carved++, LARGE)
  }

  /** Only for a buffer that nothing will read any more: a write in flight would send another stream's bytes. */
  give(buffer: Buffer): void {
    const free = this.#free[buffer.length]
    if (!free) return
    if (free.length < MAX_KEPT) free.push(buffer)
    else if (this.isAligned(buffer)) {
      // Dropping an aligned one would not free it: its page stays carved. It takes the place of one that the collector can free.
      const other = free.findIndex((kept) => !this.isAligned(kept))
      if (other >= 0) free[other] = buffer
    }
  }
}
