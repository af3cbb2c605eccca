import { statement, type Sql } from '@haven/db'
import { emit } from '@haven/events'
import { ArtifactDeletedSchema, Door } from '@haven/proto/events'
import { faultPoint } from '../fault-point.ts'
import { forgetTagHistory } from '../store/tags.ts'
import { leadSeconds, sweep, WINDOW, type GcDeps, type GcRun } from './deps.ts'

export type PurgedManifest = { digest: string; repository: string; bytes: number }

type Row = {
  id: string
  repository_id: number
  project_id: number
  path: string
  digest: string
  media_type: string
  artifact_type: string | null
  payload_bytes: number
  total_bytes: string
}

// What a client was told of within the grace stays (reliability.md §8, R1, R5, R6).
const unclaimed = (m: string) => `
      ${m}.deleted_at is null
  and ${m}.promised_until <= now() + $2 * interval '1 second'
  and not exists (select from artifacts.tags t where t.manifest_id = ${m}.id)
  and not exists (select from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
                   where e.repository_id = ${m}.repository_id and e.digest = ${m}.digest and e.kind = 'child')`
const settled = (m: string) => `${m}.pushed_at <= now() - $3 * interval '1 second'`

/** A root: no accessory of anything. The condition of both statements below. */
export const untaggedRoot = (m: string) => `${unclaimed(m)} and ${settled(m)} and ${m}.subject_digest is null`

const untaggedWindow = statement<{ last: string | null; candidates: string[] | null }>(
  'gc untagged window',
  `with w as (select * from artifacts.manifests where id > $1 order by id limit ${WINDOW})
   select max(id) as last, array_agg(id order by id) filter (where ${untaggedRoot('w')}) as candidates from w`,
)
const lockManifests = statement<{ id: string }>(
  'gc lock manifests',
  `select id from artifacts.manifests where id = any($1::bigint[]) order by id for update skip locked`,
)
const columns = `m.id, m.repository_id, r.project_id, r.path, m.digest, m.media_type, m.artifact_type, m.payload_bytes, m.total_bytes`
// After the rows are locked, as a statement of its own: its snapshot sees the tag or the index that came while we waited.
const bury = statement<Row>(
  'gc bury untagged',
  `update artifacts.manifests m
      set deleted_at = now(), deleted_by = $4, deleted_reason = 'untagged', deleted_door = 'gc',
          purge_after = now() + $5 * interval '1 second'
     from artifacts.repositories r
    where m.id = any($1::bigint[]) and r.id = m.repository_id and ${untaggedRoot('m')}
   returning ${columns}`,
)

const tombstoneWindow = statement<{ last: string | null; candidates: string[] | null }>(
  'gc tombstone window',
  `with w as (select id, deleted_at, purge_after from artifacts.manifests where id > $1 order by id limit ${WINDOW})
   select max(id) as last, array_agg(id order by id) filter (where deleted_at is not null and purge_after <= now()) as candidates
     from w`,
)
// What only existed for the sake of a manifest that goes: its accessories, and children that nobody else names. Those with a tag
// were given a life of their own and stay.
const dependants = statement<{ id: string }>(
  'gc dependants',
  `select d.id from artifacts.manifests m
     join artifacts.manifests d on d.repository_id = m.repository_id and ${unclaimed('d')}
    where m.id = any($1::bigint[]) and m.deleted_at is not null
      and (d.subject_digest = m.digest
           or (not exists (select from artifacts.manifests s
                            where s.repository_id = d.repository_id and s.digest = d.subject_digest and s.deleted_at is null)
               and exists (select from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' and e.digest = d.digest)))
    order by d.id for update of d skip locked`,
)
const buryDependants = statement<Row>(
  'gc bury dependants',
  `update artifacts.manifests m
      set deleted_at = now(), deleted_by = $3, deleted_reason = 'its subject or index was deleted', deleted_door = 'gc',
          purge_after = now()
     from artifacts.repositories r
    where m.id = any($1::bigint[]) and r.id = m.repository_id and ${unclaimed('m')}
   returning ${columns}`,
)
// A subject waits for its accessories: those that a client was told of a moment ago go in a later run, and would otherwise be
// left behind as accessories of something that nobody remembers. One that an index names goes with that, which may be never.
const purge = statement<Row & { deleted_by: string | null; deleted_reason: string | null }>(
  'gc purge',
  `delete from artifacts.manifests m using artifacts.repositories r
    where m.id = any($1::bigint[]) and r.id = m.repository_id and m.deleted_at is not null and m.purge_after <= now()
      and not exists (select from artifacts.manifests d
                       where d.repository_id = m.repository_id and d.subject_digest = m.digest and d.deleted_at is null
                         and not exists (select from artifacts.tags t where t.manifest_id = d.id)
                         and not exists (select from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
                                          where e.repository_id = d.repository_id and e.digest = d.digest and e.kind = 'child'))
   returning ${columns}, m.deleted_by, m.deleted_reason`,
)
const note = statement(
  'gc note manifests',
  `insert into artifacts.removals (digest, kind, repository, size_bytes, actor, reason, execution_id)
   select digest, 'manifest', repository, size_bytes, actor, reason, $5
     from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $6::text[]) as g(digest, repository, size_bytes, actor, reason)`,
)
const lastManifest = statement<{ id: string }>(
  'gc last manifest',
  'select coalesce(max(id), 0) as id from artifacts.manifests',
)

