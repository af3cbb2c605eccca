import { statement, statementOfRows, type Sql } from '@haven/db'
import { fresh, until } from './promises.ts'

/** A blob that a repository may read, and where its bytes are. */
export type StoredBlob = { id: string; sizeBytes: number; key: string }
export type LinkedBlob = StoredBlob & { repositoryId: number }

// `offset 0`: link and place by their keys. Otherwise the planner may begin with all links of the repository, of which it expects few, and
// keeps that plan while they become many: 5 ms instead of 30 µs.
const linked = `
    from artifacts.repositories r
    join artifacts.blobs b on b.digest = $3 and b.damaged_at is null
    join lateral (
      select k.promised_until from artifacts.blob_links k where k.repository_id = r.id and k.blob_id = b.id offset 0) k on true
    join lateral (select l.key from artifacts.blob_locations l where l.blob_id = b.id and l.store = $4 offset 0) l on true
   where r.project_id = $1 and r.path = $2 and r.deleted_at is null`

const find = statement<LinkedBlob>(
  'blobs find',
  `select b.id, b.size_bytes::float8 as "sizeBytes", l.key, r.id as "repositoryId" ${linked}`,
)

const findPromised = statement<StoredBlob & { fresh: boolean }>(
  'blobs find promised',
  `select b.id, b.size_bytes::float8 as "sizeBytes", l.key,
          least(b.promised_until, k.promised_until) >= ${fresh('$5')} as fresh ${linked}`,
)

const findAndRenew = statement<StoredBlob>(
  'blobs find and renew',
  `with found as materialized (
     select b.id, b.size_bytes, l.key, r.id as repository_id, b.promised_until as blob_until, k.promised_until as link_until ${linked}),
   blob as (
     update artifacts.blobs b set promised_until = ${until('$5')}
       from found f where b.id = f.id and f.blob_until < ${fresh('$5')} returning b.id),
   link as (
     update artifacts.blob_links k set promised_until = ${until('$5')}
       from found f where k.repository_id = f.repository_id and k.blob_id = f.id and f.link_until < ${fresh('$5')} returning k.blob_id)
   select f.id, f.size_bytes::float8 as "sizeBytes", f.key from found f
    where (f.blob_until >= ${fresh('$5')} or exists (select from blob))
      and (f.link_until >= ${fresh('$5')} or exists (select from link))`,
)

type RecordedRow = {
  id: string
  repositoryId: number
  inserted: boolean
  damaged: boolean
  placed: boolean
  linked: boolean
  /** Where the bytes were already before this statement. */
  knownKey: string | null
}

// No two rows have the same digest. The repository is held as by `ensureRepository`.
const record = statementOfRows<RecordedRow & { unread: string | null }>(
  'blobs record',
  {
    project_id: 'int4',
    path: 'text',
    upload_id: 'text',
    fence: 'int4',
    digest: 'text',
    size_bytes: 'int8',
    promise: 'float8',
    store: 'text',
    key: 'text',
    sound: 'text',
  },
  'digest',
  `, home as materialized (
     select given.n, r.id
       from given
       join lateral (
         select id from artifacts.repositories
          where project_id = given.project_id and path = given.path and deleted_at is null offset 0 for key share) r on true),
   unread as materialized (
     select given.n, l.key
       from given
       join lateral (select id from artifacts.blobs where digest = given.digest and damaged_at is null offset 0) b on true
       join lateral (select key from artifacts.blob_locations where blob_id = b.id and store = given.store offset 0) l
         on l.key is distinct from given.sound),
   upload as (
     delete from artifacts.uploads u using given
      where u.id = given.upload_id::uuid and u.fence = given.fence
        and exists (select from home where home.n = given.n) and not exists (select from unread where unread.n = given.n)
     returning given.n),
   ready as materialized (
     select given.*, home.id as repository_id from upload join given on given.n = upload.n join home on home.n = upload.n order by given.digest),
   blob as (
     insert into artifacts.blobs as b (digest, size_bytes, promised_until) select digest, size_bytes, ${until('promise')} from ready
     on conflict (digest) do update set promised_until = greatest(b.promised_until, excluded.promised_until)
     returning id, digest, xmax = 0 as inserted, damaged_at is not null as damaged),
   known as materialized (
     select ready.*, blob.id as blob_id, blob.inserted, blob.damaged from blob join ready on ready.digest = blob.digest),
   place as (
     insert into artifacts.blob_locations (blob_id, store, key) select blob_id, store, key from known
     on conflict (blob_id, store) do nothing returning blob_id),
   link as (
     insert into artifacts.blob_links as k (repository_id, blob_id, promised_until) select repository_id, blob_id, ${until('promise')} from known
     on conflict (repository_id, blob_id) do update set promised_until = greatest(k.promised_until, excluded.promised_until)
     returning blob_id, xmax = 0 as linked)
   select known.n::int as n, known.blob_id as id, known.repository_id as "repositoryId", known.inserted, known.damaged,
          exists (select from place where place.blob_id = known.blob_id) as placed, link.linked,
          case when not known.inserted then
            (select l.key from artifacts.blob_locations l where l.blob_id = known.blob_id and l.store = known.store) end as "knownKey", null as unread
     from known join link on link.blob_id = known.blob_id
   union all select n::int, null, null, null, null, null, null, null, key from unread`,
)

