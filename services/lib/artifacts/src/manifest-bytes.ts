import { TwoGenerations } from '@haven/db'
import type { Reference } from '@haven/oci'

type Where = { projectId: number; path: string }

/** Of each generation: at most twice as much is held. */
const MAX_BYTES = 32 * 1024 * 1024
const MAX_MANIFESTS = 20_000
const MAX_TAGS = 50_000

/**
 * Bytes of manifests that were read not long ago, by digest: they cannot change. Whether a repository has one, and which one a tag names, is for the
 * database to say: what is remembered of tags is only a guess at which bytes it will name.
 */
export class ManifestBytes {
  readonly #bytes = new TwoGenerations<Buffer>(MAX_MANIFESTS, MAX_BYTES, (_, payload) => payload.length)
  readonly #tags = new TwoGenerations<string>(MAX_TAGS)

  expected(where: Where, reference: Reference): { digest: string; payload: Buffer } | null {
    const digest = reference.digest ?? this.#tags.get(keyOf(where, reference.tag))
    const payload = digest === undefined ? undefined : this.#bytes.get(digest)
    return payload ? { digest: digest!, payload } : null
  }

  keep(where: Where, reference: Reference, { digest, payload }: { digest: string; payload: Buffer }): void {
    this.#bytes.set(digest, payload)
    if (reference.tag !== undefined) this.#tags.set(keyOf(where, reference.tag), digest)
  }
}

const keyOf = ({ projectId, path }: Where, tag: string) => `${projectId}/${path}:${tag}`
