import { statement, statementOfRows, type Sql } from '@haven/db'
import { mediaTypes, type Edge, type Manifest } from '@haven/oci'

/** What the headers of an answer need. */
export type ManifestFacts = {
  id: string
  repositoryId: number
  tagId: string | null
  digest: string
  mediaType: string
  sizeBytes: number
  /** Until when it is promised to stay, tag or not, by `performance.now()`; it may be later. */
  promisedUntilMs: number
}
type FoundRow = {
  n: number
  id: string
  repository_id: number
  tag_id: string | null
  digest: string
  media_type: string
  payload_bytes: number
  promised_seconds: number
  payload?: Buffer
}

// What is asked in one turn is one execution. Each row is looked for by its keys, whatever the planner thinks of how many there are.
const find = (name: string, reference: 'tag' | 'digest', columns: string) =>
  statementOfRows<FoundRow>(
    name,
    { project_id: 'int4', path: 'text', reference: 'text' },
    null,
    `select given.n::int as n, m.*
       from given
       join lateral (
         select m.id, m.repository_id, ${reference === 'tag' ? 't.id as tag_id' : 'null as tag_id'}, m.digest, m.media_type, m.payload_bytes,
                date_part('epoch', m.promised_until - now()) as promised_seconds${columns}
           from artifacts.repositories r
           ${reference === 'tag' ? foundByTag : foundByDigest}
          where r.project_id = given.project_id and r.path = given.path and r.deleted_at is null offset 0) m on true`,
  )
const foundByTag = `join artifacts.tags t on t.repository_id = r.id and t.name = given.reference
           join artifacts.manifests m on m.id = t.manifest_id and m.deleted_at is null`
const foundByDigest = `join artifacts.manifests m on m.repository_id = r.id and m.digest = given.reference and m.deleted_at is null`

// A promise with less than a quarter of it used up is left alone, as a blob's is.
const FRESH = 0.75
const until = (promise: string) => `now() + ${promise} * interval '1 second'`

const get = {
  tag: find('manifests by tag', 'tag', ', m.payload'),
  digest: find('manifests by digest', 'digest', ', m.payload'),
}
const head = {
  tag: find('manifests head by tag', 'tag', ''),
  digest: find('manifests head by digest', 'digest', ''),
}

const upsert = statementOfRows<{ id: string; inserted: boolean; revived: boolean }>(
  'manifests upsert',
  {
    repository_id: 'int4',
    digest: 'text',
    media_type: 'text',
    artifact_type: 'text',
    kind: 'text',
    type: 'text',
    payload: 'bytea',
    payload_bytes: 'int4',
    total_bytes: 'int8',
    config_media_type: 'text',
    subject_digest: 'text',
    annotations: 'jsonb',
    pushed_by: 'text',
    edges: 'jsonb',
    promise: 'float8',
  },
  'repository_id, digest',
  `, old as materialized (
     select given.n, m.dead
       from given
       join lateral (
         select deleted_at is not null as dead from artifacts.manifests
          where repository_id = given.repository_id and digest = given.digest offset 0 for update) m on true),
   put as (
     insert into artifacts.manifests as m
       (repository_id, digest, media_type, artifact_type, kind, type, payload, payload_bytes, total_bytes,
        config_media_type, subject_digest, annotations, pushed_by, promised_until)
     select repository_id, digest, media_type, artifact_type, kind, type, payload, payload_bytes, total_bytes,
            config_media_type, subject_digest, annotations, pushed_by, ${until('promise')}
       from given where (select count(*) from old) >= 0 -- which are locked and read before they are written
     on conflict (repository_id, digest) do update
       set media_type = excluded.media_type,
           promised_until = greatest(m.promised_until, excluded.promised_until),
           pushed_at = case when m.deleted_at is null then m.pushed_at else now() end,
           pushed_by = case when m.deleted_at is null then m.pushed_by else excluded.pushed_by end,
           pulled_at = case when m.deleted_at is null then m.pulled_at end,
           pulled_day = case when m.deleted_at is null then m.pulled_day end,
           deleted_at = null, deleted_by = null, deleted_reason = null, deleted_door = null, deleted_request_id = null, purge_after = null
     returning id, repository_id, digest, xmax = 0 as inserted),
   done as materialized (
     select given.n, given.edges, put.* from put join given on given.repository_id = put.repository_id and given.digest = put.digest),
   edges as (
     insert into artifacts.manifest_edges
       (manifest_id, position, repository_id, kind, digest, media_type, size_bytes, artifact_type, platform, annotations, urls)
     select done.id, e.position, done.repository_id, e.kind, e.digest, e."mediaType", e."sizeBytes", e."artifactType", e.platform, e.annotations,
            coalesce(e.urls, '{}')
       from done, jsonb_to_recordset(done.edges) as e (position int, kind text, digest text, "mediaType" text, "sizeBytes" bigint,
                                                       "artifactType" text, platform jsonb, annotations jsonb, urls text[])
      where done.inserted)
   select done.n::int as n, done.id, done.inserted, coalesce(old.dead, false) as revived from done left join old on old.n = done.n`,
)

