import { PassThrough, pipeline, type Duplex, type Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'

/** Of what comes out of the archive, not of what it says it holds (threats.md §5): a bomb is left where it passes this. */
const MAX_UNPACKED_BYTES = 64 * 1024 * 1024
const MAX_FILE_BYTES = 1024 * 1024
const MAX_ENTRIES = 10_000
/** Of a name that does not fit into a header; an archive with a longer one is left there. */
const MAX_NAME_BYTES = 4096
const BLOCK = 512
const REGULAR_FILE = new Set(['0', '\0', ''])
/** POSIX 1003.1-2001, "pax Header Block": of the next entry, of all that follow. */
const PAX = 'x'
const PAX_OF_ALL = 'g'
/** GNU tar: the name of the next entry. */
const GNU_NAME = 'L'

export type Packing = 'none' | 'gzip' | 'zstd'
const unpackers: Record<Packing, () => Duplex> = {
  none: () => new PassThrough(),
  gzip: () => createGunzip(),
  zstd: () => createZstdDecompress(),
}

/**
 * The first regular file of a tar whose name is wanted. Names are only compared, never used as paths; entries that are no regular files
 * are passed over.
 * @returns null when there is none before the bounds are reached, or when the bytes are no such archive.
 */
export async function readFromTar(
  packed: Readable,
  packing: Packing,
  isWanted: (name: string) => boolean,
): Promise<Buffer | null> {
  let failure: NodeJS.ErrnoException | null = null
  const unpacked: Readable = pipeline(packed, unpackers[packing](), (error) => {
    failure = error ?? null
  })
  const reader = new TarReader(isWanted)
  try {
    for await (const chunk of unpacked as AsyncIterable<Buffer>) {
      if (reader.take(chunk)) return reader.found
    }
    return reader.found
  } catch (error) {
    // Bytes that are not packed so are what somebody pushed; a store that fails is for the caller to hear of.
    const code = (error as NodeJS.ErrnoException).code ?? (failure as NodeJS.ErrnoException | null)?.code
    if (typeof code === 'string' && (code.startsWith('Z_') || code.startsWith('ZSTD_'))) return null
    throw error
  }
}

/** Padded and true size of an entry that is read whole, and what for. */
type Entry = { padded: number; size: number; as: 'file' | 'pax' | 'name' }

class TarReader {
  found: Buffer | null = null
  readonly #isWanted: (name: string) => boolean
  #pending: Buffer = Buffer.alloc(0)
  #unpacked = 0
  #entries = 0
  /** Bytes of the entry at hand that are passed over, its padding included. */
  #skip = 0
  #entry: Entry | null = null
  /** What the next entry is called, where its header has no place for it. */
  #longName: string | null = null

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
      if (this.#entry) {
        const { padded, size, as } = this.#entry
        if (this.#pending.length < padded) return false
        const body = this.#pending.subarray(0, size)
        if (as === 'file') {
          this.found = body
          return true
        }
        this.#longName = as === 'pax' ? (pathOfPax(body) ?? this.#longName) : upToNul(body.toString('utf8'))
        this.#pending = this.#pending.subarray(padded)
        this.#entry = null
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
    const type = header.toString('latin1', 156, 157)
    if (type === PAX || type === GNU_NAME) {
      if (size > MAX_NAME_BYTES) return true
      this.#entry = { padded, size, as: type === PAX ? 'pax' : 'name' }
      return false
    }
    if (type === PAX_OF_ALL) {
      this.#skip = padded
      return false
    }
    const name = this.#longName ?? nameOf(header)
    this.#longName = null
    if (REGULAR_FILE.has(type) && size <= MAX_FILE_BYTES && this.#isWanted(name)) {
      this.#entry = { padded, size, as: 'file' }
    } else this.#skip = padded
    return false
  }
}

function nameOf(header: Buffer): string {
  const name = fieldOf(header, 0, 100)
  const prefix = fieldOf(header, 345, 155)
  const isUstar = header.toString('latin1', 257, 262) === 'ustar'
  return isUstar && prefix !== '' ? `${prefix}/${name}` : name
}

/** Records are `<length> <key>=<value>\n`; of lengths that lie, only what lies between two line ends is read. */
const pathOfPax = (body: Buffer): string | null =>
  /(?:^|\n)\d+ path=([^\n]*)\n/.exec(body.toString('utf8'))?.[1] ?? null

const fieldOf = (header: Buffer, at: number, length: number) => upToNul(header.toString('utf8', at, at + length))

function upToNul(text: string): string {
  const end = text.indexOf('\0')
  return end === -1 ? text : text.slice(0, end)
}
