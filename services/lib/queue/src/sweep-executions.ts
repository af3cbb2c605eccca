import { statement, type Database } from '@haven/db'

const sweep = statement<{ id: string }>(
  'jobs sweep executions',
  `delete from jobs.executions where id in (
     select id from (
       select id, vendor_type, status, row_number() over (partition by vendor_type, vendor_id order by id desc) as place
         from jobs.executions) as e
      where place > coalesce(($1::jsonb ->> vendor_type)::int, $2) and status in ('Stopped', 'Error', 'Success')
      order by id limit $3)
   returning id`,
)

const BATCH = 500

/**
 * Deletes the oldest executions with their tasks and logs, keeping the newest of each vendor: `keep` by vendor type, else
 * `defaultKeep`. Those that are not over are spared. Returns how many went.
 */
export async function sweepExecutions(
  { writes }: Pick<Database, 'writes'>,
  {
    keep = {},
    defaultKeep,
    signal,
  }: { keep?: Readonly<Record<string, number>>; defaultKeep: number; signal?: AbortSignal },
): Promise<number> {
  for (let total = 0; ;) {
    signal?.throwIfAborted()
    const gone = (await writes.rows(sweep, [JSON.stringify(keep), defaultKeep, BATCH])).length
    total += gone
    if (gone < BATCH) return total
  }
}
