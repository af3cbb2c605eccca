import { TwoGenerations } from '@haven/db'
import type { Reference } from '@haven/oci'

/** Of each generation: at most twice as much is held. */
const MAX_BYTES = 32 * 1024 * 1024
const MAX_MANIFESTS = 20_000
const MAX_TAGS = 50_000

/**
 * Bytes of manifests that were read not long ago, by digest: they cannot change. Whether a repository has one, and which one a tag names, is for others
 * to say: what is remembered of tags is only a guess at which bytes will be wanted.
 */
export class ManifestBytes {
  readonly #bytes = new TwoGenerations<Buffer>(MAX_MANIFESTS, MAX_BYTES, (_, payload) => payload.length, 'manifests')
  readonly #tags = new TwoGenerations<string>(MAX_TAGS)

  get(digest: string): Buffer | undefined {
    return this.#bytes.get(digest)
  }

  /** What a reference is likely to name. */
  digestOf(key: string, { digest }: Reference): string | undefined {
    return digest ?? this.#tags.get(key)
  }

  keep(key: string, { tag }: Reference, digest: string, payload: Buffer): void {
    this.#bytes.set(digest, payload)
    if (tag !== undefined) this.#tags.set(key, digest)
  }
}
