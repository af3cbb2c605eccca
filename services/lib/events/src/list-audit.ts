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
import { columns, countMonths, type AuditDays, type AuditScope, type Row, type Span, type Time } from './audit-days.ts'

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

/** `days`: one for each process. */
export type AuditDeps = { readonly db: Pick<Database, 'prisma'>; readonly days: AuditDays }

/**
 * A page of the audit log, newest first unless asked otherwise, and how many lines there are in all. What is asked by time and kind is counted
 * already: first pages take the counts of months and the lines. Of few names the names know the lines. All else is found day by day and
 * remembered (`AuditDays`): two statements then, three for a time, and neither depends on the length of the log. In another order than that
 * of time, everything is sorted for each page.
 */
export async function listAudit(
  { db, days }: AuditDeps,
  { scope, conditions = [], sort = [], page }: AuditQuery,
): Promise<{ total: number; entries: AuditEntry[] }> {
  const newestFirst = timeOrderOf(sort)
  const times = newestFirst === null ? [] : conditions.filter(isDuring)
  const others = conditions.filter((condition) => !times.includes(condition as During))
  const filters = conditionsToSql(others, fields)
  const counted = conditionsToSql(others, countedFields)
  const isCounted = counted.length === filters.length
  const where = [visible(scope), ...filters]
  const offset = (page.number - 1) * page.size
  if (newestFirst === null) {
    const order = orderToSql(sort, fields, Prisma.empty, Prisma.sql`id desc`)
    if (!isCounted) return readFound(db, where, order, page)
    const total = sum(await countMonths(db, { scope, counted }))
    return { total, entries: await readSorted(db, where, order, page) }
  }
  if (isCounted && times.length === 0 && offset < MANY) {
    const months = await countMonths(db, { scope, counted })
    return readPlace(db, months, { where, newestFirst, page })
  }
  const naming = others.find(isNaming)
  if (naming) {
    const named = { naming, alone: scope === 'all' && filters.length + times.length === 1 }
    const during = conditionsToSql(times, fields)
    const found = await readNamed(db, { where: [...where, ...during], newestFirst, page, ...named })
    if (found) return found
  }
  const filter = { scope, counted, where, isCounted }
  const during = between(times)
  const { total, rows } = await days.page(db, filter, { during, offset, size: page.size, newestFirst })
  return { total, entries: rows.map(toEntry) }
}

/** Passing over this many lines costs little. */
const MANY = 200

const sum = (spans: readonly Span[]) => spans.reduce((all, { entries }) => all + entries, 0)

const byTime = ({ newestFirst }: { newestFirst: boolean }) =>
  newestFirst ? Prisma.sql`occurred_at desc, id desc` : Prisma.sql`occurred_at asc, id asc`

/** Whether the newest come first; null when the page is in another order than that of time. */
function timeOrderOf(sort: readonly Sort[]): boolean | null {
  const [first] = sort.filter(({ field }) => fieldOf(fields, field) !== undefined)
  if (!first) return true
  return fieldOf(fields, first.field) === fields.op_time ? first.descending : null
}

function visible(scope: AuditScope): Prisma.Sql {
  if (scope === 'all') return Prisma.sql`true`
  // By the index of one project lines come in order; by that of several they would have to be sorted.
  if ('projects' in scope && scope.projects.length === 1) return Prisma.sql`project_id = ${scope.projects[0]}`
  if ('projects' in scope) return Prisma.sql`project_id = any(${[...scope.projects]}::int[])`
  return Prisma.sql`project_id is not null and project_id <> all(${[...scope.everyProjectBut]}::int[])`
}

type Place = Span & { skip: number }

/** The spans that hold a page as one, and how many of its lines come before the page. Null when the page is past the end. */
function placeOf(spans: readonly Span[], offset: number, size: number, newestFirst: boolean): Place | null {
  let skip = offset
  const held: Span[] = []
  let entries = 0
  for (const span of newestFirst ? spans.toReversed() : spans) {
    if (held.length === 0 && skip >= span.entries) {
      skip -= span.entries
      continue
    }
    held.push(span)
    entries += span.entries
    if (entries >= skip + size) break
  }
  const [one, other] = [held[0], held.at(-1)]
  if (!one || !other) return null
  const [first, last] = newestFirst ? [other, one] : [one, other]
  return { from: first.from, until: last.until, entries, skip }
}

