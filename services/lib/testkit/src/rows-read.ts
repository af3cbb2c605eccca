import { statement, type Database, type Sql } from '@haven/db'

const rowsOf = statement<{ rows: number }>(
  'rows read',
  `select sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int as rows from pg_stat_xact_user_tables where schemaname = 'artifacts'`,
)

/** How many rows of artifacts each of a dozen askings reads: the first are planned one by one, and planning looks at some; the last once for all. */
export const rowsRead = (db: Database, ask: (tx: Sql) => Promise<unknown>): Promise<number[]> =>
  db.transaction(async (tx) => {
    const read: number[] = []
    for (let n = 0; n < 12; n++) {
      const before = (await tx.one(rowsOf, []))!.rows
      await ask(tx)
      read.push((await tx.one(rowsOf, []))!.rows - before)
    }
    return read
  })
