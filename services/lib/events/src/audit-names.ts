import { statement, type Database, type Tx } from '@haven/db'

/** Who adds deltas to the names and who forgets a month of them wait for each other: else a forgotten month could come back. */
const lock = statement('audit names lock', 'select pg_advisory_xact_lock(1635083379)')

export const lockAuditNames = (tx: Tx) => tx.rows(lock, [])

const foldBatch = statement<{ folded: string }>(
  'audit names fold',
  `with gone as (
     delete from events.audit_name_deltas
      where id in (select id from events.audit_name_deltas order by id limit $1)
     returning kind, name, month, entries),
   added as (
     insert into events.audit_names as n (kind, name, month, entries)
     select kind, name, month, sum(entries) from gone group by 1, 2, 3
     on conflict (kind, name, month) do update set entries = n.entries + excluded.entries)
   select count(*) as folded from gone`,
)

const FOLD_BATCH = 20_000

/** Adds what lines said of names to the names. Any number of processes may do it at once. Returns how many deltas went. */
export async function foldAuditNames(db: Pick<Database, 'transaction'>, signal?: AbortSignal): Promise<number> {
  let total = 0
  for (;;) {
    signal?.throwIfAborted()
    const folded = await db.transaction(async (tx) => {
      await lockAuditNames(tx)
      return Number((await tx.one(foldBatch, [FOLD_BATCH]))?.folded ?? 0)
    })
    total += folded
    if (folded < FOLD_BATCH) return total
  }
}