const holdNamed = (condition: string) => `
   select digest, total_bytes::float8 as "totalBytes" from artifacts.manifests
    where repository_id = $1 and digest = any($2::text[]) and deleted_at is null ${condition}
    order by digest for share`

const holdFresh = statement<{ digest: string; totalBytes: number }>(
  'manifests hold fresh',
  holdNamed(`and promised_until >= now() + $3 * interval '${FRESH} second'`),
)

const renewStale = statement(
  'manifests renew stale',
  `with held as materialized (
     select id from artifacts.manifests
      where repository_id = $1 and digest = any($2::text[]) and deleted_at is null
        and promised_until < now() + $3 * interval '${FRESH} second'
      order by digest for no key update)
   update artifacts.manifests m set promised_until = ${until('$3')} from held where m.id = held.id`,
)

const hold = statement<{ digest: string; totalBytes: number }>('manifests hold', holdNamed(''))

const renew = statement<{ id: string }>(
  'manifests renew',
  `update artifacts.manifests set promised_until = greatest(promised_until, ${until('$2')})
    where id = $1 and deleted_at is null returning id`,
)

// Only for a manifest that names no subject itself: what the payload says counts.
const noSubjectOfItsOwn = `not exists (select from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'subject')`
const adopt = statement(
  'manifests adopt subject',
  `update artifacts.manifests m set subject_digest = $2 where m.id = $1 and m.subject_digest is distinct from $2 and ${noSubjectOfItsOwn}`,
)
const forget = statement(
  'manifests forget subject',
  `update artifacts.manifests m set subject_digest = null where m.id = $1 and m.subject_digest = $2 and ${noSubjectOfItsOwn}`,
)

/** Levels of accessories of accessories: a signature of an attestation of an image has two. */
const MAX_DEPTH = 16

// An accessory that an index of the repository names has a life of its own, as in Harbor; indexes that go themselves do not count. The index
// under the fallback tag (OCI Distribution 1.1, "Referrers Tag Schema") is there for its subject alone, and what only it names goes with it.
const tree = statement<ManifestInTree>(
  'manifests tree',
  `with recursive tree as (
     select m.id, m.repository_id, m.digest, 0 as depth
       from artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id
      where r.project_id = $1 and r.path = $2 and r.deleted_at is null and m.digest = any($3::text[]) and m.deleted_at is null
     union all
     select m.id, m.repository_id, m.digest, t.depth + 1
       from tree t, lateral (
         select a.id, a.repository_id, a.digest from artifacts.manifests a
          where a.repository_id = t.repository_id and a.subject_digest = t.digest and a.deleted_at is null
         union
         select a.id, a.repository_id, a.digest
           from artifacts.tags g join artifacts.manifests a on a.id = g.manifest_id and a.deleted_at is null
          where g.repository_id = t.repository_id and g.name = replace(t.digest, ':', '-')
            and a.media_type = '${mediaTypes.ociIndex}' and a.digest <> t.digest) m
      where t.depth < ${MAX_DEPTH} and m.id <> all($5::bigint[])
        and not exists (select from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id and p.deleted_at is null
                         where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child' and p.id <> all($5::bigint[])
                           and not exists (select from artifacts.tags f where f.manifest_id = p.id and f.name = replace(t.digest, ':', '-'))))
   select m.id, m.repository_id as "repositoryId", m.digest, m.media_type as "mediaType", m.artifact_type as "artifactType", m.type,
          m.total_bytes::float8 as "totalBytes"
     from (select id, min(depth) as depth from tree group by id) t join artifacts.manifests m on m.id = t.id
    order by t.depth, t.id limit $4`,
)

// Children whose last index has gone: those with a tag, or about something that is still there, have a life of their own.
//
// `offset 0`: one tag, index or subject of each child is looked for, where a join would read all there are.
const orphans = statement<{ digest: string }>(
  'manifests orphans',
  `with children as materialized (
     select distinct d.id, d.repository_id, d.digest, d.subject_digest
       from artifacts.manifest_edges e
       join artifacts.manifests d on d.repository_id = e.repository_id and d.digest = e.digest and d.deleted_at is null
      where e.manifest_id = any($1::bigint[]) and e.kind = 'child' and d.id <> all($3::bigint[]))
   select d.digest from children d
    where not exists (select from artifacts.tags t where t.manifest_id = d.id offset 0)
      and not exists (select from artifacts.manifest_edges o join artifacts.manifests p on p.id = o.manifest_id and p.deleted_at is null
                       where o.repository_id = d.repository_id and o.digest = d.digest and o.kind = 'child' and p.id <> all($3::bigint[])
                      offset 0)
      and not exists (select from artifacts.manifests s
                       where s.repository_id = d.repository_id and s.digest = d.subject_digest and s.deleted_at is null
                         and s.id <> all($3::bigint[]) offset 0)
    order by d.digest limit $2`,
)

