import { statement, type Database } from '@haven/db'
import { ArtifactPulledSchema, PullsGatheredSchema } from '@haven/proto/events'
import { recordedEvents, type EventRow, type RecordedEvent } from './dispatcher.ts'

const read = statement<EventRow>(
  'events tail',
  `select id, type, case when type = any($4::text[]) then payload end as payload, project_id, occurred_at
     from events.outbox where id = any($2::bigint[])
   union all
   (select id, type, case when type = any($4::text[]) then payload end, project_id, occurred_at
      from events.outbox where id > $1 order by id limit $3)`,
)
const ends = statement<{ oldest: string; newest: string }>(
  'events ends',
  `select coalesce(min(id), 1)::text as oldest, coalesce(max(id), 0)::text as newest from events.outbox`,
)
const stored = statement<EventRow>(
  'events stored',
  `select id, type, payload, project_id, occurred_at
     from events.outbox where id > $1 and id <= $2 and type = any($4::text[]) order by id limit $3`,
)

const PAGE = 1_000
/** What was begun and not committed for this long is taken for undone. */
const LATE_MS = 60_000
/** Of one jump in the numbers; after a crash of Postgres they skip some. */
const MAX_GAP = 1_000n
/** Rows that are looked through for what somebody missed. */
const MAX_MISSED = 100_000n

/**
 * Reads new events for everybody in a process who follows them. Numbers are given before the commit, so one may appear after a higher one: what
 * is missing in between is looked for again until it is there, or for a minute.
 */
export class EventTail {
  readonly #db: Database
  readonly #types: readonly string[]
  readonly #now: () => number
  /** Numbers that were passed over, and since when. */
  readonly #gaps = new Map<bigint, number>()
  #last = 0n

  /** @param types full names of the messages that are wanted. @param now milliseconds that only grow. */
  constructor(db: Database, types: readonly string[], now: () => number = () => performance.now()) {
    this.#db = db
    this.#types = types.includes(ArtifactPulledSchema.typeName) ? [...types, PullsGatheredSchema.typeName] : types
    this.#now = now
  }

  /** The highest that was seen. */
  get last(): bigint {
    return this.#last
  }

  /** All events up to this one were returned, or will not come any more. */
  get position(): bigint {
    let first = this.#last + 1n
    for (const gap of this.#gaps.keys()) if (gap < first) first = gap
    return first - 1n
  }

  /** Begins near the end, so that nothing which is on its way there is missed. Answers the wanted events after `from`. */
  async open(): Promise<{ from: bigint; events: RecordedEvent[] }> {
    const { oldest, newest } = (await this.#db.writes.one(ends, []))!
    const before = BigInt(oldest) - 1n
    this.#gaps.clear()
    this.#last = BigInt(newest) > MAX_GAP ? BigInt(newest) - MAX_GAP : 0n
    const from = before > this.#last ? before : this.#last
    return { from, events: await this.next() }
  }

  /** Wanted events that have become visible since the last time, a thousand at most; empty when there is nothing new. */
  async next(): Promise<RecordedEvent[]> {
    const now = this.#now()
    for (const [gap, since] of this.#gaps) if (now - since > LATE_MS) this.#gaps.delete(gap)
    let rows: EventRow[]
    do {
      rows = await this.#db.writes.rows(read, [this.#last, [...this.#gaps.keys()], PAGE, this.#types])
      for (const row of rows) this.#passed(BigInt(row.id), now)
    } while (rows.length >= PAGE && rows.every((row) => row.payload === null))
    return rows.flatMap(recordedEvents)
  }

  #passed(id: bigint, now: number): void {
    if (this.#gaps.delete(id) || id <= this.#last) return
    const from = id - this.#last > MAX_GAP ? id - MAX_GAP : this.#last + 1n
    for (let missing = from; missing < id; missing++) this.#gaps.set(missing, now)
    this.#last = id
  }

  /** Wanted events after one number and up to another; null when some of them are forgotten, or when there are more than `limit`. */
  async between(after: bigint, until: bigint, limit: number): Promise<RecordedEvent[] | null> {
    if (until - after > MAX_MISSED) return null
    const [found, rows] = await Promise.all([
      this.#db.writes.one(ends, []),
      this.#db.writes.rows(stored, [after, until, limit + 1, this.#types]),
    ])
    const { oldest, newest } = found!
    const forgotten = BigInt(oldest) > after + 1n || BigInt(newest) < until
    const events = rows.flatMap(recordedEvents)
    return forgotten || events.length > limit ? null : events
  }
}
