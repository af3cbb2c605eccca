import { statement, type Database } from '@haven/db'
import type { BlobStorage } from '@haven/storage'
import type { EraseFailure } from './erase-trash.ts'

export type Sweep = { swept: number; failures: EraseFailure[] }

const PAGE = 500

// The trash ends its own, with the state of the upload. A key of a blob is not spared: what an upload left beside its object goes, the object stays.
const ended = statement<{ key: string }>(
  'sweep ended uploads',
  `with backup as materialized (
     select pg_try_advisory_xact_lock_shared(hashtext('haven.backup')) as is_away)
   select g.key from backup, unnest($1::text[]) as g(key)
    where is_away
      and not exists (select from artifacts.uploads u where u.key = g.key)
      and not exists (select from artifacts.trash t where t.key = g.key)`,
)

/**
 * Removes parts and parked bytes that no upload knows of: whoever wrote them died, or hung until another went on, and so never recorded where they are.
 * Their upload has ended, by becoming a blob or otherwise; an upload's row is there before its first byte, and no key is used twice, so nobody will ask
 * for them. What is younger than `minAgeMs` stays: a probe of the store has no row. Nothing is removed while a backup is being taken. Only
 * registryctl calls this.
 */
export async function sweepLeftovers(
  db: Database,
  storage: BlobStorage,
  { minAgeMs, signal }: { minAgeMs: number; signal?: AbortSignal },
): Promise<Sweep> {
  const sum: Sweep = { swept: 0, failures: [] }
  const youngest = Date.now() - minAgeMs
  let page = new Set<string>()
  const sweep = async () => {
    const keys = await db.writes.rows(ended, [[...page]])
    page = new Set()
    for (const { key } of keys) {
      signal?.throwIfAborted()
      try {
        await storage.discard(key, null)
        sum.swept++
      } catch (error) {
        sum.failures.push({ key, reason: error instanceof Error ? error.message : String(error) })
      }
    }
  }
  for await (const { key, startedAt } of storage.listUnfinished()) {
    signal?.throwIfAborted()
    if (startedAt.getTime() > youngest) continue
    page.add(key)
    if (page.size === PAGE) await sweep()
  }
  if (page.size > 0) await sweep()
  return sum
}