type Asked = { where: readonly Prisma.Sql[]; newestFirst: boolean; page: Page }

const kinds = new Map([
  [fields.username, 'actor'],
  [fields.resource, 'resource'],
])
const kindOf = ({ field }: Condition) => kinds.get(fieldOf(fields, field))
const isNaming = (condition: Condition) => condition.match !== 'all' && kindOf(condition) !== undefined

/** So many names at most, of so many lines together, are read name by name. */
const FEW_NAMES = 20
const FEW_LINES = 5_000

/**
 * Lines of whom or what a condition names; null where there are many.
 * @param alone nothing else is asked, so that the names know how many lines there are.
 */
async function readNamed(
  db: Pick<Database, 'prisma'>,
  { naming, where, newestFirst, page, alone }: Asked & { naming: Condition; alone: boolean },
): Promise<{ total: number; entries: AuditEntry[] } | null> {
  const kind = kindOf(naming)!
  const nameField = { name: { column: Prisma.sql`name`, type: 'text' } } as const
  const isNamed = Prisma.join(conditionsToSql([{ ...naming, field: 'name' }], nameField), ' and ')
  const someOf = (table: Prisma.Sql) => Prisma.sql`
    (select name from ${table} where kind = ${kind} and ${isNamed} group by name limit ${FEW_NAMES + 1})`
  const linesOf = (table: Prisma.Sql) => Prisma.sql`
    select name, month, entries from ${table} where kind = ${kind} and name = any(array(select name from chosen))`
  const tables = [Prisma.sql`events.audit_names`, Prisma.sql`events.audit_name_deltas`]
  const rows = await db.prisma.$queryRaw<
    { from: Date; until: Date; entries: bigint; names: string[]; matching: bigint }[]
  >`
    with chosen as materialized (${Prisma.join(tables.map(someOf), ' union ')})
    select month::timestamptz as from, (month + interval '1 month')::timestamptz as until, sum(entries)::bigint as entries,
           array_agg(distinct name) as names, matching
      from (select count(*) as matching from chosen) counted left join (${Prisma.join(tables.map(linesOf), ' union all ')}) named on true
     group by matching, month having sum(entries) > 0 or month is null order by month`
  if (rows.some(({ matching }) => matching > FEW_NAMES)) return null
  const months = rows.filter(({ from }) => from !== null).map((month) => ({ ...month, entries: Number(month.entries) }))
  const names = new Set(months.flatMap((month) => month.names))
  if (sum(months) > FEW_LINES) return null
  const among = { column: Prisma.raw(kind), names: [...names] }
  if (alone) return readPlace(db, months, { where, newestFirst, page }, among)
  const [first, last] = [months[0], months.at(-1)]
  if (!first || !last) return { total: 0, entries: [] }
  const [counted] = await db.prisma.$queryRaw<[{ entries: bigint }]>`
    select count(*) as entries from events.audit_entries
     where ${among.column} = any(${among.names}) and ${Prisma.join([...where], ' and ')}`
  const all = { from: first.from, until: last.until, entries: Number(counted.entries) }
  return readPlace(db, [all], { where, newestFirst, page }, among)
}

type During = Extract<Condition, { match: 'range' }> & { min?: Date; max?: Date }
const isTime = (value: unknown) => value === undefined || value instanceof Date
const isDuring = (condition: Condition): condition is During =>
  condition.match === 'range' &&
  fieldOf(fields, condition.field) === fields.op_time &&
  isTime(condition.min) &&
  isTime(condition.max)

/** All of the times as one. */
function between(times: readonly During[]): Time {
  const [froms, untils] = [[] as number[], [] as number[]]
  for (const { min, max, exclusive } of times) {
    // Times are kept to the millisecond.
    if (min) froms.push(min.getTime() + (exclusive ? 1 : 0))
    if (max) untils.push(max.getTime() + (exclusive ? 0 : 1))
  }
  return {
    ...(froms.length > 0 && { from: new Date(Math.max(...froms)) }),
    ...(untils.length > 0 && { until: new Date(Math.min(...untils)) }),
  }
}

