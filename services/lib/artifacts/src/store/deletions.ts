import { statement, statementOfRows, type Sql, type Tx } from '@haven/db'
import { mediaTypes } from '@haven/oci'

/** Levels of accessories of accessories: a signature of an attestation of an image has two. */
const MAX_DEPTH = 16

/** Artifacts of one repository, and what is thought of as gone there, by id. */
export type DeletionSet = { projectId: number; path: string; digests: readonly string[]; going: readonly string[] }

export type DoomedManifest = {
  /** Of which set. */
  set: number
  id: string
  repositoryId: number
  digest: string
  mediaType: string
  artifactType: string | null
  /** image | index */
  kind: string
  /** Harbor's word. */
  type: string
  totalBytes: number
  /** Named by the set; its accessory otherwise. */
  named: boolean
  /** Of what is named: an index of the repository that names it, if there is one. */
  index: string | null
  tags: string[]
}

/** A child or an accessory of what goes, and what keeps it. */
export type StayingManifest = {
  digest: string
  type: string
  /** Ten at most. */
  tags: string[]
  /** Another index that names it. */
  index: string | null
  /** What it is about, when that is none of what goes. */
  subject: string | null
}

/** Who deletes, and what tombstones tell of it. */
export type Deletion = { actor: string; door: string; requestId: string; tombstoneSeconds: number }

// Behind selects, so that the planner does not look how many there are and plan each time for so many.
const sets = `
   sets as materialized (
     select n, project_id, path, going::bigint[] as going
       from unnest((select $1::int[]), (select $2::text[]), (select $3::text[])) with ordinality as s (project_id, path, going, n))`

// As `referrersTag` writes it: both algorithms have names of six letters, and at most 64 digits follow.
const fallbackTag = `left(replace(t.digest, ':', '-'), 71)`

// An accessory that an index of the repository names has a life of its own, as in Harbor; indexes that go themselves do not count. The index
// under the fallback tag (OCI Distribution 1.1, "Referrers Tag Schema") is there for its subject alone, and what only it names goes with it.
//
// `offset 0`, here and below: one row of each is looked for, where a join might read all there are.
const doomed = `
   with recursive ${sets},
   named as materialized (select * from unnest((select $4::int[]), (select $5::text[])) as w (set, digest)),
   tree as (
     select n.set, m.id, m.repository_id, m.digest, 0 as depth
       from named n join sets s on s.n = n.set
      cross join lateral (
        select m.id, m.repository_id, m.digest
          from artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id and m.digest = n.digest and m.deleted_at is null
         where r.project_id = s.project_id and r.path = s.path and r.deleted_at is null offset 0) m
     union all
     select t.set, m.id, m.repository_id, m.digest, t.depth + 1
       from tree t join sets s on s.n = t.set
      cross join lateral (
        select a.id, a.repository_id, a.digest from artifacts.manifests a
         where a.repository_id = t.repository_id and a.subject_digest = t.digest and a.deleted_at is null
        union
        select a.id, a.repository_id, a.digest
          from artifacts.tags g join artifacts.manifests a on a.id = g.manifest_id and a.deleted_at is null
         where g.repository_id = t.repository_id and g.name = ${fallbackTag}
           and a.media_type = '${mediaTypes.ociIndex}' and a.digest <> t.digest) m
      where t.depth < ${MAX_DEPTH} and m.id <> all(s.going)
        and not exists (select from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
                         where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child' and p.id <> all(s.going)
                           and not exists (select from artifacts.tags f where f.manifest_id = p.id and f.name = ${fallbackTag})
                         offset 0)),
   found as materialized (select set, id, min(depth) as depth from tree group by set, id order by depth, id limit $6)`

// Tags alone, without a join to the manifest: a row that was waited for is read again, but what it was joined with is not.
const foundManifests = (held: string, order: string) => `
   ${doomed},
   held as materialized (
     select name, version_key, manifest_id from artifacts.tags where manifest_id = any(array(select id from found)) ${held})
   select f.set::int as set, m.id, m.repository_id as "repositoryId", m.digest, m.media_type as "mediaType", m.artifact_type as "artifactType", m.kind, m.type,
          m.total_bytes::float8 as "totalBytes", f.depth = 0 as named,
          case when f.depth = 0 then
            (select p.digest from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
              where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child' limit 1) end as index,
          coalesce(t.tags, '{}') as tags
     from found f
    cross join lateral (select m.* from artifacts.manifests m where m.id = f.id offset 0) m
     left join (select manifest_id, array_agg(name order by ${order}) as tags from held group by manifest_id) t on t.manifest_id = m.id
    order by f.set, f.depth, f.id`

