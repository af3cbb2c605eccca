import { statement, type Database } from '@haven/db'
import { isId } from './is-id.ts'

/** Where a project stands in the tree of permissions. */
export type ProjectNode = { id: number; name: string; public: boolean; createdAt: Date }

export type ImmutableRuleFacts = { id: number; rule: unknown; protectOverwrite: boolean; protectDelete: boolean }

/** What the push and pull paths ask about a project. */
export type ProjectFacts = ProjectNode & {
  ownerId: number
  /** The remote registry of a pull-through project. */
  registryId: number | null
  updatedAt: Date
  metadata: Record<string, string>
  /** Enabled rules only. */
  immutableRules: ImmutableRuleFacts[]
  /** The limit of its storage; -1 for none. What counts is decided when it is charged: this tells whether there is anything to ask. */
  quotaBytes: number
}

type FactsRow = {
  id: number
  name: string
  owner_id: number
  registry_id: number | null
  created_at: Date
  updated_at: Date
  metadata: Record<string, string>
  immutable_rules: ImmutableRuleFacts[]
  quota_bytes: number
}

const facts = `
  select p.id, p.name, p.owner_id, p.registry_id, p.created_at, p.updated_at,
         coalesce((select jsonb_object_agg(m.name, m.value) from projects.project_metadata m where m.project_id = p.id), '{}') as metadata,
         coalesce((select jsonb_agg(jsonb_build_object('id', r.id, 'rule', r.rule, 'protectOverwrite', r.protect_overwrite,
                                                       'protectDelete', r.protect_delete) order by r.id)
                     from projects.immutable_rules r where r.project_id = p.id and not r.disabled), '[]') as immutable_rules,
         coalesce((select q.hard_bytes from projects.quotas q where q.project_id = p.id), -1)::float8 as quota_bytes
    from projects.projects p`

const byName = statement<FactsRow>('projects by name', `${facts} where p.name_key = $1`)
const byAlias = statement<FactsRow>(
  'projects by alias',
  `${facts} where p.deleted_at is null and p.id = (select a.project_id from projects.project_aliases a where a.name = $1)`,
)
const byId = statement<FactsRow>('projects by id', `${facts} where p.id = $1 and p.deleted_at is null`)

const MAX_AGE_MS = 5_000
const MAX_ENTRIES = 10_000

type Entry = { facts: ProjectFacts; readAt: number }

/**
 * Projects by name or id, for every request of every service. An answer is at most five seconds old, and newer than the last
 * change whose announcement arrived. What does not exist is not remembered: a new project is there at once, and guessing names
 * fills nothing.
 */
export class ProjectDirectory implements Disposable {
  readonly #db: Database
  readonly #clock: () => number
  readonly #stopListening: () => void
  #names = new Map<string, Entry>()
  #ids = new Map<number, Entry>()
  /** Counts what was forgotten: a read that began before must not be stored after. */
  #generation = 0

  /** @param clock milliseconds that only grow. */
  constructor(db: Database, { clock = () => performance.now() }: { clock?: () => number } = {}) {
    this.#db = db
    this.#clock = clock
    this.#stopListening = db.announcements.on((table) => {
      if (table === 'lost' || table.startsWith('projects.')) this.forget()
    })
  }

  /** The project of this name, or the one that had it before it was renamed. Null when there is none or it was deleted. */
  byName(name: string): Promise<ProjectFacts | null> {
    return this.#find(this.#names, name, async () => {
      const { reads } = this.#db
      return (await reads.one(byName, [name])) ?? (await reads.one(byAlias, [name]))
    })
  }

  /** What `byName` would answer without reading; null: ask it. */
  remembered(name: string): ProjectFacts | null {
    const known = this.#names.get(name)
    return known && this.#clock() - known.readAt < MAX_AGE_MS ? known.facts : null
  }

  /** Null also for a number that can be no id. */
  async byId(id: number): Promise<ProjectFacts | null> {
    if (!isId(id)) return null
    return this.#find(this.#ids, id, () => this.#db.reads.one(byId, [id]))
  }

  /** Drops what is remembered; for callers that have just changed a project. */
  forget(): void {
    this.#generation++
    this.#names = new Map()
    this.#ids = new Map()
  }

  [Symbol.dispose](): void {
    this.#stopListening()
  }

  async #find<Key>(
    cache: Map<Key, Entry>,
    key: Key,
    read: () => Promise<FactsRow | null>,
  ): Promise<ProjectFacts | null> {
    const now = this.#clock()
    const known = cache.get(key)
    if (known && now - known.readAt < MAX_AGE_MS) return known.facts

    const generation = this.#generation
    const row = await read()
    const found = row && toFacts(row)
    if (generation === this.#generation) {
      if (found) {
        if (cache.size >= MAX_ENTRIES) cache.clear()
        cache.set(key, { facts: found, readAt: now })
      } else {
        cache.delete(key)
      }
    }
    return found
  }
}

const toFacts = (row: FactsRow): ProjectFacts => ({
  id: row.id,
  name: row.name,
  public: row.metadata.public === 'true',
  ownerId: row.owner_id,
  registryId: row.registry_id,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
  metadata: row.metadata,
  immutableRules: row.immutable_rules,
  quotaBytes: row.quota_bytes,
})
