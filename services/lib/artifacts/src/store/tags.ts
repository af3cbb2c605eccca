import { statement, statementOfRows, type Sql } from '@haven/db'
import { versionKey } from '@haven/oci'

const insert = statementOfRows<{ id: string }>(
  'tags insert',
  {
    repository_id: 'int4',
    tag: 'text',
    manifest_id: 'int8',
    digest: 'text',
    actor: 'text',
    door: 'text',
    reason: 'text',
    request_id: 'text',
    version_key: 'text',
  },
  'repository_id, tag',
  `, made as (
     insert into artifacts.tags (repository_id, name, manifest_id, version_key)
     select repository_id, tag, manifest_id, version_key from given
     on conflict (repository_id, name) do nothing returning id, repository_id, name),
   done as materialized (
     select given.*, made.id from made join given on given.repository_id = made.repository_id and given.tag = made.name),
   remembered as (
     insert into artifacts.tag_history (repository_id, tag, to_digest, actor, door, reason, request_id)
     select repository_id, tag, digest, actor, door, reason, request_id from done)
   select n::int as n, id from done`,
)
// Alone, without a join to the manifest: a row that was waited for is read again, but what it was joined with is not.
const lock = statement<{ id: string; manifestId: string }>(
  'tags lock',
  `select id, manifest_id as "manifestId" from artifacts.tags where repository_id = $1 and name = $2 for update`,
)
const move = statement<{ digest: string }>(
  'tags move',
  `with moved as (update artifacts.tags set manifest_id = $2, pushed_at = now() where id = $1)
   select digest from artifacts.manifests where id = $3`,
)
const recordMove = statement(
  'tags record move',
  `insert into artifacts.tag_history (repository_id, tag, from_digest, to_digest, actor, door, reason, request_id)
   values ($1, $2, $3, $4, $5, $6, $7, $8)`,
)
const history = statement<RecordedTagChange>(
  'tags history',
  `select h.id, h.from_digest as "from", h.to_digest as "to", h.actor, h.door, h.reason, h.request_id as "requestId",
          h.changed_at as "changedAt", h.restorable_until as "restorableUntil"
     from artifacts.repositories r join artifacts.tag_history h on h.repository_id = r.id and h.tag = $3
    where r.project_id = $1 and r.path = $2 and h.id < $4::bigint
    order by h.id desc limit $5`,
)
const forgetHistory = statement<{ deleted: number }>(
  'tags forget history',
  `with gone as (
     delete from artifacts.tag_history where id in (
       select h.id from artifacts.repositories r join artifacts.tag_history h on h.repository_id = r.id
        where r.deleted_at is not null and not exists (select from artifacts.manifests m where m.repository_id = r.id)
        limit $1) returning id)
   select count(*)::int as deleted from gone`,
)
const remove = statement<{ digest: string }>(
  'tags remove',
  `with gone as (delete from artifacts.tags where id = $1 returning repository_id, name, manifest_id),
   pointed as materialized (
     select g.repository_id, g.name, (select m.digest from artifacts.manifests m where m.id = g.manifest_id) as digest from gone g),
   told as (
     insert into artifacts.tag_history (repository_id, tag, from_digest, actor, door, reason, request_id, restorable_until)
     select repository_id, name, digest, $2, $3, $4, $5, now() + $6 * interval '1 second' from pointed)
   select digest from pointed`,
)
const ofManifests = statement<{ name: string; manifestId: string }>(
  'tags of manifests',
  `select name, manifest_id as "manifestId" from artifacts.tags where manifest_id = any($1::bigint[]) order by version_key desc`,
)
// "C" is the order of code points that the specification asks for, whatever the database sorts by. Behind selects, so that the plan for any page
// of any repository looks no dearer than one for this page: of a large repository, Postgres would plan each time anew, which costs twice the page.
const list = statement<{ name: string | null }>(
  'tags list',
  `select t.name from artifacts.repositories r
     left join lateral (
       select name from artifacts.tags
        where repository_id = r.id and name collate "C" > (select coalesce($3::text, ''))
        order by name collate "C" limit (select $4::int)) t on true
    where r.project_id = $1 and r.path = $2 and r.deleted_at is null and r.first_pushed_at is not null
    order by t.name collate "C"`,
)

export type TagDetails = {
  name: string
  digest: string
  mediaType: string
  sizeBytes: number
  pushedAt: Date
  pulledAt: Date | null
}