const find = statement<DoomedManifest>('deletions find', foundManifests('', 'version_key desc'))
const findLocked = statement<DoomedManifest>(
  'deletions find locked',
  foundManifests('order by name for update', 'name'),
)
const lock = statement<{ id: string }>(
  'deletions lock',
  `${doomed} select m.id from artifacts.manifests m where m.id = any(array(select id from found)) order by m.digest for update`,
)

// Children whose last index has gone: those with a tag, or about something that is still there, have a life of their own.
const orphans = statement<{ set: number; digest: string }>(
  'deletions orphans',
  `with ${sets},
   named as materialized (select * from unnest((select $4::int[]), (select $5::bigint[])) as w (set, id)),
   children as materialized (
     select distinct n.set, d.id, d.repository_id, d.digest, d.subject_digest, s.going
       from named n join sets s on s.n = n.set
      cross join lateral (select e.repository_id, e.digest from artifacts.manifest_edges e where e.manifest_id = n.id and e.kind = 'child' offset 0) e
      cross join lateral (
        select m.id, m.repository_id, m.digest, m.subject_digest from artifacts.manifests m
         where m.repository_id = e.repository_id and m.digest = e.digest and m.deleted_at is null offset 0) d
      where d.id <> all(s.going))
   select d.set, d.digest from children d
    where not exists (select from artifacts.tags t where t.manifest_id = d.id offset 0)
      and not exists (select from artifacts.manifest_edges o join artifacts.manifests p on p.id = o.manifest_id and p.deleted_at is null
                       where o.repository_id = d.repository_id and o.digest = d.digest and o.kind = 'child' and p.id <> all(d.going)
                      offset 0)
      and not exists (select from artifacts.manifests s
                       where s.repository_id = d.repository_id and s.digest = d.subject_digest and s.deleted_at is null
                         and s.id <> all(d.going) offset 0)
    order by d.set, d.digest limit $6`,
)

const stays = statement<StayingManifest>(
  'deletions staying',
  `select d.digest, d.type,
          array(select t.name from artifacts.tags t where t.manifest_id = d.id order by t.version_key limit 10) as tags,
          (select p.digest from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
            where e.repository_id = d.repository_id and e.digest = d.digest and e.kind = 'child' and p.id <> all($1::bigint[]) limit 1) as index,
          (select s.digest from artifacts.manifests s
            where s.repository_id = d.repository_id and s.digest = d.subject_digest and s.deleted_at is null and s.id <> all($1::bigint[])) as subject
     from artifacts.manifests d
    where d.deleted_at is null and d.id <> all($1::bigint[])
      and d.id in (
        select c.id from artifacts.manifest_edges e
          join artifacts.manifests c on c.repository_id = e.repository_id and c.digest = e.digest
         where e.manifest_id = any($1::bigint[]) and e.kind = 'child'
        union
        select a.id from artifacts.manifests g
          join artifacts.manifests a on a.repository_id = g.repository_id and a.subject_digest = g.digest
         where g.id = any($1::bigint[]))
    order by d.digest limit $2`,
)

const lockSome = statement<Omit<BuriableManifest, 'tags'>>(
  'deletions lock some',
  `select m.id, m.repository_id as "repositoryId", m.digest, m.media_type as "mediaType", m.artifact_type as "artifactType",
          m.total_bytes::float8 as "totalBytes"
     from artifacts.manifests m where m.repository_id = $1 and m.deleted_at is null order by m.digest limit $2 for update`,
)
const lockTags = statement<{ name: string; manifestId: string }>(
  'deletions lock tags',
  `select name, manifest_id as "manifestId" from artifacts.tags where manifest_id = any(array(select unnest($1::bigint[]))) order by name for update`,
)

