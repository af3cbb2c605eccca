import { statement, type Database, type Sql, type Tx } from '@haven/db'

/** Rows older than this are no longer kept: whoever has not asked for as long must forget everything. Longer than any transaction of ours. */
export const CHANGES_KEPT_MS = 600_000

type Since = { transaction: string | null; repositoryId: number | null; horizon: string; others: boolean }

const since = statement<Since>(
  'changes since',
  `select c.transaction_id as transaction, c.repository_id as "repositoryId", now.horizon,
          exists (select from artifacts.readers r where r.id <> $2 and r.until > clock_timestamp()) as others
     from (select pg_snapshot_xmin(pg_current_snapshot())::text as horizon) now
     left join artifacts.changes c on c.transaction_id >= $1::bigint`,
)

const announce = statement(
  'changes announce reader',
  `insert into artifacts.readers (id, until) values ($1, clock_timestamp() + $2 * interval '1 millisecond')
   on conflict (id) do update set until = excluded.until`,
)

const forget = statement<{ forgotten: number }>(
  'changes forget',
  `with gone as (delete from artifacts.readers where until < now() - interval '1 minute'),
   old as (
     delete from artifacts.changes where changed_at < now() - interval '${CHANGES_KEPT_MS} milliseconds' returning repository_id)
   select count(*)::int as forgotten from old`,
)

export type Changes = {
  /** To ask from the next time: what was not committed yet, and so not told now, is told then. */
  horizon: string
  changes: { transaction: string; repositoryId: number }[]
  /** Whether other processes remember answers at this moment. */
  others: boolean
}

/** What was taken away by transactions that had not ended at the horizon of an earlier answer. */
export const changesSince = async (sql: Sql, horizon: string, reader: string): Promise<Changes> =>
  changesOf(await sql.rows(since, [horizon, reader]))

/** As `changesSince`, behind the commit of a transaction: it is among what is told. */
export const changesBehind = async (tx: Tx, horizon: string, reader: string): Promise<Changes> =>
  changesOf(await tx.behind(since, [horizon, reader]))

function changesOf(rows: readonly Since[]): Changes {
  const changes = rows.flatMap(({ transaction, repositoryId }) =>
    transaction === null || repositoryId === null ? [] : [{ transaction, repositoryId }],
  )
  return { horizon: rows[0]!.horizon, changes, others: rows[0]!.others }
}

/** Says that a process remembers answers for so long. */
export const announceReader = ({ writes }: Database, reader: string, ms: number) =>
  writes.rows(announce, [reader, ms]).then(() => undefined)

/** Clears away changes that nobody asks for any more, and readers that are gone. Returns how many changes. */
export const forgetChanges = async ({ writes }: Pick<Database, 'writes'>): Promise<number> =>
  (await writes.one(forget, []))!.forgotten
