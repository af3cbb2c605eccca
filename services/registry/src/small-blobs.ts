import { TwoGenerations } from '@haven/db'
import type { BlobStorage } from '@haven/storage'

/** Configs, attestations, the layers of small images. To open a file costs more than to send these. */
export const MAX_SMALL_BYTES = 256 * 1024
/** Of each generation: at most twice as much is held. */
const MAX_BYTES = 32 * 1024 * 1024
const MAX_BLOBS = 20_000

/**
 * Bytes of small blobs that were read not long ago, by the key under which they lie: keys are never used again, and a blob that was found damaged
 * comes back under another. Whether a repository has the blob is for the database to say, each time.
 */
export class SmallBlobs {
  readonly #kept = new TwoGenerations<Buffer>(MAX_BLOBS, MAX_BYTES, (_, bytes) => bytes.length, 'small-blobs')
  readonly #storage: BlobStorage

  constructor(storage: BlobStorage) {
    this.#storage = storage
  }

  /** @throws ObjectMissing, ObjectTruncated */
  async bytes(key: string, sizeBytes: number): Promise<Buffer> {
    const kept = this.#kept.get(key)
    if (kept) return kept
    const bytes = Buffer.allocUnsafeSlow(sizeBytes)
    let at = 0
    for await (const piece of this.#storage.read(key, { offset: 0, length: sizeBytes })) {
      at += (piece as Buffer).copy(bytes, at)
    }
    this.#kept.set(key, bytes)
    return bytes
  }
}
