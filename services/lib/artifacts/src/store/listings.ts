import { statement, type Database } from '@haven/db'

/** What has more changes than this is counted although nobody reads its list. */
const MANY_CHANGES = 200
const LISTS = 1_000

const touched = (table: string, owner: string) =>
  statement<{ id: number }>(
    `${table} touched`,
    `select ${owner} as id from artifacts.${table} group by ${owner} having count(*) > $1 limit $2`,
  )
// The second counts a list that has grown large for the first time, so that no reader waits for it.
const lists = [
  {
    touched: touched('listing_changes', 'repository_id'),
    recount: statement('listings recount', 'select from artifacts.recount_listed($1)'),
    count: statement('listings count', 'select from artifacts.total_listed($1)'),
  },
  {
    touched: touched('repository_changes', 'project_id'),
    recount: statement('repository listings recount', 'select from artifacts.recount_listed_repositories($1)'),
    count: statement('repository listings count', 'select from artifacts.find_listed_repositories($1, 0)'),
  },
]

/** So many changes are told to whoever remembers lists; who has not asked for longer finds them anew. */
const TOLD = 20_000
const forget = statement(
  'listings forget',
  `with last as (
     select least(l.transaction_id, pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1) as transaction_id
       from artifacts.listing_log l order by l.transaction_id desc offset $1 limit 1),
   said as (update artifacts.listing_epoch e set forgotten_until = last.transaction_id + 1 from last)
   delete from artifacts.listing_log l using last where l.transaction_id <= last.transaction_id`,
)

/**
 * Counts what was touched in lists of repositories and projects that are often pushed to and seldom read, so that it does not pile up. Returns
 * how many lists, a thousand of each kind at most.
 */
export async function foldListings({ writes }: Pick<Database, 'writes'>, signal: AbortSignal): Promise<number> {
  let folded = 0
  for (const list of lists) {
    for (const { id } of await writes.rows(list.touched, [MANY_CHANGES, LISTS])) {
      signal.throwIfAborted()
      await writes.rows(list.recount, [id])
      await writes.rows(list.count, [id])
      folded++
    }
  }
  await writes.rows(forget, [TOLD])
  return folded
}
