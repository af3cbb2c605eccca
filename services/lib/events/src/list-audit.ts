import {
  conditionsToSql,
  fieldOf,
  orderToSql,
  pageToSql,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'

/** A line of the audit log as it was kept. */
export type AuditEntry = {
  id: number
  occurredAt: Date
  projectId: number | null
  operation: string
  resourceType: string
  resource: string
  actor: string
  description: string
  success: boolean
}

/** Whose lines are seen: all, those of some projects, or those of every project but some. */
export type AuditScope = 'all' | { projects: readonly number[] } | { everyProjectBut: readonly number[] }

export type AuditQuery = {
  scope: AuditScope
  conditions?: readonly Condition[]
  sort?: readonly Sort[]
  page: Page
}

/** What entries and their counts can both be asked for: both tables have these columns. */
const countedFields: Fields = {
  operation: { column: Prisma.sql`operation`, type: 'text' },
  resource_type: { column: Prisma.sql`resource_type`, type: 'text' },
}
const fields: Fields = {
  ...countedFields,
  id: { column: Prisma.sql`id`, type: 'number' },
  project_id: { column: Prisma.sql`project_id`, type: 'number' },
  resource: { column: Prisma.sql`resource`, type: 'text' },
  username: { column: Prisma.sql`actor`, type: 'text' },
  op_time: { column: Prisma.sql`occurred_at`, type: 'time' },
  op_desc: { column: Prisma.sql`description`, type: 'text' },
  operation_description: { column: Prisma.sql`description`, type: 'text' },
  op_result: { column: Prisma.sql`success::text`, type: 'text' },
  operation_result: { column: Prisma.sql`success::text`, type: 'text' },
}

type Row = {
  id: bigint
  occurred_at: Date
  project_id: number | null
  operation: string
  resource_type: string
  resource: string
  actor: string
  description: string
  success: boolean
}

/**
 * A page of the audit log, newest first unless asked otherwise, and how many lines there are in all: two statements at most. By time and
 * kind, which is how the log is read, neither depends on its length: the total comes from the counts of each month, and these say in
 * which month a page begins, so that only lines of that month are passed over.
 */
export async function listAudit(
  db: Pick<Database, 'prisma'>,
  { scope, conditions = [], sort = [], page }: AuditQuery,
): Promise<{ total: number; entries: AuditEntry[] }> {
  const filters = conditionsToSql(conditions, fields)
  const counted = conditionsToSql(conditions, countedFields)
  const where = [visible(scope), ...filters]
  const timeOrder = timeOrderOf(sort)
  const order =
    timeOrder === null
      ? orderToSql(sort, fields, Prisma.empty, Prisma.sql`id desc`)
      : Prisma.sql`occurred_at ${timeOrder}, id ${timeOrder}`
  if (counted.length < filters.length) {
    const [entries, total] = await Promise.all([readPage(db, where, order, page), countEntries(db, where)])
    return { total, entries }
  }
  const months = await countMonths(db, scope, counted)
  const total = months.reduce((sum, month) => sum + month.entries, 0)
  if (timeOrder === null) return { total, entries: await readPage(db, where, order, page) }
  const span = spanOf(timeOrder === newestFirst ? months.reverse() : months, page)
  if (span === null) return { total, entries: [] }
  return { total, entries: await readSpan(db, span, where, order, page.size) }
}

const newestFirst = Prisma.sql`desc`
const oldestFirst = Prisma.sql`asc`

/** Null when the page is in another order than that of time. */
function timeOrderOf(sort: readonly Sort[]): Prisma.Sql | null {
  const [first] = sort.filter(({ field }) => fieldOf(fields, field) !== undefined)
  if (!first) return newestFirst
  if (fieldOf(fields, first.field) !== fields.op_time) return null
  return first.descending ? newestFirst : oldestFirst
}

function visible(scope: AuditScope): Prisma.Sql {
  if (scope === 'all') return Prisma.sql`true`
  // By the index of one project lines come in order; by that of several they would have to be sorted.
  if ('projects' in scope && scope.projects.length === 1) return Prisma.sql`project_id = ${scope.projects[0]}`
  if ('projects' in scope) return Prisma.sql`project_id = any(${[...scope.projects]}::int[])`
  return Prisma.sql`project_id is not null and project_id <> all(${[...scope.everyProjectBut]}::int[])`
}

type Month = { from: Date; until: Date; entries: number }

const ALL = -1
const NO_PROJECT = 0

/** Oldest first; months without a line are left out. */
async function countMonths(
  { prisma }: Pick<Database, 'prisma'>,
  scope: AuditScope,
  conditions: readonly Prisma.Sql[],
): Promise<Month[]> {
  const scopes =
    scope === 'all'
      ? [ALL]
      : 'projects' in scope
        ? [...new Set(scope.projects)]
        : [ALL, NO_PROJECT, ...new Set(scope.everyProjectBut)]
  // Of every project but some: all, less those.
  const counted =
    scope === 'all' || 'projects' in scope
      ? Prisma.sql`sum(entries)`
      : Prisma.sql`sum(case scope when ${ALL} then entries else -entries end)`
  const rows = await prisma.$queryRaw<{ from: Date; until: Date; entries: bigint }[]>`
    select month::timestamptz as from, (month + interval '1 month')::timestamptz as until, ${counted}::bigint as entries
      from events.audit_counts
     where ${Prisma.join([Prisma.sql`scope = any(${scopes}::int[])`, ...conditions], ' and ')}
     group by month having ${counted} > 0 order by month`
  return rows.map(({ entries, ...month }) => ({ ...month, entries: Number(entries) }))
}

type Span = { from: Date; until: Date; skip: number }

/** The months that hold a page, and how many lines of them come before it. Null when it is past the end. */
function spanOf(months: readonly Month[], { number, size }: Page): Span | null {
  let skip = (number - 1) * size
  for (const [at, month] of months.entries()) {
    if (skip >= month.entries) {
      skip -= month.entries
      continue
    }
    const held = [month]
    let left = skip + size - month.entries
    for (const next of months.slice(at + 1)) {
      if (left <= 0) break
      held.push(next)
      left -= next.entries
    }
    const times = held.flatMap(({ from, until }) => [from, until]).sort((a, b) => a.getTime() - b.getTime())
    return { from: times[0]!, until: times.at(-1)!, skip }
  }
  return null
}

const columns = Prisma.sql`id, occurred_at, project_id, operation, resource_type, resource, actor, description, success`

const readPage = (db: Pick<Database, 'prisma'>, where: readonly Prisma.Sql[], order: Prisma.Sql, page: Page) =>
  read(db, where, order, pageToSql(page))

/** Passing over this many lines is done in the index alone, before the lines of the page are read. */
const MANY = 200

async function readSpan(
  db: Pick<Database, 'prisma'>,
  { from, until, skip }: Span,
  where: readonly Prisma.Sql[],
  order: Prisma.Sql,
  size: number,
): Promise<AuditEntry[]> {
  const during = [Prisma.sql`occurred_at >= ${from}`, Prisma.sql`occurred_at < ${until}`]
  const limit = Prisma.sql`limit ${size} offset ${skip}`
  if (skip < MANY) return read(db, [...during, ...where], order, limit)
  const ids = Prisma.sql`
    (id, occurred_at) in (select id, occurred_at from events.audit_entries
                           where ${Prisma.join([...during, ...where], ' and ')} order by ${order} ${limit})`
  return read(db, [...during, ids], order, Prisma.empty)
}

async function read(
  { prisma }: Pick<Database, 'prisma'>,
  where: readonly Prisma.Sql[],
  order: Prisma.Sql,
  limit: Prisma.Sql,
): Promise<AuditEntry[]> {
  const rows = await prisma.$queryRaw<Row[]>`
    select ${columns} from events.audit_entries where ${Prisma.join([...where], ' and ')} order by ${order} ${limit}`
  return rows.map((row) => ({
    id: Number(row.id),
    occurredAt: row.occurred_at,
    projectId: row.project_id,
    operation: row.operation,
    resourceType: row.resource_type,
    resource: row.resource,
    actor: row.actor,
    description: row.description,
    success: row.success,
  }))
}

async function countEntries({ prisma }: Pick<Database, 'prisma'>, where: readonly Prisma.Sql[]): Promise<number> {
  const [row] = await prisma.$queryRaw<[{ total: bigint }]>`
    select count(*) as total from events.audit_entries where ${Prisma.join([...where], ' and ')}`
  return Number(row.total)
}
