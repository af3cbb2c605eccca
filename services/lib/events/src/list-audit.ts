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
 * A page of the audit log, newest first unless asked otherwise, and how many lines there are in all: three statements at most. By time and
 * kind, which is how the log is read, none depends on its length: the total comes from the counts of each month, and these say in which
 * month a page begins and those of its days on which day, so that only lines of that day are passed over. A name, or part of one, is looked
 * for among the names, which know their lines in each month. By anything else, what is found is found once, to be counted and shown.
 */
export async function listAudit(
  db: Pick<Database, 'prisma'>,
  { scope, conditions = [], sort = [], page }: AuditQuery,
): Promise<{ total: number; entries: AuditEntry[] }> {
  const filters = conditionsToSql(conditions, fields)
  const counted = conditionsToSql(conditions, countedFields)
  const where = [visible(scope), ...filters]
  const newestFirst = timeOrderOf(sort)
  const order =
    newestFirst === null ? orderToSql(sort, fields, Prisma.empty, Prisma.sql`id desc`) : byTime({ newestFirst })
  if (counted.length < filters.length) {
    if (newestFirst === null) return readFound(db, where, order, page)
    const naming = conditions.find(isNaming)
    const asked = { scope, where, newestFirst, page }
    if (naming) return readNamed(db, { ...asked, naming, alone: scope === 'all' && filters.length === 1 })
    const during = conditions.find(isDuring)
    if (during && counted.length === filters.length - 1) return readDuring(db, { ...asked, counted, during })
    return readFound(db, where, order, page)
  }
  const months = await countSpans(db, scope, counted, 'month')
  const total = months.reduce((sum, month) => sum + month.entries, 0)
  if (newestFirst === null) return { total, entries: await read(db, where, order, pageToSql(page)) }
  const inMonths = placeOf(months, (page.number - 1) * page.size, page.size, newestFirst)
  if (inMonths === null) return { total, entries: [] }
  const { from, until, skip } = inMonths
  if (skip < MANY) return { total, entries: await readSpan(db, inMonths, where, newestFirst, page.size) }
  const days = await countSpans(db, scope, counted, 'day', { from, until })
  const inDays = placeOf(days, skip, page.size, newestFirst)
  return { total, entries: await readSpan(db, inDays ?? inMonths, where, newestFirst, page.size) }
}

/** Passing over this many lines is done in the index alone, before the lines of the page are read. */
const MANY = 200

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

/** From when until when there are how many lines. */
type Span = { from: Date; until: Date; entries: number }

const ALL = -1
const NO_PROJECT = 0

