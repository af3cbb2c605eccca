import { statement, statementOfRows, UNSYNCED, type Sql } from '@haven/db'
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

const columnsOf = (id: string) =>
  `${id}, store, key, digest_algorithm as "digestAlgorithm", offset_bytes::float8 as "offsetBytes", state, fence`
const owned = 'id = $1 and project_id = $2 and path = $3 and principal = $4'
// The column keeps milliseconds and rounds: a lock given back at this instant may stand half a millisecond ahead of it.
const free = `locked_until <= now() + interval '1 millisecond'`

const ownerColumns = { id: 'text', project_id: 'int4', path: 'text', principal: 'text' } as const
const ownedAsGiven =
  'u.id = given.id::uuid and u.project_id = given.project_id and u.path = given.path and u.principal = given.principal'

// Those who ask at once count towards each other's limits. UNSYNCED, since no byte was acknowledged: a client whose upload is lost with the
// database's last moment begins again (BLOB_UPLOAD_UNKNOWN). The claim of whoever writes puts this on the disk, too, before any byte.
const insert = statementOfRows(
  'uploads insert',
  { ...ownerColumns, store: 'text', key: 'text', digest_algorithm: 'text', per_principal: 'int4', per_project: 'int4' },
  'n',
  `, of_principal as materialized (
     select principal, (select count(*) from artifacts.uploads u where u.principal = g.principal) as open
       from (select distinct principal from given) g),
   of_project as materialized (
     select project_id, (select count(*) from artifacts.uploads u where u.project_id = g.project_id) as open
       from (select distinct project_id from given) g),
   numbered as (
     select given.*, of_principal.open + row_number() over (partition by principal order by n) as nth_of_principal,
            of_project.open + row_number() over (partition by project_id order by n) as nth_of_project
       from given join of_principal using (principal) join of_project using (project_id)),
   made as (
     insert into artifacts.uploads (id, project_id, path, principal, store, key, digest_algorithm)
     select id::uuid, project_id, path, principal, store, key, digest_algorithm
       from numbered where nth_of_principal <= per_principal and nth_of_project <= per_project
     returning id)
   select given.n::int as n, ${UNSYNCED} from made join given on given.id::uuid = made.id`,
)
const find = statement<UploadRow & { locked: boolean }>(
  'uploads find',
  `select ${columnsOf('id')}, not (${free}) as locked from artifacts.uploads where ${owned}`,
)
const claim = statementOfRows<UploadRow>(
  'uploads claim',
  { ...ownerColumns, seconds: 'float8', at_bytes: 'int8' },
  'n',
  `update artifacts.uploads u
      set fence = u.fence + 1, locked_until = now() + given.seconds * interval '1 second', updated_at = now()
     from given
    where ${ownedAsGiven} and ${free} and (given.at_bytes is null or u.offset_bytes = given.at_bytes)
   returning given.n::int as n, ${columnsOf('u.id')}`,
)
const extend = statement<{ id: string }>(
  'uploads extend',
  `update artifacts.uploads set locked_until = now() + $3 * interval '1 second', updated_at = now()
    where id = $1 and fence = $2 returning id`,
)
const record = statementOfRows(
  'uploads record',
  { id: 'text', fence: 'int4', offset_bytes: 'int8', state: 'jsonb' },
  'n',
  `update artifacts.uploads u set offset_bytes = given.offset_bytes, state = given.state, locked_until = now(), updated_at = now()
     from given
    where u.id = given.id::uuid and u.fence = given.fence
   returning given.n::int as n`,
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

const oldestIdle = (of: string) => `
  id in (select id from artifacts.uploads where ${of} and updated_at < now() - $3 * interval '1 second' and ${free}
          order by updated_at limit $4 for update skip locked)`
const giveWay = statement<{ key: string }>(
  'uploads give way',
  toTrash(`${oldestIdle('principal = $1')} or ${oldestIdle('project_id = $2')}`, `'upload gave way'`),
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

/** Ends uploads of the principal, and of the project, that nobody touched for `idleSeconds`: at most `limit` of each, the oldest. Returns how many. */
export const endIdleUploads = async (
  sql: Sql,
  { principal, projectId }: UploadOwner,
  idleSeconds: number,
  limit: number,
): Promise<number> => (await sql.rows(giveWay, [principal, projectId, idleSeconds, limit])).length

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