// As above. `offset 0`: manifests are looked up one at a time, where a join for any page might read them all.
const listDetails = statement<TagDetails | { name: null }>(
  'tags list details',
  `select t.name, m.digest, m."mediaType", m."sizeBytes", t.pushed_at as "pushedAt", t.pulled_at as "pulledAt" from artifacts.repositories r
     left join lateral (
       select name, manifest_id, pushed_at, pulled_at from artifacts.tags
        where repository_id = r.id and name collate "C" > (select coalesce($3::text, ''))
        order by name collate "C" limit (select $4::int)) t on true
     left join lateral (
       select digest, media_type as "mediaType", total_bytes::float8 as "sizeBytes" from artifacts.manifests where id = t.manifest_id offset 0) m on true
    where r.project_id = $1 and r.path = $2 and r.deleted_at is null and r.first_pushed_at is not null
    order by t.name collate "C"`,
)

export type RecordedTagChange = {
  id: string
  /** Null: the tag was made. */
  from: string | null
  /** Null: it was deleted. */
  to: string | null
  actor: string
  door: string
  reason: string | null
  requestId: string | null
  changedAt: Date
  /** Of a deletion. */
  restorableUntil: Date | null
}

/** Who changed a tag, for its history. */
export type TagChange = { actor: string; door: string; reason?: string | undefined; requestId: string }

/** Makes a tag and begins its history. False when it exists. */
export async function createTag(
  tx: Sql,
  { repositoryId, tag, manifestId, digest }: { repositoryId: number; tag: string; manifestId: string; digest: string },
  { actor, door, reason, requestId }: TagChange,
): Promise<boolean> {
  const values = [repositoryId, tag, manifestId, digest, actor, door, reason ?? null, requestId, versionKey(tag)]
  return (await tx.one(insert, values)) !== null
}

export const lockTag = (tx: Sql, repositoryId: number, name: string) => tx.one(lock, [repositoryId, name])

/** Points a locked tag at another manifest. Returns the digest that it pointed at. */
export async function moveTag(tx: Sql, tag: { id: string; manifestId: string }, manifestId: string): Promise<string> {
  return digestOfRow(await tx.one(move, [tag.id, manifestId, tag.manifestId]))
}

/** Removes a locked tag; what it leaves in its history is its tombstone. Returns the digest that it pointed at. */
export async function removeTag(
  tx: Sql,
  id: string,
  { actor, door, reason, requestId }: TagChange,
  tombstoneSeconds: number,
): Promise<string> {
  return digestOfRow(await tx.one(remove, [id, actor, door, reason ?? null, requestId, tombstoneSeconds]))
}

/** Tags of manifests, the highest version first. */
export const tagsOfManifests = (sql: Sql, manifestIds: readonly string[]) => sql.rows(ofManifests, [manifestIds])

export async function recordTagMove(
  tx: Sql,
  repositoryId: number,
  tag: string,
  from: string,
  to: string,
  { actor, door, reason, requestId }: TagChange,
): Promise<void> {
  await tx.rows(recordMove, [repositoryId, tag, from, to, actor, door, reason ?? null, requestId])
}

const LAST = '9223372036854775807'

/** Changes of a tag before `before` (all: null), the latest first. A repository that was deleted keeps them while it has tombstones. */
export const tagHistory = (
  sql: Sql,
  { projectId, path }: { projectId: number; path: string },
  tag: string,
  before: string | null,
  limit: number,
): Promise<RecordedTagChange[]> => sql.rows(history, [projectId, path, tag, before ?? LAST, limit])

/** Removes histories of repositories of which nothing is left, at most `limit` lines. Returns how many. */
export const forgetTagHistory = async (sql: Sql, limit: number): Promise<number> =>
  (await sql.one(forgetHistory, [limit]))?.deleted ?? 0

/** Null when there is no such repository. */
export async function tagNames(
  sql: Sql,
  { projectId, path }: { projectId: number; path: string },
  after: string | null,
  limit: number,
): Promise<string[] | null> {
  const rows = await sql.rows(list, [projectId, path, after, limit])
  return rows.length === 0 ? null : rows.flatMap(({ name }) => (name === null ? [] : [name]))
}

/** As `tagNames`, with what they point at. */
export async function tagDetails(
  sql: Sql,
  { projectId, path }: { projectId: number; path: string },
  after: string | null,
  limit: number,
): Promise<TagDetails[] | null> {
  const rows = await sql.rows(listDetails, [projectId, path, after, limit])
  return rows.length === 0 ? null : rows.filter((row): row is TagDetails => row.name !== null)
}

function digestOfRow(row: { digest: string } | null): string {
  if (!row) throw new Error('a tag pointed at no manifest')
  return row.digest
}