/**
 * Deletes manifests that have no tag and that neither an index nor a subject keeps: they become tombstones, as if somebody had
 * deleted them. Returns how many.
 */
export async function buryUntagged(
  deps: GcDeps,
  run: GcRun,
  onBuried?: (manifest: PurgedManifest) => void,
): Promise<number> {
  const { db, settings } = deps
  const lead = leadSeconds(deps, run)
  const grace = run.graceSeconds ?? settings.promiseSeconds
  let total = 0
  await sweep(
    run,
    Number((await db.writes.one(lastManifest, []))!.id),
    async (after) => toWindow(await db.writes.one(untaggedWindow, [after, lead, grace])),
    async (batch) => {
      await faultPoint('gc.candidates')
      const buried = await db.transaction(async (tx) => {
        const locked = (await tx.rows(lockManifests, [batch])).map((row) => row.id)
        if (locked.length === 0) return []
        await faultPoint('gc.locked')
        const rows = await tx.rows(bury, [locked, lead, grace, run.actor, settings.tombstoneSeconds])
        const manifests = await tell(deps, run, tx, rows)
        if (rows.length > 0) await run.hold?.(tx)
        return manifests
      })
      await faultPoint('gc.committed')
      total += buried.length
      for (const manifest of buried) onBuried?.(manifest)
    },
  )
  return total
}

/**
 * Removes tombstones whose time is over, for good, and buries what only existed for their sake; that goes in the same run, as do the
 * histories of tags of repositories of which then nothing is left.
 * Returns what went.
 */
export async function purgeTombstones(
  deps: GcDeps,
  run: GcRun,
  onPurged?: (manifest: PurgedManifest) => void,
): Promise<{ count: number; bytes: number }> {
  const { db } = deps
  const total = { count: 0, bytes: 0 }
  const end = Number((await db.writes.one(lastManifest, []))!.id)
  // An accessory may have a lower id than its subject, which goes after it: until a pass finds nothing.
  for (let before = -1; before !== total.count;) {
    before = total.count
    await sweep(
      run,
      end,
      async (after) => toWindow(await db.writes.one(tombstoneWindow, [after])),
      async (batch) => {
        await faultPoint('gc.candidates')
        const purged = await db.transaction(async (tx) => purgeBatch(deps, run, tx, batch))
        await faultPoint('gc.committed')
        total.count += purged.length
        for (const manifest of purged) {
          total.bytes += manifest.bytes
          onPurged?.(manifest)
        }
      },
    )
  }
  while ((await forgetTagHistory(db.writes, WINDOW)) === WINDOW) run.signal?.throwIfAborted()
  return total
}

const hasten = statement<{ id: string; dead: boolean }>(
  'gc hasten',
  `with found as (
     select m.id, m.deleted_at is not null as dead from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id
      where r.project_id = $1 and r.path = $2 and m.digest = $3),
   due as (update artifacts.manifests m set purge_after = least(m.purge_after, now()) from found where m.id = found.id and found.dead)
   select id, dead from found`,
)

/** Purges one tombstone without waiting for its time. One that an accessory still needs stays, and is `alive` in that sense. */
export async function purgeNow(
  deps: GcDeps,
  run: GcRun,
  { projectId, path, digest }: { projectId: number; path: string; digest: string },
): Promise<'purged' | 'alive' | 'absent'> {
  const found = await deps.db.writes.one(hasten, [projectId, path, digest])
  if (!found) return 'absent'
  if (!found.dead) return 'alive'
  const purged = await deps.db.transaction((tx) => purgeBatch(deps, run, tx, [found.id]))
  return purged.length > 0 ? 'purged' : 'alive'
}

