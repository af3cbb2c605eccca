import { keyOfList, Prisma, TwoGenerations, type Database } from '@haven/db'

/** Whose lines are seen: all, those of some projects, or those of every project but some. */
export type AuditScope = 'all' | { projects: readonly number[] } | { everyProjectBut: readonly number[] }

/** From when until when there are how many lines. */
export type Span = { readonly from: Date; readonly until: Date; readonly entries: number }

/** Lines that are asked for, but for when they happened. */
type Filter = {
  readonly scope: AuditScope
  /** What counts know of it, on their columns. */
  readonly counted: readonly Prisma.Sql[]
  /** All of it, on the lines. */
  readonly where: readonly Prisma.Sql[]
  /** Counts know all of it. */
  readonly isCounted: boolean
}

/** From the one on, before the other. */
export type Time = { readonly from?: Date; readonly until?: Date }
const [BEFORE_ALL, AFTER_ALL] = [new Date(0), new Date('9999-12-31')]

/** Every so-manieth line of a day from its first, as time in ms and id. */
type Marks = { readonly each: number; readonly entries: number; readonly keys: Float64Array }

/** `lines`: those that counts know of. */
type Day = {
  readonly from: Date
  readonly until: Date
  readonly version: string
  readonly lines: number
  readonly marks: Marks | null
}
type Month = { readonly version: string; readonly days: readonly Day[] }

/** So many lines at most are passed over without marks, and lie between two of them. */
const EACH = 64
/** Where few lines of a day are found, so many others at most lie between two marks. */
const BETWEEN = 2_000
const BATCH = 250_000
const MAX_BYTES = 8 * 1024 * 1024
const MAX_MONTHS = 10_000
const DAY_BYTES = 200

/** What a `Row` is made of. */
export const columns = Prisma.sql`id, occurred_at, project_id, operation, resource_type, resource, actor, description, success`