const replaceDamaged = statement<{ key: string }>(
  'blobs replace damaged',
  `with old as (select key from artifacts.blob_locations where blob_id = $1 and store = $2),
   place as (update artifacts.blob_locations set key = $3 where blob_id = $1 and store = $2),
   blob as (update artifacts.blobs set damaged_at = null, size_bytes = $4 where id = $1)
   select key from old`,
)

const linkElsewhere = statement<{ found: boolean }>(
  'blobs linked elsewhere',
  `select exists (
     select from artifacts.blob_links k join artifacts.repositories r on r.id = k.repository_id
      where k.blob_id = $1 and r.project_id = $2 and k.repository_id <> $3) as found`,
)

const inProject = statement<{ found: boolean }>(
  'blobs in project',
  `select exists (
     select from artifacts.blobs b
       join artifacts.blob_links k on k.blob_id = b.id
       join artifacts.repositories r on r.id = k.repository_id and r.project_id = $1
      where b.digest = $2) as found`,
)

const largest = statement<{ bytes: number }>(
  'blobs largest of project',
  `select coalesce(max(b.size_bytes), 0)::float8 as bytes
     from artifacts.repositories r
     join artifacts.blob_links k on k.repository_id = r.id
     join artifacts.blobs b on b.id = k.blob_id
    where r.project_id = $1`,
)

const mount = statement<{ id: string; sizeBytes: number; linked: boolean }>(
  'blobs mount',
  `with blob as (
     update artifacts.blobs set promised_until = greatest(promised_until, ${until('$3')})
      where id = $1 and damaged_at is null returning id, size_bytes),
   link as (
     insert into artifacts.blob_links as k (repository_id, blob_id, promised_until) select $2, id, ${until('$3')} from blob
     on conflict (repository_id, blob_id) do update set promised_until = greatest(k.promised_until, excluded.promised_until)
     returning xmax = 0 as linked)
   select blob.id, blob.size_bytes::float8 as "sizeBytes", link.linked from blob, link`,
)

const holders = statement<{ projectId: number; path: string }>(
  'blobs holders',
  `select r.project_id as "projectId", r.path
     from artifacts.blobs b
     join artifacts.blob_links k on k.blob_id = b.id
     join artifacts.repositories r on r.id = k.repository_id and r.deleted_at is null
    where b.digest = $1 and b.damaged_at is null
    order by r.id limit $2`,
)

const repository = 'select id from artifacts.repositories where project_id = $1 and path = $2 and deleted_at is null'

// By the keys of the links, for the same reason. A list of digests counts as ten: most repositories have fewer links than that.
const named = `
    from artifacts.blob_links k join artifacts.blobs b on b.id = k.blob_id
   where k.repository_id = (${repository}) and k.blob_id = any(array(select id from artifacts.blobs where digest = any($3::text[])))`

