import { hash } from 'node:crypto'
import { TwoGenerations } from '@haven/db'
import { algorithmOf, type Digest } from '@haven/oci'
import { ObjectCorrupt, type BlobStorage } from '@haven/storage'

/** Larger ones are always read from the store: of those this size and below, to open a file costs as much as to send them. */
export const MAX_SMALL_BYTES = 1024 * 1024
/** Configs, attestations, the layers of small images are kept the first time; others when they are asked for again. */
const KEPT_AT_ONCE_BYTES = 256 * 1024
/** Of each generation: at most twice as much is held. */
const MAX_BYTES = 32 * 1024 * 1024
const MAX_BLOBS = 20_000

/**
 * Bytes of small blobs that were read not long ago, by the key under which they lie, which is never used again. They are compared with their digest
 * when they are read: once in memory, they hide what becomes of the object. Whether a repository has the blob is for the database to say.
 */
export class SmallBlobs {
  readonly #kept = new TwoGenerations<Buffer>(MAX_BLOBS, MAX_BYTES, (_, bytes) => bytes.length, 'small-blobs')
  readonly #askedFor = new TwoGenerations<true>(MAX_BLOBS)
  /** Of each blob one copy, however many ask for it at the same time. */
  readonly #reading = new Map<string, Promise<Buffer>>()
  readonly #storage: BlobStorage

  constructor(storage: BlobStorage) {
    this.#storage = storage
  }

  /** The whole blob, when it is in memory. */
  kept(key: string): Buffer | undefined {
    return this.#kept.get(key)
  }

  /**
   * The whole blob; null for one that is better streamed: it may never be asked for again.
   * @throws ObjectMissing, ObjectTruncated, ObjectCorrupt
   */
  async bytes(key: string, digest: Digest, sizeBytes: number): Promise<Buffer | null> {
    const kept = this.#kept.get(key)
    if (kept) return kept
    if (sizeBytes > KEPT_AT_ONCE_BYTES && !this.#askedFor.get(key)) {
      this.#askedFor.set(key, true)
      return null
    }
    const reading = this.#reading.get(key) ?? this.#read(key, digest, sizeBytes)
    this.#reading.set(key, reading)
    try {
      return await reading
    } finally {
      this.#reading.delete(key)
    }
  }

  async #read(key: string, digest: Digest, sizeBytes: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(sizeBytes)
    let at = 0
    for await (const piece of this.#storage.read(key, { offset: 0, length: sizeBytes })) {
      at += (piece as Buffer).copy(bytes, at)
    }
    const algorithm = algorithmOf(digest)
    if (`${algorithm}:${hash(algorithm, bytes)}` !== digest) throw new ObjectCorrupt(key)
    this.#kept.set(key, bytes)
    return bytes
  }
}