/** A line as Postgres says it. */
export type Row = {
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

const ALL = -1
const NO_PROJECT = 0

/** What counts say of a scope: which of them to look at, and how to add them. */
function countsOf(scope: AuditScope): { scopes: number[]; entries: Prisma.Sql } {
  if (scope === 'all') return { scopes: [ALL], entries: Prisma.sql`sum(entries)` }
  if ('projects' in scope) return { scopes: [...new Set(scope.projects)], entries: Prisma.sql`sum(entries)` }
  // Of every project but some: all, less those.
  return {
    scopes: [ALL, NO_PROJECT, ...new Set(scope.everyProjectBut)],
    entries: Prisma.sql`sum(case scope when ${ALL} then entries else -entries end)`,
  }
}

// Who changes a line changes its counts, and with them the transaction that wrote them last.
const version = Prisma.sql`md5(string_agg(xmin::text, ' ' order by scope, operation, resource_type))`

/** The months of the log that have a line, oldest first; what they were when is only told to who asks for it. */
export async function countMonths(
  { prisma }: Pick<Database, 'prisma'>,
  { scope, counted }: Pick<Filter, 'scope' | 'counted'>,
  versioned = Prisma.sql`''`,
): Promise<(Span & { version: string })[]> {
  const { scopes, entries } = countsOf(scope)
  const rows = await prisma.$queryRaw<{ from: Date; until: Date; entries: bigint; version: string }[]>`
    select month::timestamptz as from, (month + interval '1 month')::timestamptz as until, ${entries}::bigint as entries,
           ${versioned} as version
      from events.audit_counts where ${Prisma.join([Prisma.sql`scope = any(${scopes}::int[])`, ...counted], ' and ')}
     group by month having ${entries} > 0 order by month`
  return rows.map((row) => ({ ...row, entries: Number(row.entries) }))
}

/** From the first of some months to the last. */
async function countDays(
  { prisma }: Pick<Database, 'prisma'>,
  { scope, counted }: Filter,
  months: readonly Span[],
): Promise<Day[]> {
  const { scopes, entries } = countsOf(scope)
  const [first, last] = [months[0]!, months.at(-1)!]
  const where = [
    Prisma.sql`scope = any(${scopes}::int[])`,
    Prisma.sql`day >= (${first.from} at time zone 'UTC')::date and day < (${last.until} at time zone 'UTC')::date`,
    ...counted,
  ]
  const rows = await prisma.$queryRaw<{ from: Date; until: Date; lines: bigint; version: string }[]>`
    select day::timestamptz as from, (day + interval '1 day')::timestamptz as until, ${entries}::bigint as lines,
           ${version} as version
      from events.audit_day_counts where ${Prisma.join(where, ' and ')}
     group by day having ${entries} > 0 order by day`
  return rows.map((row) => ({ ...row, lines: Number(row.lines), marks: null }))
}

async function markDays({ prisma }: Pick<Database, 'prisma'>, filter: Filter, days: readonly Day[]): Promise<Marks[]> {
  const times = (of: readonly Date[]) => of.map((time) => time.toISOString())
  const rows = await prisma.$queryRaw<{ n: bigint; each: number; entries: bigint; at: Date; id: bigint }[]>`
    select d.n, m.each::int as each, m.entries, m.at, m.id
      from unnest(${times(days.map(({ from }) => from))}::text[]::timestamptz[],
                  ${times(days.map(({ until }) => until))}::text[]::timestamptz[],
                  ${days.map(({ lines }) => lines)}::int8[]) with ordinality d (since, until, lines, n)
     cross join lateral (
       select *, greatest(1, least(${EACH}, entries * ${BETWEEN} / d.lines)) as each from (
         select occurred_at as at, id, count(*) over () as entries, row_number() over (order by occurred_at, id) - 1 as place
           from events.audit_entries where occurred_at >= d.since and occurred_at < d.until
            and ${Prisma.join([...filter.where], ' and ')}) found) m
     where place % each = 0 order by d.n, m.at, m.id`
  const byDay = Map.groupBy(rows, ({ n }) => Number(n) - 1)
  return days.map((_, n) => {
    const marks = byDay.get(n) ?? []
    const keys = new Float64Array(2 * marks.length)
    for (const [i, { at, id }] of marks.entries()) keys.set([at.getTime(), Number(id)], 2 * i)
    return { each: marks[0]?.each ?? 1, entries: Number(marks[0]?.entries ?? 0), keys }
  })
}

/**
 * Where in the log the lines of a filter are, day by day: remembered of each day until a line of that day changes, so that a page is
 * read from a line that is close before it, wherever it lies and whatever is asked for. Of what no counts know, each line is looked at once; after a
 * change those of that day are.
 */
export class AuditDays {
  readonly #months = new TwoGenerations<Month>(
    MAX_MONTHS,
    MAX_BYTES,
    (key, { days }) =>
      2 * key.length + days.reduce((sum, { marks }) => sum + DAY_BYTES + (marks?.keys.byteLength ?? 0), 0),
    'audit',
  )

  /** How many lines of a filter there are in a time, and those of a page. */
  async page(
    db: Pick<Database, 'prisma'>,
    filter: Filter,
    { during, offset, size, newestFirst }: { during: Time; offset: number; size: number; newestFirst: boolean },
  ): Promise<{ total: number; rows: Row[] }> {
    const days = await this.#daysOf(db, filter, during)
    if (!filter.isCounted) await days.mark(days.all)
    const [first, end] = await days.placesOf(during)
    const total = Math.max(0, end - first)
    const count = Math.min(size, total - offset)
    if (count <= 0) return { total, rows: [] }
    const rows = await days.read(newestFirst ? end - offset - count : first + offset, count)
    return { total, rows: newestFirst ? rows.reverse() : rows }
  }

  async #daysOf(db: Pick<Database, 'prisma'>, filter: Filter, during: Time): Promise<DaysOfFilter> {
    const months = await countMonths(db, filter, version)
    const name = keyOfList(Prisma.join([...filter.where], ' and '))
    const keyOf = (month: Span) => `${month.from.getTime()} ${name}`
    const known = new Map(months.map((month) => [month, this.#months.get(keyOf(month))]))
    const stale = months.filter((month) => known.get(month)?.version !== month.version)
    const counted = stale.length > 0 ? await countDays(db, filter, stale) : []
    const isOf = (month: Span) => (day: Day) => day.from >= month.from && day.from < month.until
    for (const month of stale) {
      const keyOfDay = (day: Day) => `${day.from.getTime()} ${day.version}`
      const before = new Map(known.get(month)?.days.map((day) => [keyOfDay(day), day.marks]))
      const days = counted.filter(isOf(month)).map((day) => ({ ...day, marks: before.get(keyOfDay(day)) ?? null }))
      known.set(month, { version: month.version, days })
      this.#months.set(keyOf(month), { version: month.version, days })
    }
    const marked = (day: Day, marks: Marks) => {
      const month = months.find((each) => isOf(each)(day))!
      const days = known.get(month)!.days.map((each) => (each.from === day.from ? { ...each, marks } : each))
      known.set(month, { version: month.version, days })
      this.#months.set(keyOf(month), { version: month.version, days })
    }
    const { from = BEFORE_ALL, until = AFTER_ALL } = during
    const all = months.flatMap((month) => known.get(month)!.days).filter((day) => day.until > from && day.from < until)
    return new DaysOfFilter(db, filter, all, marked)
  }
}

/** Days that have a line of a filter, oldest first, as one request sees them. A place is how many lines of them come before. */
class DaysOfFilter {
  readonly #db: Pick<Database, 'prisma'>
  readonly #filter: Filter
  readonly #marked: (day: Day, marks: Marks) => void
  #days: Day[]

  constructor(db: Pick<Database, 'prisma'>, filter: Filter, days: Day[], marked: (day: Day, marks: Marks) => void) {
    this.#db = db
    this.#filter = filter
    this.#days = days
    this.#marked = marked
  }

  get all(): readonly Day[] {
    return this.#days
  }

  /** Looks where the lines of these days are, as far as that is not known. */
  async mark(days: readonly Day[]): Promise<void> {
    const unmarked = days.filter(({ marks }) => marks === null)
    const marksOf = new Map<Day, Marks>()
    for (const some of batchesOf(unmarked)) {
      const found = await markDays(this.#db, this.#filter, some)
      for (const [n, day] of some.entries()) {
        marksOf.set(day, found[n]!)
        this.#marked(day, found[n]!)
      }
    }
    if (marksOf.size > 0) this.#days = this.#days.map((day) => ({ ...day, marks: marksOf.get(day) ?? day.marks }))
  }

  #entriesOf = ({ lines, marks }: Day) => (this.#filter.isCounted ? lines : marks!.entries)

  #before = (n: number) => this.#days.slice(0, n).reduce((sum, day) => sum + this.#entriesOf(day), 0)

  /** Which day the line of a place lies on, and how many lines come before that day. */
  #dayAt(place: number): { n: number; before: number } {
    let before = 0
    for (const [n, day] of this.#days.entries()) {
      const entries = this.#entriesOf(day)
      if (place < before + entries) return { n, before }
      before += entries
    }
    throw new RangeError(`there is no line ${place} of ${before}`)
  }

  /** The places of the first line of a time and of the first after it: the lines of parts of days are counted. */
  async placesOf({ from, until }: Time): Promise<[first: number, end: number]> {
    const partly = (time: Date | undefined) =>
      this.#days.findIndex((day) => time && day.from < time && time < day.until)
    const bounds = [
      { time: from, n: partly(from), otherwise: 0 },
      { time: until, n: partly(until), otherwise: this.#days.length },
    ]
    const inParts = bounds.flatMap(({ n }) => this.#days[n] ?? [])
    await this.mark(inParts.filter((day) => this.#entriesOf(day) > EACH))
    const parts = bounds.flatMap((bound) => {
      const { time, n } = bound
      const day = this.#days[n]
      if (!day || !time) return []
      const { start, skipped } = startOf(day, ({ keys }) => lastBefore(keys, time))
      const where = [...start, Prisma.sql`occurred_at < ${time}`, ...this.#filter.where]
      const count = Prisma.sql`(select count(*) from events.audit_entries where ${Prisma.join(where, ' and ')})`
      return [{ bound, skipped, count }]
    })
    const [counted] =
      parts.length === 0
        ? []
        : await this.#db.prisma.$queryRaw<[{ counts: bigint[] }]>`
            select array[${Prisma.join(parts.map(({ count }) => count))}] as counts`
    const [first, end] = bounds.map((bound) => {
      const part = parts.findIndex((each) => each.bound === bound)
      if (part === -1) return this.#before(bound.otherwise)
      const lines = parts[part]!.skipped + Number(counted!.counts[part])
      // Lines that came since the day was counted are for the next to see.
      return this.#before(bound.n) + Math.min(lines, this.#entriesOf(this.#days[bound.n]!))
    })
    return [first!, end!]
  }

  /** So many lines from a place on, oldest first. There must be as many. */
  async read(place: number, count: number): Promise<Row[]> {
    const { n, before } = this.#dayAt(place)
    const skip = place - before
    if (skip > EACH) await this.mark([this.#days[n]!])
    const { start, skipped } = startOf(this.#days[n]!, ({ keys, each }) =>
      Math.min(Math.floor(skip / each), keys.length / 2 - 1),
    )
    const where = [...start, this.#untilPlace(place + count), ...this.#filter.where]
    return this.#db.prisma.$queryRaw<Row[]>`
      select ${columns} from events.audit_entries where ${Prisma.join(where, ' and ')}
       order by occurred_at, id limit ${count} offset ${skip - skipped}`
  }

  /** All lines before a place are before this. */
  #untilPlace(place: number): Prisma.Sql {
    const { n, before } = this.#dayAt(place - 1)
    const { marks, until } = this.#days[n]!
    const next = marks && marks.keys[2 * Math.ceil((place - before) / marks.each)]
    return next ? Prisma.sql`occurred_at <= ${new Date(next)}` : Prisma.sql`occurred_at < ${until}`
  }
}

/** Days of so many lines together that looking at them takes a part of the time that a statement may take. */
function batchesOf(days: readonly Day[]): Day[][] {
  const batches: Day[][] = []
  let lines = Infinity
  for (const day of days) {
    if (lines + day.lines > BATCH) {
      batches.push([])
      lines = 0
    }
    batches.at(-1)!.push(day)
    lines += day.lines
  }
  return batches
}

/** From a mark of a day on, or from its beginning; and how many lines of it come before. */
function startOf({ from, marks }: Day, choose: (marks: Marks) => number): { start: Prisma.Sql[]; skipped: number } {
  const mark = marks ? choose(marks) : -1
  if (!marks || mark < 0) return { start: [Prisma.sql`occurred_at >= ${from}`], skipped: 0 }
  const [at, id] = [new Date(marks.keys[2 * mark]!), BigInt(marks.keys[2 * mark + 1]!)]
  // The second says all; the first tells in which partition to look.
  return {
    start: [Prisma.sql`occurred_at >= ${at}`, Prisma.sql`(occurred_at, id) >= (${at}, ${id})`],
    skipped: mark * marks.each,
  }
}

/** Which mark is the last before a time; -1: none. */
function lastBefore(keys: Float64Array, time: Date): number {
  let [low, high] = [0, keys.length / 2]
  while (low < high) {
    const middle = (low + high) >> 1
    if (keys[2 * middle]! < time.getTime()) low = middle + 1
    else high = middle
  }
  return low - 1
}
