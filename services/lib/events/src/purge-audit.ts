import { statement, type Database, type Sql } from '@haven/db'
import { lockAuditNames } from './audit-names.ts'
import { artifactEventTypes } from './event-types.ts'

export type AuditPurge = {
  /** What is older goes. */
  before: Date
  /** Event types to purge. `other`: all but the three of artifacts. */
  eventTypes: readonly string[]
  signal?: AbortSignal
  /** Called in each transaction that removes something; throws when it must not any more. */
  hold?: (tx: Sql) => Promise<void>
  /** Told of what went. */
  onPurged?: (what: { month: string | null; entries: number }) => void
}

/** Entries looked at in one transaction. */
const BATCH = 5_000

const isDue = `(e.operation || '_' || e.resource_type = any($2::text[])
                or ($3::boolean and e.operation || '_' || e.resource_type <> all($4::text[])))`

const countDue = statement<{ entries: string }>(
  'audit count due',
  `select count(*) as entries from events.audit_entries e where e.occurred_at < $1 and ${isDue}`,
)
const purgeBatch = statement<{ seen: string; gone: string; last_at: Date | null; last_id: string | null }>(
  'audit purge batch',
  `with batch as (
     select e.id, e.occurred_at, ${isDue} as due from events.audit_entries e
      where e.occurred_at < $1 and e.occurred_at >= $5 and (e.occurred_at, e.id) > ($5, $6::bigint)
      order by e.occurred_at, e.id limit $7),
   gone as (
     delete from events.audit_entries e using batch b where b.due and e.occurred_at = b.occurred_at and e.id = b.id returning e.id),
   last as (select id, occurred_at from batch order by occurred_at desc, id desc limit 1)
   select (select count(*) from batch) as seen, (select count(*) from gone) as gone,
          (select occurred_at from last) as last_at, (select id from last) as last_id`,
)
const wholeMonths = statement<{ name: string; month: string; entries: string }>(
  'audit whole months',
  `select c.relname as name, to_char(m.month, 'YYYY-MM-DD') as month,
          (select coalesce(sum(entries), 0) from events.audit_counts where scope = -1 and month = m.month) as entries
     from pg_inherits i
     join pg_class c on c.oid = i.inhrelid
     cross join lateral (select to_date(right(c.relname, 7), 'YYYY_MM') as month) m
    where i.inhparent = 'events.audit_entries'::regclass and c.relname ~ '^audit_entries_[0-9]{4}_[0-9]{2}$'
      and (m.month + interval '1 month')::timestamptz <= $1
    order by m.month`,
)
/** The two tables of counts, by what they count. */
const countTables = { month: 'events.audit_counts', day: 'events.audit_day_counts' } as const
const spans = ['month', 'day'] as const
const inMonth = (column: string, type: string) =>
  `${column} >= $1::date${type} and ${column} < ($1::date + interval '1 month')${type}`
const nameTables = ['events.audit_names', 'events.audit_name_deltas'] as const
const forgetMonth = [
  ...spans.map((each) =>
    statement(`audit forget month by ${each}`, `delete from ${countTables[each]} where ${inMonth(each, '')}`),
  ),
  ...nameTables.map((table) =>
    statement(`audit forget month of ${table}`, `delete from ${table} where ${inMonth('month', '')}`),
  ),
]
// Lines that came too late for their month's partition lie in the default one.
const countMonth = [
  ...spans.map((each) =>
    statement(
      `audit count month by ${each}`,
      `insert into ${countTables[each]} (scope, ${each}, operation, resource_type, entries)
       select s.scope, date_trunc('${each}', e.occurred_at at time zone 'UTC')::date, e.operation, e.resource_type, count(*)
         from events.audit_entries e cross join lateral (values (-1), (coalesce(e.project_id, 0))) as s(scope)
        where ${inMonth('e.occurred_at', '::timestamptz')}
        group by 1, 2, 3, 4`,
    ),
  ),
  statement(
    'audit count month of names',
    `insert into events.audit_names (kind, name, month, entries)
     select s.kind, s.name, $1::date, count(*)
       from events.audit_entries e cross join lateral (values ('actor', e.actor), ('resource', e.resource)) as s(kind, name)
      where ${inMonth('e.occurred_at', '::timestamptz')}
      group by 1, 2`,
  ),
]
const forgetEmpty = [...Object.values(countTables), 'events.audit_names'].map((table) =>
  statement(`audit forget empty of ${table}`, `delete from ${table} where entries = 0`),
)

type Kinds = Pick<AuditPurge, 'eventTypes'>
const kinds = ({ eventTypes }: Kinds) => [[...eventTypes], eventTypes.includes('other'), [...artifactEventTypes]]
const isEverything = ({ eventTypes }: Kinds) =>
  eventTypes.includes('other') && artifactEventTypes.every((type) => eventTypes.includes(type))

/** How many entries a purge would remove. */
export async function countPurgeableAudit(
  db: Database,
  purge: Pick<AuditPurge, 'before' | 'eventTypes'>,
): Promise<number> {
  return Number((await db.writes.one(countDue, [purge.before, ...kinds(purge)]))!.entries)
}

/**
 * Removes entries in small transactions; where every type goes, whole months go with their partition. May be stopped and repeated.
 * Returns how many went.
 */
export async function purgeAudit(db: Database, purge: AuditPurge): Promise<number> {
  const dropped = isEverything(purge) ? await dropMonths(db, purge) : 0
  return dropped + (await purgeEntries(db, purge))
}

async function dropMonths(db: Database, { before, signal, hold, onPurged }: AuditPurge): Promise<number> {
  let total = 0
  for (const { name, month, entries } of await db.writes.rows(wholeMonths, [before])) {
    signal?.throwIfAborted()
    await db.transaction(async (tx) => {
      await hold?.(tx)
      // First: it waits for who writes into the month, and holds off who would.
      await tx.rows(statement(`audit drop ${name}`, `drop table if exists events.${name}`), [])
      await lockAuditNames(tx)
      for (const change of [...forgetMonth, ...countMonth]) await tx.rows(change, [month])
    })
    total += Number(entries)
    onPurged?.({ month: month.slice(0, 7), entries: Number(entries) })
  }
  return total
}

async function purgeEntries(db: Database, purge: AuditPurge): Promise<number> {
  let total = 0
  let after: { at: Date; id: string } = { at: new Date(0), id: '0' }
  for (;;) {
    purge.signal?.throwIfAborted()
    const batch = await db.transaction(async (tx) => {
      await purge.hold?.(tx)
      return (await tx.one(purgeBatch, [purge.before, ...kinds(purge), after.at, after.id, BATCH]))!
    })
    total += Number(batch.gone)
    if (Number(batch.gone) > 0) purge.onPurged?.({ month: null, entries: Number(batch.gone) })
    if (Number(batch.seen) < BATCH || batch.last_at === null || batch.last_id === null) break
    after = { at: batch.last_at, id: batch.last_id }
  }
  for (const forget of forgetEmpty) await db.writes.rows(forget, [])
  return total
}
