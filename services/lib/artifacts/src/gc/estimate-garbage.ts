import { statement } from '@haven/db'
import { leadSeconds, WINDOW, type GcDeps, type GcRun } from './deps.ts'
import { untaggedRoot } from './purge-manifests.ts'

export type Garbage = { manifests: { count: number; bytes: number }; blobs: { count: number; bytes: number } }

const patience = statement('gc estimate patience', `set local statement_timeout = '5min'`)
const makeTable = statement('gc estimate table', 'create temporary table doomed (id bigint primary key) on commit drop')
const addTombstones = statement(
  'gc estimate tombstones',
  `insert into doomed select id from artifacts.manifests where deleted_at is not null and purge_after <= now()`,
)
const addUntagged = statement(
  'gc estimate untagged',
  `insert into doomed select m.id from artifacts.manifests m where m.id > $1 and ${untaggedRoot('m')} on conflict do nothing`,
)
const addDependants = statement<{ id: string }>(
  'gc estimate dependants',
  `insert into doomed
   select distinct d.id from doomed x join artifacts.manifests m on m.id = x.id
     join artifacts.manifests d on d.repository_id = m.repository_id and d.deleted_at is null
      and d.promised_until <= now() + $1 * interval '1 second'
    where not exists (select from artifacts.tags t where t.manifest_id = d.id)
      and (d.subject_digest = m.digest
           or (not exists (select from artifacts.manifests s
                            where s.repository_id = d.repository_id and s.digest = d.subject_digest and s.deleted_at is null
                              and s.id not in (select id from doomed))
               and exists (select from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' and e.digest = d.digest)))
      and not exists (select from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
                       where e.repository_id = d.repository_id and e.digest = d.digest and e.kind = 'child'
                         and p.id not in (select id from doomed))
   on conflict do nothing returning id`,
)
const sumManifests = statement<{ count: number; bytes: number }>(
  'gc estimate manifests',
  `select count(*)::int as count, coalesce(sum(m.payload_bytes), 0)::float8 as bytes from doomed join artifacts.manifests m using (id)`,
)
const blobWindow = statement<{ last: string | null; count: number; bytes: number }>(
  'gc estimate blobs',
  `with w as (select * from artifacts.blobs where id > $1 order by id limit ${WINDOW}),
   free as (
     select w.size_bytes from w
      where w.promised_until <= now() + $2 * interval '1 second'
        and not exists (
          select from artifacts.blob_links k
           where k.blob_id = w.id
             and (k.promised_until > now() + $2 * interval '1 second'
                  or exists (select from artifacts.manifest_edges e
                              where e.repository_id = k.repository_id and e.digest = w.digest
                                and e.manifest_id not in (select id from doomed)))))
   select (select max(id) from w) as last, count(*)::int as count, coalesce(sum(size_bytes), 0)::float8 as bytes from free`,
)

/** What a run would remove now, without removing or locking anything: the dry run. */
export async function estimateGarbage(deps: GcDeps, run: GcRun, { untagged }: { untagged: boolean }): Promise<Garbage> {
  const lead = leadSeconds(deps, run)
  return deps.db.transaction(async (tx) => {
    await tx.rows(patience, [])
    await tx.rows(makeTable, [])
    await tx.rows(addTombstones, [])
    if (untagged) await tx.rows(addUntagged, [0, lead, run.graceSeconds ?? deps.settings.promiseSeconds])
    while ((await tx.rows(addDependants, [lead])).length > 0) run.signal?.throwIfAborted()
    const manifests = (await tx.one(sumManifests, []))!
    const blobs = { count: 0, bytes: 0 }
    for (let after = '0'; ;) {
      run.signal?.throwIfAborted()
      const row = (await tx.one(blobWindow, [after, lead]))!
      if (row.last === null) return { manifests, blobs }
      blobs.count += row.count
      blobs.bytes += row.bytes
      after = row.last
    }
  })
}