const bury = statementOfRows(
  'deletions bury',
  { id: 'int8', reason: 'text', actor: 'text', door: 'text', request_id: 'text', tombstone: 'float8' },
  'id',
  `, untagged as (
     delete from artifacts.tags where manifest_id = any(array(select id from given)) returning manifest_id, name),
   buried as (
     update artifacts.manifests m
        set deleted_at = now(), deleted_by = g.actor, deleted_reason = g.reason, deleted_door = g.door, deleted_request_id = g.request_id,
            purge_after = now() + g.tombstone * interval '1 second'
       from given g where g.id = m.id and m.id = any(array(select id from given))
     returning m.id, m.repository_id, m.digest)
   insert into artifacts.tag_history (repository_id, tag, from_digest, actor, door, reason, request_id, restorable_until)
   select b.repository_id, t.name, b.digest, g.actor, g.door, g.reason, g.request_id, now() + g.tombstone * interval '1 second'
     from untagged t join buried b on b.id = t.manifest_id join given g on g.id = b.id
    order by g.n, t.name`,
)

/** What a tombstone is made of. */
export type BuriableManifest = Pick<
  DoomedManifest,
  'id' | 'repositoryId' | 'digest' | 'mediaType' | 'artifactType' | 'totalBytes' | 'tags'
>

const valuesOf = (all: readonly DeletionSet[], named: readonly (readonly string[])[], limit: number) => [
  all.map(({ projectId }) => projectId),
  all.map(({ path }) => path),
  all.map(({ going }) => `{${going.join()}}`),
  named.flatMap((some, i) => some.map(() => i + 1)),
  named.flat(),
  limit,
]
const treeOf = (all: readonly DeletionSet[], limit: number) =>
  valuesOf(
    all,
    all.map(({ digests }) => digests),
    limit,
  )

/**
 * Manifests with their accessories, those of accessories included, and their tags, the highest version first; `limit` of all sets together. By
 * sets, numbered from 1, what they name first; what is not there is missing.
 */
export const findDoomed = (sql: Sql, all: readonly DeletionSet[], limit: number): Promise<DoomedManifest[]> =>
  sql.rows(find, treeOf(all, limit))

/** As `findDoomed`, and locks them in the order of digests, then their tags in that of names, so that they stay what they are. */
export async function lockDoomed(tx: Sql, all: readonly DeletionSet[], limit: number): Promise<DoomedManifest[]> {
  const values = treeOf(all, limit)
  const locked = new Set<string>()
  for (;;) {
    // Found again under the locks: nobody adds an accessory to what is locked, nor names it in an index.
    const [now, found] = await Promise.all([tx.rows(lock, values), tx.rows(findLocked, values)])
    for (const { id } of now) locked.add(id)
    if (found.every(({ id }) => locked.has(id))) return found
  }
}

/** Of each set: digests of children of these indexes that nothing else keeps once what goes is gone. */
export const orphansOf = (
  sql: Sql,
  all: readonly DeletionSet[],
  indexes: readonly (readonly string[])[],
  limit: number,
): Promise<{ set: number; digest: string }[]> => sql.rows(orphans, valuesOf(all, indexes, limit))

/** What hangs on manifests that go, or is named by them, and does not go with them; in the order of digests. */
export const stayingManifests = (sql: Sql, going: readonly string[], limit: number): Promise<StayingManifest[]> =>
  sql.rows(stays, [going, limit])

/** Locks manifests of a repository, whichever come first in the order of digests, and their tags. */
export async function lockSomeManifests(tx: Sql, repositoryId: number, limit: number): Promise<BuriableManifest[]> {
  const locked = await tx.rows(lockSome, [repositoryId, limit])
  const tags = await tx.rows(lockTags, [locked.map(({ id }) => id)])
  const tagsOf = Map.groupBy(tags, ({ manifestId }) => manifestId)
  return locked.map((one) => ({ ...one, tags: (tagsOf.get(one.id) ?? []).map(({ name }) => name) }))
}

/** Makes tombstones of locked manifests and their locked tags; with the commit. */
export function buryManifests(
  tx: Tx,
  manifests: readonly { id: string; reason: string }[],
  { actor, door, requestId, tombstoneSeconds }: Deletion,
): void {
  for (const { id, reason } of manifests) tx.last(bury, [id, reason, actor, door, requestId, tombstoneSeconds])
}
