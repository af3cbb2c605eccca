import { statement, type Database, type Sql } from '@haven/db'

/** Entries changed in one transaction. */
const BATCH = 5_000
/** Entries looked at in one: nothing leads to them by what they are about. */
const WINDOW = 50_000

const maskActor = statement<{ id: string }>(
  'audit mask actor',
  `update events.audit_entries e set actor = $2
     from (select id, occurred_at from events.audit_entries where actor = $1 limit $3) b
    where e.id = b.id and e.occurred_at = b.occurred_at returning e.id`,
)

type Looked = { seen: string; changed: string; last_at: Date | null; last_id: string | null }

// A name is replaced where `audit.ts` puts one and nowhere else: `member ann in project shop`, or at the end. A project may be called
// as its owner is, and a user `member`.
const maskSubject = statement<Looked>(
  'audit mask subject',
  `with batch as (
     select e.id, e.occurred_at, e.resource_type, e.resource,
            replace(e.description, ' member ' || $1 || ' in project ', ' member ' || $2 || ' in project ') as description
       from events.audit_entries e
      where e.occurred_at >= $3 and (e.occurred_at, e.id) > ($3, $4::bigint)
      order by e.occurred_at, e.id limit $5),
   changed as (
     update events.audit_entries e
        set resource = left(b.resource, -length($1)) || $2,
            description = case when b.resource_type = 'user' and right(b.description, length($1)) = $1
                               then left(b.description, -length($1)) || $2 else b.description end
       from batch b
      where e.occurred_at = b.occurred_at and e.id = b.id
        and ((b.resource_type = 'user' and b.resource = $1) or (b.resource_type = 'member' and b.resource = 'user:' || $1))
      returning e.id),
   last as (select id, occurred_at from batch order by occurred_at desc, id desc limit 1)
   select (select count(*) from batch) as seen, (select count(*) from changed) as changed,
          (select occurred_at from last) as last_at, (select id from last) as last_id`,
)

/**
 * Calls somebody by another name in all lines of what he did and of what was done to his account and his memberships. In small
 * transactions; may be repeated. Returns how many lines.
 */
export async function maskAuditUser(
  db: Database,
  {
    username,
    masked,
    signal,
    hold,
  }: { username: string; masked: string; signal?: AbortSignal; hold?: (tx: Sql) => Promise<void> },
): Promise<number> {
  if (username === masked) return 0
  const held = <T>(work: (tx: Sql) => Promise<T>) => {
    signal?.throwIfAborted()
    return db.transaction(async (tx) => {
      await hold?.(tx)
      return work(tx)
    })
  }
  let total = 0
  for (let changed = BATCH; changed === BATCH; total += changed) {
    changed = await held(async (tx) => (await tx.rows(maskActor, [username, masked, BATCH])).length)
  }
  let from = new Date(0)
  let after = '0'
  for (;;) {
    const position = [from, after]
    const row: Looked | null = await held((tx) => tx.one(maskSubject, [username, masked, ...position, WINDOW]))
    total += Number(row?.changed ?? 0)
    if (!row?.last_at || !row.last_id || Number(row.seen) < WINDOW) return total
    from = row.last_at
    after = row.last_id
  }
}
