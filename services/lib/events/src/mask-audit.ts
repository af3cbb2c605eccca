import { statement, type Database, type Sql } from '@haven/db'

/** Entries changed in one transaction. */
const BATCH = 5_000

const mask = statement<{ id: string }>(
  'audit mask actor',
  `update events.audit_entries e set actor = $2
     from (select id, occurred_at from events.audit_entries where actor = $1 limit $3) b
    where e.id = b.id and e.occurred_at = b.occurred_at returning e.id`,
)

/** Calls somebody by another name in all lines of what he did. In small transactions; may be repeated. Returns how many lines. */
export async function maskAuditActor(
  db: Database,
  {
    actor,
    masked,
    signal,
    hold,
  }: { actor: string; masked: string; signal?: AbortSignal; hold?: (tx: Sql) => Promise<void> },
): Promise<number> {
  if (actor === masked) return 0
  for (let total = 0; ;) {
    signal?.throwIfAborted()
    const changed = await db.transaction(async (tx) => {
      await hold?.(tx)
      return (await tx.rows(mask, [actor, masked, BATCH])).length
    })
    total += changed
    if (changed < BATCH) return total
  }
}
