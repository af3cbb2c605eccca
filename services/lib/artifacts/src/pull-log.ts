import type { Database } from '@haven/db'
import { emitPulls, type Pull } from '@haven/events'
import { nameOf, principalKey, sourceOf, type PullGrant } from './grants.ts'

const FLUSH_MS = 1_000
/** As in `PullCounter`. */
const FLUSH_AT = 500
/** Different pulls that are held at most; while Postgres is away, further ones go untold. */
const MAX_HELD = 10_000

type Pulled = { repositoryId: number; id: string | null; digest: string; mediaType: string }
type Held = { grant: PullGrant; manifest: Pulled; tag: string | undefined; pulls: number }

/**
 * Has the audit log tell of pulls: one event for all pulls of the same by the same principal, gathered as in `PullCounter`. A process that is killed
 * loses a second of them.
 */
export class PullLog implements AsyncDisposable {
  readonly #db: Database
  readonly #wanted: () => Promise<boolean>
  readonly #onFailure: (failure: Error) => void
  #timer: NodeJS.Timeout | null = null
  #held = new Map<string, Held>()
  #writing: Promise<void> = Promise.resolve()
  /** The last write has ended, and was no failure. */
  #ready = true

  /** @param wanted whether pulls are told of now. */
  constructor(db: Database, wanted: () => Promise<boolean>, onFailure: (failure: Error) => void) {
    this.#db = db
    this.#wanted = wanted
    this.#onFailure = onFailure
  }

  /** @param tag that it was asked for by. */
  note(grant: PullGrant, manifest: Pulled, tag: string | undefined): void {
    const { principal, address } = grant
    // Our own services read for somebody else's sake.
    if (principal.kind === 'service') return
    const key = `${principalKey(principal)} ${address} ${manifest.repositoryId} ${tag ?? manifest.digest}`
    const held = this.#held.get(key)
    if (held) held.pulls++
    else if (this.#held.size < MAX_HELD) this.#held.set(key, { grant, manifest, tag, pulls: 1 })
    if (this.#ready && this.#held.size >= FLUSH_AT) void this.flush()
    else this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  /** Writes what was noted so far. A failed write is tried again with the next one. */
  flush(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    this.#ready = false
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  async #write(): Promise<void> {
    const held = this.#held
    this.#held = new Map()
    try {
      if (held.size > 0 && (await this.#wanted())) await emitPulls(this.#db.writes, Array.from(held.values(), pullOf))
      this.#ready = true
    } catch (error) {
      for (const [key, one] of held) {
        const again = this.#held.get(key)
        if (again) again.pulls += one.pulls
        else if (this.#held.size < MAX_HELD) this.#held.set(key, one)
      }
      this.#onFailure(new Error('pulls could not be told to the audit log', { cause: error }))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush()
  }
}

const pullOf = ({ grant, manifest, tag, pulls }: Held): Pull => ({
  source: sourceOf(grant),
  repository: {
    id: BigInt(manifest.repositoryId),
    name: nameOf(grant),
    project: { id: BigInt(grant.project.id), name: grant.project.name },
  },
  artifact: { id: BigInt(manifest.id ?? 0), digest: manifest.digest, mediaType: manifest.mediaType },
  tag: tag ?? '',
  pulls,
})
