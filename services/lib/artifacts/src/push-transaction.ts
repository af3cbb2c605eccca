import type { Tx } from '@haven/db'
import { UNLIMITED } from '@haven/projects'
import type { RecordDeps } from './deps.ts'
import type { PushGrant } from './grants.ts'

/**
 * The transaction of a push, which other pushes of the moment share, but for those with one of the same `keys`. Pushes to a project with a limit
 * come one after another, so that two cannot both take the last bytes.
 */
export function pushTransaction<T>(
  { db }: RecordDeps,
  { project }: PushGrant,
  keys: readonly string[],
  work: (tx: Tx) => Promise<T>,
): Promise<T> {
  return project.quotaBytes === UNLIMITED ? db.shared.transaction(keys, work) : db.transaction(work)
}
