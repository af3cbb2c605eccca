import {
  listKept,
  orderOf,
  Prisma,
  statement,
  statementOfRows,
  type Database,
  type Fields,
  type Page,
  type Sort,
  type Sql,
  type Tx,
} from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { ProjectUpdatedSchema } from '@haven/proto/events'
import type { ProjectDeps, Transaction } from './deps.ts'

/** Harbor's own upper end: 1024 TiB. */
export const MAX_QUOTA_BYTES = 1024 * 1024 ** 4
export const UNLIMITED = -1

/**
 * A limit as somebody asks for it: -1 for none, or bytes.
 * @throws badRequest
 */
export function parseQuotaLimit(bytes: number): number {
  if (bytes === UNLIMITED) return bytes
  if (bytes <= 0) {
    throw problems.badRequest({ message: `bad request: invalid non-positive value for quota limit, value=${bytes}` })
  }
  if (bytes > MAX_QUOTA_BYTES) {
    throw problems.badRequest({
      message: `bad request: exceeded 1024TB, which is ${MAX_QUOTA_BYTES} Bytes, value=${bytes}`,
    })
  }
  return bytes
}

const chargeUnlimited = statementOfRows(
  'quotas charge unlimited',
  { project_id: 'int4', bytes: 'int8', reason: 'text' },
  'project_id',
  `, unlimited as materialized (
     select * from given
      where bytes < 0 or not exists (select from projects.quotas q where q.project_id = given.project_id and q.hard_bytes <> -1)),
   charged as (
     insert into projects.quota_deltas (project_id, delta_bytes, reason)
     select project_id, sum(bytes), reason from unlimited group by project_id, reason order by project_id)
   select n::int as n from unlimited`,
)
// 0x71756f74: "quot"; the second key is the project.
const queueUp = statement('quotas queue up', 'select pg_advisory_xact_lock(1903521652, $1::int)')
const readUsage = statement<{ hard: string; used: string }>(
  'quotas usage',
  `select q.hard_bytes as hard,
          q.used_bytes + coalesce((select sum(d.delta_bytes) from projects.quota_deltas d where d.project_id = q.project_id), 0) as used
     from projects.quotas q
    where q.project_id = $1`,
)
const chargeLimited = statement(
  'quotas charge limited',
  'insert into projects.quota_deltas (project_id, delta_bytes, reason) values ($1, $2, $3)',
)

export type QuotaUsage = { hardBytes: number; usedBytes: number }

/**
 * Counts `bytes` (negative to give back) towards the project in the caller's transaction. A project without a limit costs one
 * insert and never waits; one with a limit lets its pushes through one after another, so that two cannot both take the last bytes.
 * @throws quotaExceeded
 */
export async function charge(tx: Sql | Tx, projectId: number, bytes: number | bigint, reason: string): Promise<void> {
  if (BigInt(bytes) === 0n) return
  const values = [projectId, bytes.toString(), reason]
  if (await tx.one(chargeUnlimited, values)) return

  if ('alone' in tx) tx.alone()
  await tx.rows(queueUp, [projectId])
  // A statement of its own: its snapshot must be taken after the lock, to see what the one before us took.
  const usage = await tx.one(readUsage, [projectId])
  if (usage && usage.hard !== '-1' && BigInt(usage.used) + BigInt(bytes) > BigInt(usage.hard)) {
    throw problems.quotaExceeded({
      addedBytes: Number(bytes),
      usedBytes: Number(usage.used),
      limitBytes: Number(usage.hard),
    })
  }
  await tx.rows(chargeLimited, values)
}

/** Limit (-1: none) and use of a project, up to the last commit. Null for a project that has no quota: it was deleted. */
export async function usage(sql: Sql, projectId: number): Promise<QuotaUsage | null> {
  const row = await sql.one(readUsage, [projectId])
  return row && { hardBytes: Number(row.hard), usedBytes: Number(row.used) }
}

export const setQuotaLimit = (tx: Transaction, projectId: number, hardBytes: number) =>
  tx.quota.upsert({
    where: { projectId },
    create: { projectId, hardBytes: BigInt(hardBytes) },
    update: { hardBytes: BigInt(hardBytes) },
  })