const renewStale = statement(
  'blobs renew stale',
  `with held as materialized (
     select b.id, b.promised_until as blob_until, k.promised_until as link_until ${named}
        and (b.promised_until < ${fresh('$4')} or k.promised_until < ${fresh('$4')})
      order by b.digest for no key update),
   blob as (
     update artifacts.blobs b set promised_until = ${until('$4')}
       from held h where b.id = h.id and h.blob_until < ${fresh('$4')})
   update artifacts.blob_links k set promised_until = ${until('$4')}
     from held h where k.repository_id = (${repository}) and k.blob_id = h.id and h.link_until < ${fresh('$4')}`,
)

// `offset 0`: each by its key, in the order of digests.
const holdFresh = statementOfRows<{ digest: string; sizeBytes: number }>(
  'blobs hold fresh',
  { project_id: 'int4', path: 'text', digests: 'text', promise: 'float8' },
  'n',
  `, wanted as materialized (
     select given.n, r.id as repository_id, d.digest, ${fresh('given.promise')} as fresh
       from given
       join lateral (
         select id from artifacts.repositories
          where project_id = given.project_id and path = given.path and deleted_at is null offset 0) r on true
       cross join lateral unnest(string_to_array(given.digests, ',')) as d (digest)
      order by d.digest)
   select wanted.n::int as n, b.digest, b.size_bytes::float8 as "sizeBytes"
     from wanted
     join lateral (
       select id, digest, size_bytes from artifacts.blobs
        where digest = wanted.digest and damaged_at is null and promised_until >= wanted.fresh offset 0 for share) b on true
     join lateral (
       select from artifacts.blob_links
        where repository_id = wanted.repository_id and blob_id = b.id and promised_until >= wanted.fresh offset 0 for share) k on true`,
)

const hold = statement<{ digest: string; sizeBytes: number }>(
  'blobs hold',
  `select b.digest, b.size_bytes::float8 as "sizeBytes" ${named} and b.damaged_at is null order by b.digest for share of b, k`,
)

const lockLink = statement<{ repositoryId: number; blobId: string; sizeBytes: number }>(
  'blobs lock link',
  `select k.repository_id as "repositoryId", k.blob_id as "blobId", b.size_bytes::float8 as "sizeBytes"
     from artifacts.repositories r
     join artifacts.blobs b on b.digest = $3
     join artifacts.blob_links k on k.repository_id = r.id and k.blob_id = b.id
    where r.project_id = $1 and r.path = $2 and r.deleted_at is null
    for update of b, k`,
)

const unlink = statement<{ blobId: string }>(
  'blobs unlink',
  `delete from artifacts.blob_links k
    where k.repository_id = $1 and k.blob_id = $2
      and not exists (
        select from artifacts.manifest_edges e join artifacts.manifests m on m.id = e.manifest_id and m.deleted_at is null
         where e.repository_id = $1 and e.digest = $3 and e.kind in ('config', 'layer', 'foreign'))
   returning k.blob_id as "blobId"`,
)

const trash = statement(
  'blobs trash',
  `insert into artifacts.trash (key, store, digest, size_bytes, state, reason, erase_after)
   values ($1, $2, $3, $4, $5::jsonb, $6, now() + $7 * interval '1 second') on conflict (key) do nothing`,
)

type In = { projectId: number; path: string }

export const findBlob = (sql: Sql, { projectId, path }: In, digest: string, store: string) =>
  sql.one(find, [projectId, path, digest, store])

/** As `findBlob`, and whether it needs no renewing: most of its promise is still to come. */
export const findPromisedBlob = (
  sql: Sql,
  { projectId, path }: In,
  digest: string,
  store: string,
  promiseSeconds: number,
) => sql.one(findPromised, [projectId, path, digest, store, promiseSeconds])

/** As `findBlob`, and keeps the blob for a client that is about to refer to it. A blob that is being forgotten counts as absent. */
export const findAndRenewBlob = (
  sql: Sql,
  { projectId, path }: In,
  digest: string,
  store: string,
  promiseSeconds: number,
) => sql.one(findAndRenew, [projectId, path, digest, store, promiseSeconds])

