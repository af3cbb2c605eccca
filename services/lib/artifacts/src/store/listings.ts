import { statement, type Database } from '@haven/db'

/** A repository with more of them than this is counted although nobody reads its list. */
const MANY_CHANGES = 200
const REPOSITORIES = 1_000

const touched = statement<{ id: number }>(
  'listings touched',
  `select repository_id as id from artifacts.listing_changes group by repository_id having count(*) > $1 limit $2`,
)
const recount = statement('listings recount', 'select from artifacts.recount_listed($1)')

/**
 * Counts what was touched in lists of repositories that are often pushed to and seldom read, so that it does not pile up. Returns how many
 * repositories, a thousand at most.
 */
export async function foldListings({ writes }: Pick<Database, 'writes'>, signal: AbortSignal): Promise<number> {
  const repositories = await writes.rows(touched, [MANY_CHANGES, REPOSITORIES])
  for (const { id } of repositories) {
    signal.throwIfAborted()
    await writes.rows(recount, [id])
  }
  return repositories.length
}
