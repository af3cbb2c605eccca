import { statement, statementOfRows, type Sql } from '@haven/db'
import type { Edge, Manifest } from '@haven/oci'
import { fresh, FRESH_SHARE, until } from './promises.ts'

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

const get = {
  tag: find('manifests by tag', 'tag', ', m.payload'),
  digest: find('manifests by digest', 'digest', ', m.payload'),
}
const head = {
  tag: find('manifests head by tag', 'tag', ''),
  digest: find('manifests head by digest', 'digest', ''),
}

const upsert = statementOfRows<{ id: string; inserted: boolean; revived: boolean; retyped: boolean }>(
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
     select given.n, m.dead, m.media_type
       from given
       join lateral (
         select deleted_at is not null as dead, media_type from artifacts.manifests
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
     select given.n, given.edges, given.media_type, put.* from put join given on given.repository_id = put.repository_id and given.digest = put.digest),
   edges as (
     insert into artifacts.manifest_edges
       (manifest_id, position, repository_id, kind, digest, media_type, size_bytes, artifact_type, platform, annotations, urls)
     select done.id, e.position, done.repository_id, e.kind, e.digest, e."mediaType", e."sizeBytes", e."artifactType", e.platform, e.annotations,
            coalesce(e.urls, '{}')
       from done, jsonb_to_recordset(done.edges) as e (position int, kind text, digest text, "mediaType" text, "sizeBytes" bigint,
                                                       "artifactType" text, platform jsonb, annotations jsonb, urls text[])
      where done.inserted)
   select done.n::int as n, done.id, done.inserted, coalesce(old.dead, false) as revived,
          coalesce(not old.dead and old.media_type <> done.media_type, false) as retyped
     from done left join old on old.n = done.n`,
)

const holdNamed = (condition: string) => `
   select digest, total_bytes::float8 as "totalBytes" from artifacts.manifests
    where repository_id = $1 and digest = any($2::text[]) and deleted_at is null ${condition}
    order by digest for share`

const holdFresh = statement<{ digest: string; totalBytes: number }>(
  'manifests hold fresh',
  holdNamed(`and promised_until >= ${fresh('$3')}`),
)

const renewStale = statement(
  'manifests renew stale',
  `with held as materialized (
     select id from artifacts.manifests
      where repository_id = $1 and digest = any($2::text[]) and deleted_at is null
        and promised_until < ${fresh('$3')}
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
 * Stores a manifest with its edges, or brings a deleted one back. Neither `inserted` nor `revived`: it was there; `retyped`: as another media type.
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
  promisedUntilMs - performance.now() >= promiseSeconds * 1000 * FRESH_SHARE

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

/** Makes a manifest an accessory of `subject` because of its tag. */
export const adoptSubject = (tx: Sql, id: string, subject: string) => tx.rows(adopt, [id, subject])

/** Undoes `adoptSubject` for a manifest that its tag has left. */
export const forgetSubject = (tx: Sql, id: string, subject: string) => tx.rows(forget, [id, subject])

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
