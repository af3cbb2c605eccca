import { statement, type Sql } from '@haven/db'

/**
 * Bytes of content, each blob and each manifest once. What nothing else in the project uses is unique: that much the project gets back when
 * it goes. Other projects are not looked at: whether they have a blob is nobody's business (threats.md A28).
 */
export type ContentSize = { totalBytes: number; uniqueBytes: number }
/** `idleBytes`: what is held and no artifact uses, until garbage collection. All together is what the quota counts. */
export type HeldSize = ContentSize & { idleBytes: number }

const uses = `('config', 'layer')`

// Of sets of manifests, each named by its `root`: members (root, id, repository_id, payload_bytes, live), and which of them are owned (root, id)
// and would go with it. A blob that many of them use is looked at once: whether more use it in the repository than one set has of its own, and
// whether another repository does. `offset 0`: one row is looked for, where a join would read all of them.
const sizesOfSets = `
   used as materialized (
     select m.root, m.repository_id, e.digest, count(*) filter (where m.live and (m.root, m.id) in (select root, id from owned)) as own
       from members m
       cross join lateral (select e.digest from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind in ${uses} offset 0) e
      group by 1, 2, 3),
   blobs as materialized (
     select u.repository_id, u.digest, b.size_bytes, n.users,
            n.users > u.most or exists (
              select from artifacts.blob_links k
                join artifacts.repositories r on r.id = k.repository_id and r.project_id = $2 and r.id <> u.repository_id
                join artifacts.manifest_edges o on o.repository_id = k.repository_id and o.digest = u.digest and o.kind in ${uses}
                join artifacts.manifests p on p.id = o.manifest_id and p.deleted_at is null
               where k.blob_id = b.id offset 0) as shared
       from (select repository_id, digest, max(own) as most from used group by 1, 2) u
       cross join lateral (
         select b.id, b.size_bytes from artifacts.blobs b
          where b.digest = u.digest and exists (select from artifacts.blob_links k where k.repository_id = u.repository_id and k.blob_id = b.id offset 0)
         offset 0) b
       cross join lateral (
         select count(*) as users
           from (select from artifacts.manifest_edges o
                  cross join lateral (select from artifacts.manifests p where p.id = o.manifest_id and p.deleted_at is null offset 0) p
                  where o.repository_id = u.repository_id and o.digest = u.digest and o.kind in ${uses} limit u.most + 1) o) n),
   parts as (
     select u.root, b.size_bytes, b.users <= u.own and not b.shared as alone
       from used u join blobs b on b.repository_id = u.repository_id and b.digest = u.digest
     union all
     select m.root, m.payload_bytes, (m.root, m.id) in (select root, id from owned) from members m)
   select root as id, sum(size_bytes)::float8 as "totalBytes", coalesce(sum(size_bytes) filter (where alone), 0)::float8 as "uniqueBytes"
     from parts group by root`

const MAX_DEPTH = 16

const ofArtifacts = statement<ContentSize & { id: string }>(
  'sizes of artifacts',
  `with recursive tree as (
     select m.id as root, m.id, 0 as depth, m.kind, m.repository_id, m.digest, m.subject_digest, m.payload_bytes, m.deleted_at is null as live
       from artifacts.manifests m where m.id = any($1::bigint[])
     union
     select t.root, c.id, t.depth + 1, c.kind, c.repository_id, c.digest, c.subject_digest, c.payload_bytes, true
       from tree t
       cross join lateral (select e.repository_id, e.digest from artifacts.manifest_edges e where e.manifest_id = t.id and e.kind = 'child' offset 0) e
       cross join lateral (
         select c.* from artifacts.manifests c where c.repository_id = e.repository_id and c.digest = e.digest and c.deleted_at is null offset 0) c
      where t.kind = 'index' and t.depth < ${MAX_DEPTH}),
   members as materialized (
     select distinct t.root, t.id, t.repository_id, t.digest, t.subject_digest, t.payload_bytes, t.live from tree t),
   stays as (
     (select c.root, c.id from members c
       where c.id <> c.root and exists (select from artifacts.tags t where t.manifest_id = c.id offset 0)
      union
      select c.root, c.id
        from members c
        cross join lateral (
          select p.id from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
           where e.repository_id = c.repository_id and e.digest = c.digest and e.kind = 'child' offset 0) p
        left join members x on x.root = c.root and x.id = p.id
       where c.id <> c.root and x.id is null
      union
      select c.root, c.id
        from members c
        cross join lateral (
          select s.id from artifacts.manifests s
           where s.repository_id = c.repository_id and s.digest = c.subject_digest and s.deleted_at is null offset 0) s
        left join members x on x.root = c.root and x.id = s.id
       where c.id <> c.root and x.id is null)
     union
     select s.root, c.id
       from stays s
       cross join lateral (select e.repository_id, e.digest from artifacts.manifest_edges e where e.manifest_id = s.id and e.kind = 'child' offset 0) e
       join members c on c.root = s.root and c.digest = e.digest and c.repository_id = e.repository_id
      where c.id <> c.root),
   owned as (select root, id from members except select root, id from stays),
   ${sizesOfSets}`,
)