const foldBatch = statement<{ folded: string }>(
  'quotas fold',
  `with gone as (
     delete from projects.quota_deltas
      where id in (select id from projects.quota_deltas order by id limit $1 for update skip locked)
     returning project_id, delta_bytes),
   sums as (select project_id, sum(delta_bytes) as bytes from gone group by project_id),
   added as (
     update projects.quotas q set used_bytes = q.used_bytes + s.bytes, updated_at = now()
       from sums s where s.project_id = q.project_id)
   select count(*) as folded from gone`,
)

const FOLD_BATCH = 5_000

/** Adds the open deltas to the quotas' rows, so that reading a usage stays cheap. Any number of processes may do it at once. */
export async function foldQuotas({ writes }: Pick<Database, 'writes'>, signal?: AbortSignal): Promise<number> {
  let total = 0
  for (;;) {
    signal?.throwIfAborted()
    const folded = Number((await writes.one(foldBatch, [FOLD_BATCH]))?.folded ?? 0)
    total += folded
    if (folded < FOLD_BATCH) return total
  }
}

export type QuotaDetails = QuotaUsage & {
  projectId: number
  projectName: string
  ownerId: number
  createdAt: Date
  updatedAt: Date
}

const quotaFields: Fields = {
  id: { column: Prisma.sql`project_id`, type: 'number' },
  'hard.storage': { column: Prisma.sql`hard_bytes`, type: 'number' },
  'used.storage': { column: Prisma.sql`used_bytes`, type: 'number' },
  creation_time: { column: Prisma.sql`created_at`, type: 'time' },
  update_time: { column: Prisma.sql`updated_at`, type: 'time' },
}

/** Quotas with what is used up to the last commit. */
const current = Prisma.sql`(
  select project_id, hard_bytes, created_at, updated_at,
         used_bytes + coalesce((select sum(delta_bytes) from projects.quota_deltas d where d.project_id = q.project_id), 0)::bigint as used_bytes
    from projects.quotas q) quotas`
const countDeltas = statement<{ open: string }>(
  'quotas open deltas',
  `select count(*) || ' ' || coalesce(sum(id), 0) as open from projects.quota_deltas`,
)

/** A page of the quotas of projects that are there, and how many there are. `projectId`: of one only. */
export async function listQuotas(
  db: Pick<Database, 'prisma' | 'reads' | 'lists'>,
  query: { projectId?: number; sort?: readonly Sort[]; page: Page },
): Promise<{ total: number; quotas: QuotaDetails[] }> {
  type Row = Omit<QuotaDetails, 'hardBytes' | 'usedBytes' | 'projectName' | 'ownerId'> & { hard: bigint; used: bigint }
  const order = orderOf(query.sort ?? [], quotaFields, [], Prisma.sql`project_id`)
  const byUse = order.some(({ column }) => column === quotaFields['used.storage']!.column)
  // A project takes its quota with it when it is deleted.
  const { total, rows } = await listKept<Row>(db, {
    columns: Prisma.sql`
      project_id as "projectId", hard_bytes as hard, used_bytes as used, created_at as "createdAt", updated_at as "updatedAt"`,
    from: current,
    where: [query.projectId === undefined ? Prisma.sql`true` : Prisma.sql`project_id = ${query.projectId}`],
    order,
    page: query.page,
    tables: ['projects.quotas'],
    // A push changes no quota but adds a delta; that deltas are gone, the quotas that they were added to tell.
    ...(byUse && { besides: (await db.reads.one(countDeltas, []))!.open }),
  })
  const projects = await db.prisma.project.findMany({
    where: { id: { in: rows.map((row) => row.projectId) } },
    select: { id: true, name: true, ownerId: true },
  })
  const byId = new Map(projects.map((project) => [project.id, project]))
  const quotas = rows.map(({ hard, used: bytes, ...row }) => {
    const { name, ownerId } = byId.get(row.projectId)!
    return { ...row, projectName: name, ownerId, hardBytes: Number(hard), usedBytes: Number(bytes) }
  })
  return { total, quotas }
}

/** Says how much a project may hold. What it holds already stays, even if it is more. @throws badRequest */
export async function changeQuotaLimit(
  { db }: Pick<ProjectDeps, 'db'>,
  source: EventSource,
  project: { id: number; name: string },
  bytes: number,
): Promise<void> {
  const hardBytes = parseQuotaLimit(bytes)
  await db.prisma.$transaction(async (tx) => {
    await setQuotaLimit(tx, project.id, hardBytes)
    const about = { id: BigInt(project.id), name: project.name }
    await emit(tx, ProjectUpdatedSchema, source, { project: about, fields: ['storage_limit'] })
  })
}
