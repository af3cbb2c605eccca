import type { Database, Db } from '@haven/db'

/** Two services that make partitions at once wait for each other here. */
const PARTITION_LOCK = 0x61_75_64_74

/**
 * Makes the audit log's partition of this month and of `monthsAhead` more. What the default partition took meanwhile moves to the
 * partition that it belongs to. May be repeated. Returns the names of those made now.
 */
export async function ensureAuditPartitions(db: Database, monthsAhead = 2): Promise<string[]> {
  return db.prisma.$transaction(async (tx) => {
    await tx.$queryRaw`select pg_advisory_xact_lock(${PARTITION_LOCK})::text`
    const missing = await tx.$queryRaw<Month[]>`
      select to_char(month, '"audit_entries_"YYYY_MM') as name, to_char(month, 'YYYY-MM-DD') as from,
             to_char(month + interval '1 month', 'YYYY-MM-DD') as until
        from generate_series(date_trunc('month', now()), date_trunc('month', now()) + ${monthsAhead} * interval '1 month',
                             interval '1 month') as month
       where to_regclass('events.' || to_char(month, '"audit_entries_"YYYY_MM')) is null`
    for (const month of missing) await makePartition(tx, month)
    return missing.map((month) => month.name)
  })
}

type Month = { name: string; from: string; until: string }

/** Attached only after it was filled: Postgres refuses a partition while the default one holds rows that belong to it. */
async function makePartition(tx: Db, { name, from, until }: Month) {
  await tx.$executeRawUnsafe(
    `create table events.${name} (like events.audit_entries including defaults including constraints)`,
  )
  await tx.$executeRawUnsafe(
    `with moved as (delete from events.audit_entries_default where occurred_at >= '${from}' and occurred_at < '${until}' returning *)
     insert into events.${name} select * from moved`,
  )
  await tx.$executeRawUnsafe(
    `alter table events.audit_entries attach partition events.${name} for values from ('${from}') to ('${until}')`,
  )
}
