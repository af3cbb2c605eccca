import { statement, type Database } from '@haven/db'
import type { BlobStorage, UploadState } from '@haven/storage'
import { faultPoint } from '../fault-point.ts'

export type Erasure = {
  erased: number
  erasedBytes: number
  failed: number
  remaining: number
  /** Nothing (more) was erased since a backup is being taken. */
  held: boolean
  failures: EraseFailure[]
}
export type EraseFailure = { key: string; reason: string }

export type EraseOptions = {
  /** Objects at most; default all that are due. */
  limit?: number
  /** Deletions at the same time. Default 1. */
  workers?: number
  /** Only these, when they are due; default all. */
  keys?: readonly string[]
  signal?: AbortSignal
  onProgress?: (soFar: Erasure) => void
}

type Row = { key: string; digest: string | null; size_bytes: string; state: UploadState | null }

const BATCH = 100
const MAX_FAILURES_TOLD = 100

// Taken by moving its time: no transaction is open while the store works, a second eraser passes the row over, and after a crash it
// is due again. Keys are never used twice, so erasing one again does no harm. A key that a record points at is never taken,
// whatever put it here.
//
// Whoever takes a backup holds the other side of this lock, in a session of its own (deploy/backup.md). Asked in the statement that takes:
// what is taken was in the trash before the backup's first look, so nothing that it will find recorded is among it.
const take = statement<({ may_erase: boolean } & Row) | { may_erase: boolean; key: null }>(
  'trash take',
  `with backup as materialized (
     select pg_try_advisory_xact_lock_shared(hashtext('haven.backup')) as is_away),
   taken as (
     update artifacts.trash t
        set attempts = t.attempts + 1, erase_after = now() + least(power(2, t.attempts), 64) * interval '1 minute'
      where (select is_away from backup) and t.key in (
        select d.key from artifacts.trash d
         where d.store = $1 and d.erase_after <= now() and ($3::text[] is null or d.key = any($3::text[]))
           and not exists (select from artifacts.blob_locations l where l.key = d.key)
           and not exists (select from artifacts.uploads u where u.key = d.key)
         order by d.erase_after limit $2 for update skip locked)
     returning key, digest, size_bytes, state)
   select is_away as may_erase, taken.* from backup left join taken on true`,
)
const done = statement('trash done', 'delete from artifacts.trash where key = any($1::text[])')
const failed = statement(
  'trash failed',
  `update artifacts.trash t set last_error = f.reason from unnest($1::text[], $2::text[]) as f(key, reason) where t.key = f.key`,
)
const countDue = statement<{ count: number; bytes: number }>(
  'trash count due',
  `select count(*)::int as count, coalesce(sum(size_bytes), 0)::float8 as bytes from artifacts.trash
    where store = $1 and erase_after <= now()`,
)
const byDigest = statement<{ key: string }>(
  'trash by digest',
  `update artifacts.trash set erase_after = least(erase_after, now()) where digest = $1 and store = $2 returning key`,
)

/**
 * Erases objects whose time in the trash is over. One that the store does not delete stays, with the reason, and is tried again
 * after one minute, two, four, up to an hour; the others go on. While a backup is being taken nothing is erased: it stays due. Only
 * registryctl calls this.
 */
export async function eraseTrash(db: Database, storage: BlobStorage, options: EraseOptions = {}): Promise<Erasure> {
  const { limit = Infinity, workers = 1, keys = null, signal, onProgress } = options
  const sum: Erasure = { erased: 0, erasedBytes: 0, failed: 0, remaining: 0, held: false, failures: [] }
  let left = limit
  const work = async () => {
    while (left > 0) {
      signal?.throwIfAborted()
      const size = Math.min(BATCH, left)
      left -= size
      const answer = await db.writes.rows(take, [storage.name, size, keys])
      if (!answer[0]!.may_erase) sum.held = true
      const rows = answer.filter((row) => row.key !== null)
      if (rows.length === 0) return
      await faultPoint('gc.beforeErase')
      await eraseBatch(db, storage, rows, sum)
      onProgress?.({ ...sum })
    }
  }
  const outcomes = await Promise.allSettled(Array.from({ length: workers }, work))
  const rejected = outcomes.find((outcome) => outcome.status === 'rejected')
  if (rejected) throw rejected.reason
  sum.remaining = (await db.writes.one(countDue, [storage.name]))!.count
  return sum
}

async function eraseBatch(db: Database, storage: BlobStorage, rows: readonly Row[], sum: Erasure): Promise<void> {
  const failures: EraseFailure[] = []
  const discarded: Row[] = []
  for (const row of rows) {
    // Without a digest it was an upload: its parts go, and the object as well, in case it had been completed but not recorded.
    const reason = row.digest === null ? await discard(storage, row) : null
    if (reason === null) discarded.push(row)
    else failures.push({ key: row.key, reason })
  }
  const { removed, failed: refused } = await storage.remove(discarded.map((row) => row.key))
  failures.push(...refused.map(({ key, error }) => ({ key, reason: error.message })))
  await faultPoint('gc.erased')
  await db.writes.rows(done, [removed])
  if (failures.length > 0) {
    await db.writes.rows(failed, [failures.map((failure) => failure.key), failures.map((failure) => failure.reason)])
  }
  const gone = new Set<string>(removed)
  sum.erased += removed.length
  sum.erasedBytes += discarded.reduce((bytes, row) => (gone.has(row.key) ? bytes + Number(row.size_bytes) : bytes), 0)
  sum.failed += failures.length
  sum.failures.push(...failures.slice(0, MAX_FAILURES_TOLD - sum.failures.length))
}

async function discard(storage: BlobStorage, { key, state }: Row): Promise<string | null> {
  try {
    await storage.discard(key, state)
    return null
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** What is due now. */
export const dueTrash = async (db: Database, store: string): Promise<{ count: number; bytes: number }> =>
  (await db.writes.one(countDue, [store]))!

/** Makes what lies in the trash of this digest due at once. Returns how many objects that are. */
export const makeDue = async (db: Database, store: string, digest: string): Promise<number> =>
  (await db.writes.rows(byDigest, [digest, store])).length
