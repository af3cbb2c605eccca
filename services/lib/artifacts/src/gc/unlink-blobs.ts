import { statement } from '@haven/db'
import { faultPoint } from '../fault-point.ts'
import { leadSeconds, sweep, WINDOW, type GcDeps, type GcRun } from './deps.ts'
import { byProject, repositoryNames } from './purge-manifests.ts'

// Any edge keeps the link, also that of a tombstone: it may come back until it is purged.
const needless = (k: string) => `
      ${k}.promised_until <= now() + $2 * interval '1 second'
  and not exists (select from artifacts.manifest_edges e join artifacts.blobs b on b.digest = e.digest
                   where b.id = ${k}.blob_id and e.repository_id = ${k}.repository_id)`

const linkWindow = statement<{ last: string | null; candidates: string[] | null }>(
  'gc link window',
  `with w as (select id from artifacts.blobs where id > $1 order by id limit ${WINDOW})
   select max(id) as last,
          array_agg(id order by id) filter (where exists (
            select from artifacts.blob_links k where k.blob_id = w.id and ${needless('k')})) as candidates
     from w`,
)
// Both rows: whoever counts a blob for a project holds the blob's (record-link.ts). What a push holds is passed over.
const lockLinks = statement<{ repository_id: number; blob_id: string }>(
  'gc lock links',
  `select k.repository_id, k.blob_id from artifacts.blobs b join artifacts.blob_links k on k.blob_id = b.id
    where b.id = any($1::bigint[]) and k.promised_until <= now() + $2 * interval '1 second'
    order by b.digest, k.repository_id for update of b, k skip locked`,
)
const unlink = statement<{
  repository_id: number
  project_id: number
  path: string
  blob_id: string
  digest: string
  size_bytes: string
}>(
  'gc unlink',
  `delete from artifacts.blob_links k
    using artifacts.repositories r, artifacts.blobs b, unnest($1::bigint[], $3::int[]) as l(blob_id, repository_id)
    where k.blob_id = l.blob_id and k.repository_id = l.repository_id and r.id = k.repository_id and b.id = k.blob_id
      and ${needless('k')}
   returning k.repository_id, r.project_id, r.path, k.blob_id, b.digest, b.size_bytes`,
)
const stillInProject = statement<{ project_id: number; blob_id: string }>(
  'gc still in project',
  `select distinct r.project_id, k.blob_id from artifacts.blob_links k join artifacts.repositories r on r.id = k.repository_id
    where k.blob_id = any($1::bigint[])`,
)
const note = statement(
  'gc note links',
  `insert into artifacts.removals (digest, kind, repository, size_bytes, actor, reason, execution_id)
   select digest, 'link', repository, size_bytes, $4, 'no manifest of the repository needs it', $5
     from unnest($1::text[], $2::text[], $3::bigint[]) as g(digest, repository, size_bytes)`,
)
const lastBlob = statement<{ id: string }>('gc last blob', 'select coalesce(max(id), 0) as id from artifacts.blobs')

/** Takes blobs away from repositories in which no manifest needs them and whose grace is over. Returns how many links went. */
export async function unlinkBlobs(deps: GcDeps, run: GcRun): Promise<number> {
  const { db } = deps
  const lead = leadSeconds(deps, run)
  let total = 0
  await sweep(
    run,
    Number((await db.writes.one(lastBlob, []))!.id),
    async (after) => {
      const row = await db.writes.one(linkWindow, [after, lead])
      return { last: row?.last ?? null, candidates: row?.candidates ?? [] }
    },
    async (batch) => {
      await faultPoint('gc.candidates')
      const unlinked = await db.transaction(async (tx) => {
        const links = await tx.rows(lockLinks, [batch, lead])
        if (links.length === 0) return 0
        await faultPoint('gc.locked')
        const gone = await tx.rows(unlink, [links.map((l) => l.blob_id), lead, links.map((l) => l.repository_id)])
        if (gone.length === 0) return 0
        const names = await repositoryNames(deps, gone)
        await tx.rows(note, [
          gone.map((link) => link.digest),
          gone.map((link) => names.get(link.repository_id)!),
          gone.map((link) => link.size_bytes),
          run.actor,
          run.executionId,
        ])
        if (deps.quota) {
          const left = new Set(
            (await tx.rows(stillInProject, [gone.map((link) => link.blob_id)])).map(
              (row) => `${row.project_id}/${row.blob_id}`,
            ),
          )
          for (const [projectId, links] of byProject(gone)) {
            const blobs = new Map(
              links.filter((link) => !left.has(`${projectId}/${link.blob_id}`)).map((link) => [link.blob_id, link]),
            )
            const bytes = [...blobs.values()].reduce((sum, link) => sum + Number(link.size_bytes), 0)
            await deps.quota(tx, projectId, -bytes, 'blobs collected')
          }
        }
        await run.hold?.(tx)
        return gone.length
      })
      total += unlinked // not in front of the await: workers would overwrite each other's sums
      await faultPoint('gc.committed')
    },
  )
  return total
}
