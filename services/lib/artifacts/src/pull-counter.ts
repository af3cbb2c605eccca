import { statement, type Database } from '@haven/db'

const FLUSH_MS = 1_000
/** So many different manifests and tags are not held any longer: written all at once they would keep others waiting. */
const FLUSH_AT = 500

const count = statement(
  'pulls count',
  `with pulled as (select * from unnest($1::int[], $2::bigint[]) as p (id, pulls))
   update artifacts.repositories r set pull_count = r.pull_count + p.pulls from pulled p where r.id = p.id`,
)
const touchManifests = statement(
  'pulls touch manifests',
  // Most are there, and an update costs half of an insert that finds its row.
  `with touched as (
     update artifacts.last_pulls set pulled_at = now(), pulled_day = (now() at time zone 'UTC')::date
      where manifest_id = any($1::bigint[]) returning manifest_id)
   insert into artifacts.last_pulls (manifest_id, pulled_at, pulled_day)
   select m.id, now(), (now() at time zone 'UTC')::date from artifacts.manifests m
    where m.id = any($1::bigint[]) and m.deleted_at is null and not exists (select from touched t where t.manifest_id = m.id) order by m.id
   on conflict (manifest_id) do update set pulled_at = excluded.pulled_at, pulled_day = excluded.pulled_day`,
)
const touchTags = statement(
  'pulls touch tags',
  'update artifacts.tags set pulled_at = now() where id = any($1::bigint[])',
)

type Pulled = { repositoryId: number; id: string | null; tagId: string | null }

/**
 * Counts pulls in memory and writes them once a second, or when they are of many things, so that a pull costs no write of its own. A process that
 * is killed loses a second of counts, never anything that a client was promised.
 */
export class PullCounter implements AsyncDisposable {
  readonly #db: Database
  readonly #onFailure: (failure: Error) => void
  #timer: NodeJS.Timeout | null = null
  #pulls = new Map<number, number>()
  #manifests = new Set<string>()
  #tags = new Set<string>()
  #writing: Promise<void> = Promise.resolve()
  /** The last write has ended, and was no failure. */
  #ready = true

  constructor(db: Database, onFailure: (failure: Error) => void) {
    this.#db = db
    this.#onFailure = onFailure
  }

  count({ repositoryId, id, tagId }: Pulled): void {
    this.#pulls.set(repositoryId, (this.#pulls.get(repositoryId) ?? 0) + 1)
    if (id !== null) this.#manifests.add(id)
    if (tagId !== null) this.#tags.add(tagId)
    if (this.#ready && this.#manifests.size + this.#tags.size >= FLUSH_AT) void this.flush()
    else this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  /** Writes what was counted so far. A failed write is tried again with the next one. */
  flush(): Promise<void> {
    if (this.#timer) clearTimeout(this.#timer)
    this.#timer = null
    this.#ready = false
    this.#writing = this.#writing.then(() => this.#write())
    return this.#writing
  }

  async #write(): Promise<void> {
    const pulls = this.#pulls
    const ids = [...pulls.keys()].sort((a, b) => a - b)
    const manifests = [...this.#manifests]
    const tags = [...this.#tags]
    this.#pulls = new Map()
    this.#manifests = new Set()
    this.#tags = new Set()
    try {
      if (ids.length > 0) {
        await this.#db.transaction(async (tx) => {
          await tx.rows(count, [ids, ids.map((id) => pulls.get(id))])
          await tx.rows(touchManifests, [manifests])
          await tx.rows(touchTags, [tags])
        })
      }
      this.#ready = true
    } catch (error) {
      for (const [id, number] of pulls) this.#pulls.set(id, (this.#pulls.get(id) ?? 0) + number)
      for (const id of manifests) this.#manifests.add(id)
      for (const id of tags) this.#tags.add(id)
      this.#onFailure(new Error('pull counts could not be written', { cause: error }))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush()
  }
}
