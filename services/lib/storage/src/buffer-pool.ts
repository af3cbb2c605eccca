import { release } from './streams.ts'

const KiB = 1024
const MiB = 1024 * KiB

// Not among the types of Node.
declare const WebAssembly: {
  Memory: new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer }
}

/** Buffers to use again. Fresh ones cost a page fault every 4 KiB, which is most of the CPU of copying a file. */
export class KeptBuffers {
  readonly #free = new Map<number, Buffer[]>()
  readonly #limitBytes: number
  #bytes = 0

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  /** @param othersBytes what lies elsewhere and counts against the limit before any is made anew. */
  take(size: number, othersBytes = 0): Buffer {
    const kept = this.#free.get(size)?.pop()
    if (kept) {
      this.#bytes -= size
      return kept
    }
    this.#shrink(this.#limitBytes - othersBytes - size)
    return Buffer.allocUnsafeSlow(size)
  }

  /** Only for a buffer that nothing will read any more: a write in flight would send another stream's bytes. */
  give(buffer: Buffer, othersBytes = 0): void {
    if (this.#bytes + buffer.length + othersBytes > this.#limitBytes) return release(buffer)
    const free = this.#free.get(buffer.length)
    if (free) free.push(buffer)
    else this.#free.set(buffer.length, [buffer])
    this.#bytes += buffer.length
  }

  #shrink(toBytes: number): void {
    for (const free of this.#free.values()) {
      while (this.#bytes > toBytes && free.length > 0) {
        const buffer = free.pop()!
        this.#bytes -= buffer.length
        release(buffer)
      }
    }
  }
}

/** From large to small. */
const SIZES = [MiB, 256 * KiB, 64 * KiB] as const
/** One is filled while the other is sent. */
const A_STREAM = 2

/**
 * Buffers to send from. The more streams there are, the smaller they get, so that hundreds of slow readers hold little more than a few fast
 * ones: large buffers save calls, and who waits for a reader saves nothing by them.
 */
export class BufferPool {
  readonly #limitBytes: number
  readonly #kept: KeptBuffers
  #streams = 0
  #usedBytes = 0

  /** Beyond the limit there are only buffers of the smallest size. */
  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
    this.#kept = new KeptBuffers(limitBytes)
  }

  /** A stream announces itself, and leaves. */
  enter(): void {
    this.#streams += 1
  }

  leave(): void {
    this.#streams -= 1
  }

  /** A buffer for the next of so many bytes; it may hold fewer. */
  take(leftBytes: number): Buffer {
    const fair = Math.min(this.#limitBytes / (A_STREAM * this.#streams), this.#limitBytes - this.#usedBytes)
    const enough = SIZES.findLast((size) => size >= leftBytes) ?? SIZES[0]
    const size = SIZES.find((each) => each <= Math.min(fair, enough)) ?? SIZES.at(-1)!
    const buffer = this.#kept.take(size, this.#usedBytes)
    this.#usedBytes += size
    return buffer
  }

  /** Only for a buffer that nothing will read any more: a write in flight would send another stream's bytes. */
  give(buffer: Buffer): void {
    this.#usedBytes -= buffer.length
    this.#kept.give(buffer, this.#usedBytes)
  }

  /** A buffer that something may still read: it is left to the collector. */
  drop(buffer: Buffer): void {
    this.#usedBytes -= buffer.length
  }
}

/** Of a buffer that bytes are gathered in on their way to a file. */
export const GATHERED_BYTES = 256 * KiB
/** For 32 uploads at the same time. */
const ALIGNED = 64
const WASM_PAGE = 64 * KiB

/** Buffers to gather an upload in. They lie on page boundaries, as writing around the page cache demands, until there are too many of them. */
export class AlignedBuffers {
  readonly #free: Buffer[] = []
  #memory: ArrayBuffer | null = null
  #carved = 0

  take(): Buffer {
    return this.#free.pop() ?? (this.#carved < ALIGNED ? this.#carve() : Buffer.allocUnsafeSlow(GATHERED_BYTES))
  }

  isAligned(buffer: Buffer): boolean {
    return buffer.buffer === this.#memory
  }

  give(buffer: Buffer): void {
    if (this.isAligned(buffer)) this.#free.push(buffer)
    else release(buffer)
  }

  #carve(): Buffer {
    // The one memory in Node that is sure to begin on a page. Nothing of it is resident before it is written to.
    const pages = (ALIGNED * GATHERED_BYTES) / WASM_PAGE
    this.#memory ??= new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer
    return Buffer.from(this.#memory, GATHERED_BYTES * this.#carved++, GATHERED_BYTES)
  }
}