/**
 * Makes an upload's complete object known as a blob of a repository, or finds that the blob is known: then `placed` is false. Null, and
 * nothing done, when somebody else has claimed the upload or there is no such repository; nor when the bytes are already under a key that is
 * not the one that was found `sound`.
 */
export async function recordBlob(
  tx: Sql,
  { projectId, path }: In,
  upload: { id: string; fence: number },
  blob: { digest: string; sizeBytes: number; store: string; key: string },
  sound: string | null,
  promiseSeconds: number,
): Promise<RecordedRow | { unread: string } | null> {
  const { digest, sizeBytes, store, key } = blob
  const { id, fence } = upload
  const row = await tx.one(record, [projectId, path, id, fence, digest, sizeBytes, promiseSeconds, store, key, sound])
  if (row === null) return null
  const { unread, ...recorded } = row
  return unread === null ? recorded : { unread }
}

/** Puts our object in the place of one that was found damaged. Returns the damaged one's key. */
export async function replaceDamagedBlob(
  tx: Sql,
  id: string,
  { store, key, sizeBytes }: { store: string; key: string; sizeBytes: number },
): Promise<string | null> {
  return (await tx.one(replaceDamaged, [id, store, key, sizeBytes]))?.key ?? null
}

/**
 * Whether another repository of the project has the blob. Asked by who holds the blob's row in this transaction, so that of two
 * repositories that get it at once only one counts it.
 */
export async function isLinkedElsewhere(
  tx: Sql,
  blobId: string,
  projectId: number,
  repositoryId: number,
): Promise<boolean> {
  return (await tx.one(linkElsewhere, [blobId, projectId, repositoryId]))?.found === true
}

export const isBlobInProject = async (sql: Sql, projectId: number, digest: string): Promise<boolean> =>
  (await sql.one(inProject, [projectId, digest]))?.found === true

export const largestBlobOf = async (sql: Sql, projectId: number): Promise<number> =>
  (await sql.one(largest, [projectId]))?.bytes ?? 0

export const linkBlob = (tx: Sql, blobId: string, repositoryId: number, promiseSeconds: number) =>
  tx.one(mount, [blobId, repositoryId, promiseSeconds])

export const blobHolders = (sql: Sql, digest: string, limit: number) => sql.rows(holders, [digest, limit])

/**
 * Holds what a manifest is about to refer to until the transaction ends, in the order of digests, as far as it was promised just now:
 * of a push, that is all.
 */
export const holdFreshBlobs = async (
  tx: Sql,
  { projectId, path }: In,
  digests: readonly string[],
  promiseSeconds: number,
) => (digests.length === 0 ? [] : tx.rows(holdFresh, [projectId, path, digests.join(','), promiseSeconds]))

/**
 * As `holdFreshBlobs` for what others pushed long ago: it is promised anew.
 * @returns those that the repository has.
 */
export async function holdBlobs(tx: Sql, { projectId, path }: In, digests: readonly string[], promiseSeconds: number) {
  await tx.rows(renewStale, [projectId, path, digests, promiseSeconds])
  return tx.rows(hold, [projectId, path, digests])
}

export const lockBlobLink = (tx: Sql, { projectId, path }: In, digest: string) =>
  tx.one(lockLink, [projectId, path, digest])

/** False when a manifest of the repository needs the blob. */
export async function unlinkBlob(tx: Sql, repositoryId: number, blobId: string, digest: string): Promise<boolean> {
  return (await tx.one(unlink, [repositoryId, blobId, digest])) !== null
}

export type Rubbish = {
  key: string
  store: string
  digest?: string | undefined
  sizeBytes: number
  /** Of an upload that was not completed. */
  state?: unknown
  reason: string
}

/** Leaves an object that nothing points at to the eraser. */
export async function trashObject(sql: Sql, rubbish: Rubbish, afterSeconds: number): Promise<void> {
  const { key, store, digest, sizeBytes, state, reason } = rubbish
  await sql.rows(trash, [
    key,
    store,
    digest ?? null,
    sizeBytes,
    state ? JSON.stringify(state) : null,
    reason,
    afterSeconds,
  ])
}