const lock = statement(
  'manifests lock',
  `select id from artifacts.manifests where id = any($1::bigint[]) order by digest for update`,
)

const lockSome = statement<ManifestInTree>(
  'manifests lock some',
  `select m.id, m.repository_id as "repositoryId", m.digest, m.media_type as "mediaType", m.artifact_type as "artifactType",
          m.type, m.total_bytes::float8 as "totalBytes"
     from artifacts.manifests m where m.repository_id = $1 and m.deleted_at is null order by m.digest limit $2 for update`,
)

const stays = statement<StayingManifest>(
  'manifests staying',
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

const bury = statement(
  'manifests bury',
  `update artifacts.manifests
      set deleted_at = now(), deleted_by = $2, deleted_reason = $3, deleted_door = $4, deleted_request_id = $5,
          purge_after = now() + $6 * interval '1 second'
    where id = any($1::bigint[])`,
)

const parents = statement<{ digest: string }>(
  'manifests parents',
  `select m.digest from artifacts.manifest_edges e
     join artifacts.manifests m on m.id = e.manifest_id and m.deleted_at is null
    where e.repository_id = $1 and e.digest = $2 and e.kind = 'child' limit 1`,
)

export type ManifestInTree = {
  id: string
  repositoryId: number
  digest: string
  mediaType: string
  artifactType: string | null
  /** Harbor's word. */
  type: string
  totalBytes: number
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

type In = { projectId: number; path: string }
type Named = { tag: string; digest?: never } | { digest: string; tag?: never }

/** What a tag or a digest names in a repository, if anything. */
export const headManifestRow = async (sql: Sql, where: In, named: Named): Promise<ManifestFacts | null> =>
  (await ask(sql, head, where, named))?.facts ?? null

/** As `headManifestRow`, with the bytes. */
export async function getManifestRow(sql: Sql, where: In, named: Named) {
  const found = await ask(sql, get, where, named)
  return found && { facts: found.facts, payload: found.row.payload! }
}

async function ask(sql: Sql, by: typeof get, { projectId, path }: In, { tag, digest }: Named) {
  const askedAt = performance.now()
  const row = await sql.one(tag === undefined ? by.digest : by.tag, [projectId, path, tag ?? digest])
  if (row === null) return null
  const facts = {
    id: row.id,
    repositoryId: row.repository_id,
    tagId: row.tag_id,
    digest: row.digest,
    mediaType: row.media_type,
    sizeBytes: row.payload_bytes,
    promisedUntilMs: askedAt + row.promised_seconds * 1000,
  }
  return { facts, row }
}

/**
 * Stores a manifest with its edges, or brings a deleted one back. Neither `inserted` nor `revived`: it was there.
 */
export async function upsertManifest(
  tx: Sql,
  repositoryId: number,
  manifest: Manifest,
  {
    payload,
    totalBytes,
    type,
    pushedBy,
    promiseSeconds,
  }: { payload: Buffer; totalBytes: number; type: string; pushedBy: string; promiseSeconds: number },
) {
  const stored = await tx.one(upsert, [
    repositoryId,
    manifest.digest,
    manifest.mediaType,
    manifest.artifactType,
    manifest.kind === 'index' || manifest.kind === 'docker-list' ? 'index' : 'image',
    type,
    payload,
    payload.length,
    totalBytes,
    manifest.config?.mediaType ?? null,
    manifest.subject?.digest ?? null,
    json(manifest.annotations),
    pushedBy,
    json(manifest.edges.map((edge, position) => ({ position, ...pick(edge) }))),
    promiseSeconds,
  ])
  if (!stored) throw new Error(`manifest ${manifest.digest} was neither found nor made`)
  return stored
}

/** Whether enough of its promise is left for a client that is told of it now. */
export const isPromised = ({ promisedUntilMs }: ManifestFacts, promiseSeconds: number): boolean =>
  promisedUntilMs - performance.now() >= promiseSeconds * 1000 * FRESH

/** Promises a manifest to a client. False when it was deleted meanwhile: a collection that was first is waited for. */
export const renewManifest = async (sql: Sql, id: string, promiseSeconds: number): Promise<boolean> =>
  (await sql.one(renew, [id, promiseSeconds])) !== null

/**
 * Renews the promises of manifests that another is about to name and holds them until the transaction ends, in the order of digests.
 * @returns those that the repository has.
 */
export async function holdManifests(tx: Sql, repositoryId: number, digests: readonly string[], promiseSeconds: number) {
  if (digests.length === 0) return []
  const held = await tx.rows(holdFresh, [repositoryId, digests, promiseSeconds])
  if (held.length === digests.length) return held
  await tx.rows(renewStale, [repositoryId, digests, promiseSeconds])
  return tx.rows(hold, [repositoryId, digests])
}

/** As `lockManifestTree` without locks, as if `going` were gone. */
export const manifestTree = (
  sql: Sql,
  { projectId, path }: In,
  digests: readonly string[],
  limit: number,
  going: readonly string[] = [],
): Promise<ManifestInTree[]> => sql.rows(tree, [projectId, path, digests, limit, going])

/** Digests of children of indexes that nothing else keeps once `going` are gone. */
export const orphansOf = async (
  sql: Sql,
  indexes: readonly string[],
  limit: number,
  going: readonly string[] = [],
): Promise<string[]> => (await sql.rows(orphans, [indexes, limit, going])).map(({ digest }) => digest)

/** What hangs on manifests that go, or is named by them, and does not go with them; in the order of digests. */
export const stayingManifests = (sql: Sql, going: readonly string[], limit: number): Promise<StayingManifest[]> =>
  sql.rows(stays, [going, limit])

/**
 * Locks manifests and their accessories, those of accessories included, in the order of digests; at most `limit` of them.
 * @returns the manifests first; those that are not there are missing.
 */
export async function lockManifestTree(
  tx: Sql,
  { projectId, path }: In,
  digests: readonly string[],
  limit: number,
): Promise<ManifestInTree[]> {
  const locked = new Set<string>()
  for (;;) {
    const found = await manifestTree(tx, { projectId, path }, digests, limit)
    const unlocked = found.map(({ id }) => id).filter((id) => !locked.has(id))
    // Found again under the locks: nobody adds an accessory to what is locked, nor names it in an index.
    if (unlocked.length === 0) return found
    await tx.rows(lock, [unlocked])
    for (const id of unlocked) locked.add(id)
  }
}

/**
 * Locks the children of buried indexes that nothing else keeps, and their accessories, at most about `limit`.
 * @returns them, found again under the locks: a tag or an index that came meanwhile keeps its manifest.
 */
export async function lockOrphans(
  tx: Sql,
  where: In,
  buried: readonly { id: string }[],
  limit: number,
): Promise<ManifestInTree[]> {
  const from = buried.map(({ id }) => id)
  const found = await orphansOf(tx, from, limit)
  if (found.length === 0) return []
  await lockManifestTree(tx, where, found, limit)
  const still = await orphansOf(tx, from, limit)
  return lockManifestTree(
    tx,
    where,
    still.filter((digest) => found.includes(digest)),
    limit,
  )
}

/** Makes a manifest an accessory of `subject` because of its tag. */
export const adoptSubject = (tx: Sql, id: string, subject: string) => tx.rows(adopt, [id, subject])

/** Undoes `adoptSubject` for a manifest that its tag has left. */
export const forgetSubject = (tx: Sql, id: string, subject: string) => tx.rows(forget, [id, subject])

/** Locks manifests of a repository, whichever come first in the order of digests. */
export const lockSomeManifests = (tx: Sql, repositoryId: number, limit: number) =>
  tx.rows(lockSome, [repositoryId, limit])

/** Makes tombstones of locked manifests. */
export async function buryManifests(
  tx: Sql,
  ids: readonly string[],
  { actor, door, reason, requestId }: { actor: string; door: string; reason: string; requestId: string },
  tombstoneSeconds: number,
): Promise<void> {
  if (ids.length > 0) await tx.rows(bury, [ids, actor, reason, door, requestId, tombstoneSeconds])
}

/** An index of the repository that names the manifest, if there is one. */
export const parentOf = async (tx: Sql, repositoryId: number, digest: string): Promise<string | null> =>
  (await tx.one(parents, [repositoryId, digest]))?.digest ?? null

const pick = ({ kind, digest, mediaType, sizeBytes, artifactType, platform, annotations, urls }: Edge) => ({
  kind,
  digest,
  mediaType,
  sizeBytes,
  artifactType,
  platform,
  annotations,
  urls,
})

// Postgres has no place for U+0000 in a jsonb. What a client reads is the payload, which keeps it.
const json = (value: unknown): string => JSON.stringify(value).replaceAll(/(?<!\\)((?:\\\\)*)\\u0000/g, '$1\\ufffd')
