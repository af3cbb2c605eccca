import { release } from './streams.ts'

const KiB = 1024
const MiB = 1024 * KiB

// Not among the types of Node.
declare const WebAssembly: {
  Memory: new (size: { initial: number; maximum: number; shared: true }) => { readonly buffer: SharedArrayBuffer }
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
const SIZES = [MiB, 256 * KiB, 128 * KiB, 64 * KiB, 32 * KiB] as const
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

  /** So many streams that two buffers each, the smallest, are more than all should hold. */
  get isCrowded(): boolean {
    return A_STREAM * this.#streams * SIZES.at(-1)! > this.#limitBytes
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

/** Of the buffers that uploads are gathered in, from large to small. */
const GATHERED_SIZES = [MiB, 512 * KiB, 256 * KiB] as const
const SLOT_BYTES = GATHERED_SIZES.at(-1)!
/** Two small ones each for 32 uploads, or large ones for eight. */
const SLOTS = 64
const WASM_PAGE = 64 * KiB

/**
 * Buffers to gather uploads in, in memory that the thread that sums shares. Large ones save calls and wake-ups; the more uploads there are, the smaller
 * they get. They lie on page boundaries, as writing around the page cache demands, until there are too many of them.
 */
export class AlignedBuffers {
  readonly #taken: boolean[] = Array.from({ length: SLOTS }, () => false)
  #memory: SharedArrayBuffer | null = null
  #uploads = 0

  /** An upload announces itself, and leaves. */
  enter(): void {
    this.#uploads += 1
  }

  leave(): void {
    this.#uploads -= 1
  }

  /** One of the two buffers that an upload of so many bytes is gathered in, or, for a small one, the only. */
  take(expectedBytes: number, only = false): Buffer {
    const buffers = only ? 1 : A_STREAM
    const enough = only ? (GATHERED_SIZES.findLast((size) => size >= expectedBytes) ?? MiB) : expectedBytes / buffers
    const fair = Math.min((SLOTS * SLOT_BYTES) / (buffers * this.#uploads), enough)
    for (const size of GATHERED_SIZES) {
      const at = size <= Math.max(fair, SLOT_BYTES) ? this.#findFree(size / SLOT_BYTES) : -1
      if (at < 0) continue
      this.#taken.fill(true, at, at + size / SLOT_BYTES)
      return Buffer.from(this.#aligned(), at * SLOT_BYTES, size)
    }
    return Buffer.from(new SharedArrayBuffer(SLOT_BYTES))
  }

  isAligned(buffer: Buffer): boolean {
    return buffer.buffer === this.#memory
  }

  /** Only for a buffer that nothing will read or write any more. */
  give(buffer: Buffer): void {
    if (!this.isAligned(buffer)) return
    const at = buffer.byteOffset / SLOT_BYTES
    this.#taken.fill(false, at, at + buffer.length / SLOT_BYTES)
  }

  #findFree(slots: number): number {
    for (let at = 0; at < SLOTS; at += slots) {
      if (!this.#taken.slice(at, at + slots).includes(true)) return at
    }
    return -1
  }

  #aligned(): SharedArrayBuffer {
    // The one memory in Node that is sure to begin on a page. Nothing of it is resident before it is written to.
    const pages = (SLOTS * SLOT_BYTES) / WASM_PAGE
    this.#memory ??= new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer
    return this.#memory
  }
}
