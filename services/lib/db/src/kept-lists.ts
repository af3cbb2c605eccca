import type { Sql } from './sql.ts'
import type { Statement } from './statement.ts'
import type { Prisma } from './gen/prisma/client.ts'
import { TwoGenerations } from './two-generations.ts'

/** What was found of a list: how many rows, and when it was asked for again, the keys of all of them in their order. */
export type KeptList = { readonly total: number; readonly keys: Int32Array | null }

/** Of one of two generations. */
const MAX_BYTES = 16 * 1024 * 1024
const MAX_LISTS = 10_000
/** So many connections at a time find lists that take long; the others are for everybody else. */
const LANES = 3

const readVersion: Statement<{ version: string }> = {
  name: 'lists version',
  text: `select coalesce(string_agg(id || '-' || salt, ' ' order by id), '') as version
           from system.list_changes where listed = any($1::text[])`,
}

/**
 * What lists held, for as long as nothing that they are made of is changed by anybody: each change is seen by the very next `version`. It
 * costs the reader one short statement and whoever writes one line (the `list_change` triggers of the migrations).
 */
export class KeptLists {
  readonly #sql: Sql
  readonly #lists = new TwoGenerations<{ version: string; list: KeptList }>(
    MAX_LISTS,
    MAX_BYTES,
    (key, { version, list }) => 2 * (key.length + version.length) + (list.keys?.byteLength ?? 0),
    'lists',
  )

  readonly #running = new Map<string, Promise<unknown>>()
  readonly #lanes: Promise<unknown>[] = Array.from({ length: LANES }, () => Promise.resolve())
  #lane = 0

  constructor(sql: Sql) {
    this.#sql = sql
  }

  /** The same text as before: none of these tables was changed. To be read before what is kept under it. */
  async version(tables: readonly string[]): Promise<string> {
    return (await this.#sql.one(readVersion, [tables]))!.version
  }

  get(key: string, version: string): KeptList | null {
    const kept = this.#lists.get(key)
    return kept?.version === version ? kept.list : null
  }

  /** The last that was kept, for who can bring it up to date. */
  last(key: string): { version: string; list: KeptList } | null {
    return this.#lists.get(key) ?? null
  }

  keep(key: string, version: string, list: KeptList): void {
    this.#lists.set(key, { version, list })
  }

  /** Who asks while the same is being found shares what is found. */
  once<Found>(key: string, find: () => Promise<Found>): Promise<Found> {
    const running = this.#running.get(key)
    if (running) return running as Promise<Found>
    const found = find().finally(() => this.#running.delete(key))
    this.#running.set(key, found)
    return found
  }

  /** Work that takes long, when its turn comes: a few at a time. */
  inTurn<Found>(find: () => Promise<Found>): Promise<Found> {
    const lane = this.#lane++ % LANES
    const found = this.#lanes[lane]!.then(find)
    // Whoever asked is told of a failure; the next has nothing to do with it.
    this.#lanes[lane] = found.catch(() => undefined)
    return found
  }

  /** Drops everything: the next page of each list is found anew. */
  forget(): void {
    this.#lists.clear()
  }
}

/** Tells two statements apart, their values included. */
export const keyOfList = ({ sql, values }: Prisma.Sql): string =>
  JSON.stringify([sql, values], (_, value: unknown) => (typeof value === 'bigint' ? `${value}n` : value))