const removedByRun = statement<{ kind: string; count: number; bytes: number }>(
  'gc removed by run',
  `select kind, count(*)::int as count, coalesce(sum(size_bytes), 0)::float8 as bytes from artifacts.removals
    where execution_id = $1 and removed_at >= $2 group by kind`,
)

/** What a run has removed, all its attempts together. `since` is when it began, and bounds what is looked at. */
export async function removedBy(
  { db }: Pick<GcDeps, 'db'>,
  executionId: number,
  since: Date,
): Promise<Record<'blob' | 'manifest' | 'link', { count: number; bytes: number }>> {
  const rows = await db.writes.rows(removedByRun, [executionId, since])
  const of = (kind: string) => {
    const row = rows.find((each) => each.kind === kind)
    return { count: row?.count ?? 0, bytes: row?.bytes ?? 0 }
  }
  return { blob: of('blob'), manifest: of('manifest'), link: of('link') }
}

async function purgeBatch(deps: GcDeps, run: GcRun, tx: Sql, batch: string[]): Promise<PurgedManifest[]> {
  const locked = (await tx.rows(lockManifests, [batch])).map((row) => row.id)
  if (locked.length === 0) return []
  await faultPoint('gc.locked')
  const lead = leadSeconds(deps, run)
  const orphaned = (await tx.rows(dependants, [locked, lead])).map((row) => row.id)
  if (orphaned.length > 0) await tell(deps, run, tx, await tx.rows(buryDependants, [orphaned, lead, run.actor]))

  const rows = await tx.rows(purge, [locked])
  const names = await repositoryNames(deps, rows)
  const manifests = rows.map((row) => ({
    digest: row.digest,
    repository: names.get(row.repository_id)!,
    bytes: row.payload_bytes,
  }))
  await tx.rows(note, [
    manifests.map((m) => m.digest),
    manifests.map((m) => m.repository),
    manifests.map((m) => m.bytes),
    rows.map((row) => row.deleted_by ?? run.actor),
    run.executionId,
    rows.map((row) => row.deleted_reason ?? 'deleted'),
  ])
  for (const [projectId, ofProject] of byProject(rows)) {
    const bytes = ofProject.reduce((sum, row) => sum + row.payload_bytes, 0)
    await deps.quota?.(tx, projectId, -bytes, 'manifests collected')
  }
  if (rows.length > 0) await run.hold?.(tx)
  return manifests
}

/** Events of artifacts that garbage collection deleted, as for those that a person deletes. */
async function tell(deps: GcDeps, run: GcRun, tx: Sql, rows: readonly Row[]): Promise<PurgedManifest[]> {
  const names = await repositoryNames(deps, rows)
  for (const row of rows) {
    const name = names.get(row.repository_id)!
    const project = { id: BigInt(row.project_id), name: name.slice(0, name.indexOf('/')) }
    await emit(
      tx,
      ArtifactDeletedSchema,
      { principal: { kind: 'service', name: run.actor } },
      {
        repository: { id: BigInt(row.repository_id), name, project },
        artifact: {
          id: BigInt(row.id),
          digest: row.digest,
          mediaType: row.media_type,
          artifactType: row.artifact_type ?? '',
          sizeBytes: BigInt(row.total_bytes),
        },
        door: Door.GARBAGE_COLLECTION,
      },
    )
  }
  return rows.map((row) => ({
    digest: row.digest,
    repository: names.get(row.repository_id)!,
    bytes: row.payload_bytes,
  }))
}

/** Full names by repository id. Of a project that was deleted only its id is left. */
export async function repositoryNames(
  { projects }: Pick<GcDeps, 'projects'>,
  rows: readonly { repository_id: number; project_id: number; path: string }[],
): Promise<Map<number, string>> {
  const names = new Map<number, string>()
  for (const { repository_id, project_id, path } of rows) {
    if (names.has(repository_id)) continue
    names.set(repository_id, `${(await projects.byId(project_id))?.name ?? `#${project_id}`}/${path}`)
  }
  return names
}

/** Projects in the order of their ids, the order in which quotas are taken. */
export const byProject = <R extends { project_id: number }>(rows: readonly R[]): [number, R[]][] =>
  [...Map.groupBy(rows, (row) => row.project_id)].sort(([a], [b]) => a - b)

const toWindow = (row: { last: string | null; candidates: string[] | null } | null) => ({
  last: row?.last ?? null,
  candidates: row?.candidates ?? [],
})
