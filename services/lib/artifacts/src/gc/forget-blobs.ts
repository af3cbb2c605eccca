import { statement } from '@haven/db'
import { faultPoint } from '../fault-point.ts'
import { leadSeconds, sweep, WINDOW, type GcDeps, type GcRun } from './deps.ts'

export type ForgottenBlob = { digest: string; bytes: number }

const unreferenced = (b: string) => `
      ${b}.promised_until <= now() + $2 * interval '1 second'
  and not exists (select from artifacts.blob_links k where k.blob_id = ${b}.id)`

const blobWindow = statement<{ last: string | null; candidates: string[] | null }>(
  'gc blob window',
  `with w as (select id, promised_until from artifacts.blobs where id > $1 order by id limit ${WINDOW})
   select max(id) as last, array_agg(id order by id) filter (where ${unreferenced('w')}) as candidates from w`,
)
const lockBlobs = statement<{ id: string }>(
  'gc lock blobs',
  `select id from artifacts.blobs where id = any($1::bigint[]) and promised_until <= now() + $2 * interval '1 second'
    order by digest for update skip locked`,
)
// Row, trash and record in one statement: the key is never without an owner. A push of the same digest that waited for our lock
// makes a new row with a key of its own, so the erase that follows cannot touch it (reliability.md §8, R3).
const forget = statement<{ digest: string; size_bytes: string }>(
  'gc forget',
  `with gone as (
     delete from artifacts.blobs b where b.id = any($1::bigint[]) and ${unreferenced('b')} returning b.id, b.digest, b.size_bytes),
   trashed as (
     insert into artifacts.trash (key, store, digest, size_bytes, reason, execution_id, erase_after)
     select l.key, l.store, g.digest, g.size_bytes, 'unreferenced', $3, now() + $4 * interval '1 second'
       from gone g join artifacts.blob_locations l on l.blob_id = g.id on conflict (key) do nothing),
   noted as (
     insert into artifacts.removals (digest, kind, size_bytes, actor, reason, execution_id)
     select digest, 'blob', size_bytes, $5, 'no repository links it', $3 from gone)
   select digest, size_bytes from gone`,
)
const lastBlob = statement<{ id: string }>('gc last blob', 'select coalesce(max(id), 0) as id from artifacts.blobs')

/**
 * Forgets blobs that no repository links and whose grace is over: the row goes and its keys enter the trash, in one transaction a
 * batch. Whoever comes later finds no blob and is told so; bytes go when registryctl erases the trash.
 */
export async function forgetBlobs(
  deps: GcDeps,
  run: GcRun,
  onForgotten?: (blob: ForgottenBlob) => void,
): Promise<{ count: number; bytes: number }> {
  const { db, settings } = deps
  const lead = leadSeconds(deps, run)
  const total = { count: 0, bytes: 0 }
  await sweep(
    run,
    Number((await db.writes.one(lastBlob, []))!.id),
    async (after) => {
      const row = await db.writes.one(blobWindow, [after, lead])
      return { last: row?.last ?? null, candidates: row?.candidates ?? [] }
    },
    async (batch) => {
      await faultPoint('gc.candidates')
      const gone = await db.transaction(async (tx) => {
        const locked = (await tx.rows(lockBlobs, [batch, lead])).map((row) => row.id)
        if (locked.length === 0) return []
        await faultPoint('gc.locked')
        const rows = await tx.rows(forget, [locked, lead, run.executionId, settings.trashSeconds, run.actor])
        if (rows.length > 0) await run.hold?.(tx)
        return rows
      })
      await faultPoint('gc.committed')
      for (const row of gone) {
        const blob = { digest: row.digest, bytes: Number(row.size_bytes) }
        total.count++
        total.bytes += blob.bytes
        onForgotten?.(blob)
      }
    },
  )
  return total
}