const ofSet = statement<ContentSize>(
  'sizes of a set',
  `with members as materialized (
     select 0 as root, m.id, m.repository_id, m.payload_bytes, m.deleted_at is null as live from artifacts.manifests m where m.id = any($1::bigint[])),
   owned as (select root, id from members),
   ${sizesOfSets}`,
)

// Blobs by the repositories that hold them, and whether an artifact there uses them.
const held = (which: string) => `
   held as materialized (
     select k.repository_id, k.blob_id, b.size_bytes,
            exists (select from artifacts.manifest_edges o join artifacts.manifests p on p.id = o.manifest_id and p.deleted_at is null
                     where o.repository_id = k.repository_id and o.digest = b.digest and o.kind in ${uses} offset 0) as live
       from artifacts.repositories r
       join artifacts.blob_links k on k.repository_id = r.id
       join artifacts.blobs b on b.id = k.blob_id
      where r.project_id = $1 ${which}),
   users as (select blob_id, size_bytes, count(*) filter (where live) as live from held group by blob_id, size_bytes)`

const ofProject = statement<HeldSize>(
  'sizes of a project',
  `with ${held('')},
   parts as (
     select size_bytes, live from users
     union all
     select m.payload_bytes, (m.deleted_at is null)::int
       from artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id where r.project_id = $1)
   select coalesce(sum(size_bytes) filter (where live > 0), 0)::float8 as "totalBytes",
          coalesce(sum(size_bytes) filter (where live = 1), 0)::float8 as "uniqueBytes",
          coalesce(sum(size_bytes) filter (where live = 0), 0)::float8 as "idleBytes"
     from parts`,
)

const ofRepository = statement<HeldSize>(
  'sizes of a repository',
  `with ${held('and k.blob_id in (select o.blob_id from artifacts.blob_links o where o.repository_id = $2)')},
   parts as (
     select h.size_bytes, h.live, u.live = 1 as alone from held h join users u using (blob_id) where h.repository_id = $2
     union all
     select m.payload_bytes, m.deleted_at is null, true from artifacts.manifests m where m.repository_id = $2)
   select coalesce(sum(size_bytes) filter (where live), 0)::float8 as "totalBytes",
          coalesce(sum(size_bytes) filter (where live and alone), 0)::float8 as "uniqueBytes",
          coalesce(sum(size_bytes) filter (where not live), 0)::float8 as "idleBytes"
     from parts`,
)

const nothing = { totalBytes: 0, uniqueBytes: 0 }

/** Of artifacts of a project with the children of indexes, without what hangs on them; by id. One statement. */
export async function sizesOfArtifacts(
  sql: Sql,
  projectId: number,
  ids: readonly number[],
): Promise<Map<number, ContentSize>> {
  if (ids.length === 0) return new Map()
  const rows = await sql.rows(ofArtifacts, [ids, projectId])
  return new Map(rows.map(({ id, ...size }) => [Number(id), size]))
}

/** Of manifests that go together. */
export const sizeOfManifests = async (sql: Sql, projectId: number, ids: readonly string[]): Promise<ContentSize> => {
  const found = await sql.one(ofSet, [ids, projectId])
  return found ? { totalBytes: found.totalBytes, uniqueBytes: found.uniqueBytes } : nothing
}

/** Of a project. Unique is what only one of its repositories uses. */
export const sizeOfProject = async (sql: Sql, projectId: number): Promise<HeldSize> =>
  (await sql.one(ofProject, [projectId])) ?? { ...nothing, idleBytes: 0 }

export const sizeOfRepository = async (sql: Sql, projectId: number, repositoryId: number): Promise<HeldSize> =>
  (await sql.one(ofRepository, [projectId, repositoryId])) ?? { ...nothing, idleBytes: 0 }
