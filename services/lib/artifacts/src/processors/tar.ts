import { pipeline, type Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'

/** Of what comes out of the archive, not of what it says it holds (threats.md §5): a bomb is left where it passes this. */
const MAX_UNPACKED_BYTES = 64 * 1024 * 1024
const MAX_FILE_BYTES = 1024 * 1024
const MAX_ENTRIES = 10_000
const BLOCK = 512
const REGULAR_FILE = new Set(['0', '\0', ''])

/**
 * The first regular file of a gzipped tar whose name is wanted. Names are only compared, never used as paths; entries that are no
 * regular files are passed over.
 * @returns null when there is none before the bounds are reached, or when the bytes are no such archive.
 */
export async function readFromTar(packed: Readable, isWanted: (name: string) => boolean): Promise<Buffer | null> {
  const gunzip = createGunzip()
  let failure: NodeJS.ErrnoException | null = null
  const unpacked: Readable = pipeline(packed, gunzip, (error) => {
    failure = error ?? null
  })
  const reader = new TarReader(isWanted)
  try {
    for await (const chunk of unpacked as AsyncIterable<Buffer>) {
      if (reader.take(chunk)) return reader.found
    }
    return reader.found
  } catch (error) {
    // Bytes that are no gzip are what somebody pushed; a store that fails is for the caller to hear of.
    const code = (error as NodeJS.ErrnoException).code ?? (failure as NodeJS.ErrnoException | null)?.code
    if (typeof code === 'string' && code.startsWith('Z_')) return null
    throw error
  }
}

class TarReader {
  found: Buffer | null = null
  readonly #isWanted: (name: string) => boolean
  #pending: Buffer = Buffer.alloc(0)
  #unpacked = 0
  #entries = 0
  /** Bytes of the entry at hand that are passed over, its padding included. */
  #skip = 0
  /** Padded and true size of the wanted entry, once its header was read. */
  #wanted: { padded: number; size: number } | null = null

  constructor(isWanted: (name: string) => boolean) {
    this.#isWanted = isWanted
  }

  /** True when there is nothing more to read. */
  take(chunk: Buffer): boolean {
    this.#unpacked += chunk.length
    if (this.#unpacked > MAX_UNPACKED_BYTES) return true
    const skipped = Math.min(this.#skip, chunk.length)
    this.#skip -= skipped
    this.#pending = Buffer.concat([this.#pending, chunk.subarray(skipped)])
    for (;;) {
      if (this.#wanted) {
        if (this.#pending.length < this.#wanted.padded) return false
        this.found = this.#pending.subarray(0, this.#wanted.size)
        return true
      }
      if (this.#pending.length < BLOCK) return false
      const header = this.#pending.subarray(0, BLOCK)
      this.#pending = this.#pending.subarray(BLOCK)
      if (this.#readHeader(header)) return true
      const skipNow = Math.min(this.#skip, this.#pending.length)
      this.#skip -= skipNow
      this.#pending = this.#pending.subarray(skipNow)
    }
  }

  /** True at the end of the archive, or where it stops being one. */
  #readHeader(header: Buffer): boolean {
    if (header[0] === 0 || ++this.#entries > MAX_ENTRIES) return true
    const size = Number.parseInt(fieldOf(header, 124, 12).trim(), 8)
    if (!Number.isSafeInteger(size) || size < 0) return true
    const padded = Math.ceil(size / BLOCK) * BLOCK
    const prefix = fieldOf(header, 345, 155)
    const name = fieldOf(header, 0, 100)
    const isUstar = header.toString('latin1', 257, 262) === 'ustar'
    const whole = isUstar && prefix !== '' ? `${prefix}/${name}` : name
    if (REGULAR_FILE.has(header.toString('latin1', 156, 157)) && size <= MAX_FILE_BYTES && this.#isWanted(whole)) {
      this.#wanted = { padded, size }
    } else this.#skip = padded
    return false
  }
}

function fieldOf(header: Buffer, at: number, length: number): string {
  const text = header.toString('utf8', at, at + length)
  const end = text.indexOf('\0')
  return end === -1 ? text : text.slice(0, end)
}