/** The page of lines that lie in these spans, and how many there are. */
async function readPlace(
  db: Pick<Database, 'prisma'>,
  spans: readonly Span[],
  { where, newestFirst, page }: Asked,
  among?: Names,
): Promise<{ total: number; entries: AuditEntry[] }> {
  const total = sum(spans)
  const place = placeOf(spans, (page.number - 1) * page.size, page.size, newestFirst)
  return { total, entries: place ? await readSpan(db, place, where, newestFirst, page.size, among) : [] }
}

const within = (from: Date, until: Date) => [Prisma.sql`occurred_at >= ${from}`, Prisma.sql`occurred_at < ${until}`]

/** Those whose lines are read, name by name: the planner would not know that they come in order. */
type Names = { column: Prisma.Sql; names: readonly string[] }

/** From whichever end of the place is nearer. */
async function readSpan(
  db: Pick<Database, 'prisma'>,
  { from, until, entries, skip }: Place,
  where: readonly Prisma.Sql[],
  newestFirst: boolean,
  size: number,
  among?: Names,
): Promise<AuditEntry[]> {
  const during = within(from, until)
  const order = byTime({ newestFirst })
  if (skip < MANY && !among) return read(db, [...during, ...where], order, Prisma.sql`limit ${size} offset ${skip}`)
  const end = Math.min(skip + size, entries)
  const nearer = skip <= entries - end
  const [take, offset] = nearer ? [size, skip] : [end - skip, entries - end]
  const way = nearer ? order : byTime({ newestFirst: !newestFirst })
  const all = Prisma.join([...during, ...where], ' and ')
  const ids = among
    ? Prisma.sql`
        select id, occurred_at from unnest(${[...among.names]}::text[]) as named (one) cross join lateral (
          select id, occurred_at from events.audit_entries where ${among.column} = one and ${all} order by ${way} limit ${offset + take}) lines
         order by ${way} limit ${take} offset ${offset}`
    : Prisma.sql`select id, occurred_at from events.audit_entries where ${all} order by ${way} limit ${take} offset ${offset}`
  return read(db, [...during, Prisma.sql`(id, occurred_at) in (${ids})`], order, Prisma.empty)
}

/** Far inside, the page's ids are found in an index and sorted without their lines. */
function readSorted(db: Pick<Database, 'prisma'>, where: readonly Prisma.Sql[], order: Prisma.Sql, page: Page) {
  if ((page.number - 1) * page.size < MANY) return read(db, where, order, pageToSql(page))
  const ids = Prisma.sql`
    select id, occurred_at from events.audit_entries where ${Prisma.join([...where], ' and ')} order by ${order} ${pageToSql(page)}`
  return read(db, [Prisma.sql`(id, occurred_at) in (${ids})`], order, Prisma.empty)
}

/** The planner would rather walk through the whole log in its order than believe that few lines are found. */
async function readFound(
  { prisma }: Pick<Database, 'prisma'>,
  where: readonly Prisma.Sql[],
  order: Prisma.Sql,
  page: Page,
): Promise<{ total: number; entries: AuditEntry[] }> {
  const rows = await prisma.$queryRaw<(Row & { total: bigint })[]>`
    with found as materialized (select ${columns} from events.audit_entries where ${Prisma.join([...where], ' and ')})
    select ${columns}, total from (select count(*) as total from found) counted
      left join (select * from found order by ${order} ${pageToSql(page)}) page on true order by ${order}`
  return { total: Number(rows[0]!.total), entries: rows.filter((row) => row.id !== null).map(toEntry) }
}

async function read(
  { prisma }: Pick<Database, 'prisma'>,
  where: readonly Prisma.Sql[],
  order: Prisma.Sql,
  limit: Prisma.Sql,
): Promise<AuditEntry[]> {
  const rows = await prisma.$queryRaw<Row[]>`
    select ${columns} from events.audit_entries where ${Prisma.join([...where], ' and ')} order by ${order} ${limit}`
  return rows.map(toEntry)
}

const toEntry = (row: Row): AuditEntry => ({
  id: Number(row.id),
  occurredAt: row.occurred_at,
  projectId: row.project_id,
  operation: row.operation,
  resourceType: row.resource_type,
  resource: row.resource,
  actor: row.actor,
  description: row.description,
  success: row.success,
})