/** Oldest first; those without a line are left out. */
async function countSpans(
  { prisma }: Pick<Database, 'prisma'>,
  scope: AuditScope,
  conditions: readonly Prisma.Sql[],
  each: 'month' | 'day',
  during?: { from: Date; until: Date },
): Promise<Span[]> {
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
  const column = Prisma.raw(each)
  const counts = each === 'month' ? Prisma.sql`events.audit_counts` : Prisma.sql`events.audit_day_counts`
  const where = [
    Prisma.sql`scope = any(${scopes}::int[])`,
    ...(during
      ? [
          Prisma.sql`${column} >= (${during.from} at time zone 'UTC')::date and ${column} < (${during.until} at time zone 'UTC')::date`,
        ]
      : []),
    ...conditions,
  ]
  const rows = await prisma.$queryRaw<{ from: Date; until: Date; entries: bigint }[]>`
    select ${column}::timestamptz as from, (${column} + ${`1 ${each}`}::interval)::timestamptz as until, ${counted}::bigint as entries
      from ${counts} where ${Prisma.join(where, ' and ')}
     group by ${column} having ${counted} > 0 order by ${column}`
  return rows.map(({ entries, ...span }) => ({ ...span, entries: Number(entries) }))
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

type Asked = { scope: AuditScope; where: readonly Prisma.Sql[]; newestFirst: boolean; page: Page }

const kinds = new Map([
  [fields.username, 'actor'],
  [fields.resource, 'resource'],
])
const kindOf = ({ field }: Condition) => kinds.get(fieldOf(fields, field))
const isNaming = (condition: Condition) => condition.match !== 'all' && kindOf(condition) !== undefined

/** The lines of so many names are read name by name; of more, there are many among all lines. */
const FEW_NAMES = 20

/**
 * Lines of whom or what a condition names.
 * @param alone nothing else is asked, so that the names know how many lines there are.
 */
async function readNamed(
  db: Pick<Database, 'prisma'>,
  { naming, where, newestFirst, page, alone }: Asked & { naming: Condition; alone: boolean },
): Promise<{ total: number; entries: AuditEntry[] }> {
  const kind = kindOf(naming)!
  const nameField = { name: { column: Prisma.sql`name`, type: 'text' } } as const
  const isNamed = Prisma.join(conditionsToSql([{ ...naming, field: 'name' }], nameField), ' and ')
  const rows = await db.prisma.$queryRaw<{ from: Date; until: Date; entries: bigint; names: string[] | null }[]>`
    select month::timestamptz as from, (month + interval '1 month')::timestamptz as until, sum(entries)::bigint as entries,
           case when count(distinct name) <= ${FEW_NAMES} then array_agg(distinct name) end as names
      from (select name, month, entries from events.audit_names where kind = ${kind} and ${isNamed}
             union all
            select name, month, entries from events.audit_name_deltas where kind = ${kind} and ${isNamed}) named
     group by month having sum(entries) > 0 order by month`
  const months = rows.map((month) => ({ ...month, entries: Number(month.entries) }))
  const names = new Set(months.flatMap((month) => month.names ?? []))
  const few = names.size <= FEW_NAMES && months.every((month) => month.names !== null)
  const among = few ? { column: Prisma.raw(kind), names: [...names] } : undefined
  if (alone) return readPlace(db, months, { where, newestFirst, page }, among)
  if (!among) return readFound(db, where, byTime({ newestFirst }), page)
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

const DAY_MS = 86_400_000
const [BEFORE_ALL, AFTER_ALL] = [new Date(0), new Date('9999-12-31')]

/** Lines of a time: whole days are counted already, so that only what lies in parts of days is counted now. */
async function readDuring(
  db: Pick<Database, 'prisma'>,
  { scope, counted, during, ...asked }: Asked & { counted: readonly Prisma.Sql[]; during: During },
): Promise<{ total: number; entries: AuditEntry[] }> {
  const { min = BEFORE_ALL, max = AFTER_ALL } = during
  const [firstDay, lastDay] = [
    new Date(Math.ceil(min.getTime() / DAY_MS) * DAY_MS),
    new Date(Math.floor(max.getTime() / DAY_MS) * DAY_MS),
  ]
  const end = new Date(max.getTime() + 1) // times are kept to the millisecond
  const parts =
    firstDay > lastDay
      ? [{ from: min, until: end }]
      : [
          { from: min, until: firstDay },
          { from: lastDay, until: end },
        ]
  const count = ({ from, until }: { from: Date; until: Date }) => Prisma.sql`(
    select count(*) from events.audit_entries where ${Prisma.join([...within(from, until), ...asked.where], ' and ')})`
  const [[{ entries }], days] = await Promise.all([
    db.prisma.$queryRaw<[{ entries: bigint[] }]>`select array[${Prisma.join(parts.map(count))}] as entries`,
    firstDay < lastDay ? countSpans(db, scope, counted, 'day', { from: firstDay, until: lastDay }) : [],
  ])
  const [first, ...last] = parts.map((part, n) => ({ ...part, entries: Number(entries[n]) }))
  return readPlace(db, [first!, ...days, ...last], asked)
}

/** The page of lines that lie in these spans, and how many there are. */
async function readPlace(
  db: Pick<Database, 'prisma'>,
  spans: readonly Span[],
  { where, newestFirst, page }: Omit<Asked, 'scope'>,
  among?: Names,
): Promise<{ total: number; entries: AuditEntry[] }> {
  const total = spans.reduce((sum, { entries }) => sum + entries, 0)
  const place = placeOf(spans, (page.number - 1) * page.size, page.size, newestFirst)
  return { total, entries: place ? await readSpan(db, place, where, newestFirst, page.size, among) : [] }
}

const columns = Prisma.sql`id, occurred_at, project_id, operation, resource_type, resource, actor, description, success`

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
