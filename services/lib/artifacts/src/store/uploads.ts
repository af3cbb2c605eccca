import { statement, type Sql } from '@haven/db'
import type { SupportedAlgorithm } from '@haven/oci'
import type { UploadState } from '@haven/storage'

export type UploadRow = {
  id: string
  store: string
  key: string
  digestAlgorithm: SupportedAlgorithm
  offsetBytes: number
  state: UploadState | null
  fence: number
}

/** Whose upload it is: another's, or one of another repository, is not there (threats.md A29). */
export type UploadOwner = { id: string; projectId: number; path: string; principal: string }

const columns = `id, store, key, digest_algorithm as "digestAlgorithm", offset_bytes::float8 as "offsetBytes", state, fence`
const owned = 'id = $1 and project_id = $2 and path = $3 and principal = $4'
// The column keeps milliseconds and rounds: a lock given back at this instant may stand half a millisecond ahead of it.
const free = `locked_until <= now() + interval '1 millisecond'`

const insert = statement<{ id: string }>(
  'uploads insert',
  `insert into artifacts.uploads (id, project_id, path, principal, store, key, digest_algorithm)
   select $1::uuid, $2::int, $3::text, $4::text, $5::text, $6::text, $7::text
    where (select count(*) from artifacts.uploads where principal = $4) < $8
      and (select count(*) from artifacts.uploads where project_id = $2) < $9
   returning id`,
)
const find = statement<UploadRow & { locked: boolean }>(
  'uploads find',
  `select ${columns}, not (${free}) as locked from artifacts.uploads where ${owned}`,
)
const claim = statement<UploadRow>(
  'uploads claim',
  `update artifacts.uploads
      set fence = fence + 1, locked_until = now() + $5 * interval '1 second', updated_at = now()
    where ${owned} and ${free} and ($6::bigint is null or offset_bytes = $6)
   returning ${columns}`,
)
const extend = statement<{ id: string }>(
  'uploads extend',
  `update artifacts.uploads set locked_until = now() + $3 * interval '1 second', updated_at = now()
    where id = $1 and fence = $2 returning id`,
)
const record = statement<{ id: string }>(
  'uploads record',
  `update artifacts.uploads set offset_bytes = $3, state = $4::jsonb, locked_until = now(), updated_at = now()
    where id = $1 and fence = $2 returning id`,
)
const release = statement(
  'uploads release',
  'update artifacts.uploads set locked_until = now() where id = $1 and fence = $2',
)
const toTrash = (rows: string, reason: string) => `
  with gone as (delete from artifacts.uploads where ${rows} returning key, store, offset_bytes, state),
  kept as (
    insert into artifacts.trash (key, store, size_bytes, state, reason, erase_after)
    select key, store, offset_bytes, state, ${reason}, now() from gone on conflict (key) do nothing)
  select key from gone`

const cancel = statement<{ key: string }>('uploads cancel', toTrash(owned, `'upload cancelled'`))
const discard = statement<{ key: string }>('uploads discard', toTrash('id = $1 and fence = $2', '$3::text'))
const expire = statement<{ key: string }>(
  'uploads expire',
  toTrash(
    `id in (select id from artifacts.uploads
             where updated_at < now() - $1 * interval '1 second' and ${free}
             order by updated_at limit $2 for update skip locked)`,
    `'upload expired'`,
  ),
)

const owner = ({ id, projectId, path, principal }: UploadOwner) => [id, projectId, path, principal]

/** False when the principal or the project has too many open uploads already. */
export async function insertUpload(
  sql: Sql,
  of: UploadOwner,
  { store, key, digestAlgorithm }: Pick<UploadRow, 'store' | 'key' | 'digestAlgorithm'>,
  limits: { perPrincipal: number; perProject: number },
): Promise<boolean> {
  const values = [...owner(of), store, key, digestAlgorithm, limits.perPrincipal, limits.perProject]
  return (await sql.one(insert, values)) !== null
}

export const findUpload = (sql: Sql, of: UploadOwner) => sql.one(find, owner(of))

/** Takes the next write for `seconds`; null when there is no such upload, it is not at `offsetBytes`, or another holds it. */
export const claimUpload = (sql: Sql, of: UploadOwner, seconds: number, offsetBytes: number | null) =>
  sql.one(claim, [...owner(of), seconds, offsetBytes])

/** Each of these is false, and has done nothing, when somebody else has claimed the upload since. */
export const extendClaim = async (sql: Sql, { id, fence }: UploadRow, seconds: number) =>
  (await sql.one(extend, [id, fence, seconds])) !== null

export const recordUpload = async (
  sql: Sql,
  { id, fence }: UploadRow,
  offsetBytes: number,
  state: UploadState | null,
) => (await sql.one(record, [id, fence, offsetBytes, state && JSON.stringify(state)])) !== null

export const discardUpload = async (sql: Sql, { id, fence }: UploadRow, reason: string) =>
  (await sql.one(discard, [id, fence, reason])) !== null

export const releaseUpload = async (sql: Sql, { id, fence }: UploadRow): Promise<void> => {
  await sql.rows(release, [id, fence])
}

/** Ends an upload whoever is writing to it: that one's next record finds nothing. */
export const cancelUploadRow = async (sql: Sql, of: UploadOwner) => (await sql.one(cancel, owner(of))) !== null

export const expireUploadRows = async (sql: Sql, idleSeconds: number, limit: number) =>
  (await sql.rows(expire, [idleSeconds, limit])).length
