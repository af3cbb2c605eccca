import { Prisma } from './gen/prisma/client.ts'
import { problems } from '@haven/errors'

export type Scalar = string | number | Date

/** One term of a list query, by the API's name of the field. What a field does not have is ignored. */
export type Condition = { field: string } & (
  | { match: 'exact'; value: string }
  | { match: 'contains'; value: string }
  | { match: 'range'; min?: Scalar; max?: Scalar; exclusive?: boolean }
  | { match: 'in'; values: Scalar[] }
  | { match: 'all'; values: Scalar[] }
)

export type Sort = { field: string; descending: boolean }

/** `pageSize` 0: everything. Pages count from 1. */
export type Page = { number: number; size: number }

export type Field = { column: Prisma.Sql; type: 'text' | 'number' | 'time' }
/** The only columns a query may reach (threats.md R4). */
export type Fields = Readonly<Record<string, Field>>

/** The field of this name; `snake_case` or `CamelCase`, as Harbor's query language takes both. */
export const fieldOf = (fields: Fields, name: string): Field | undefined => {
  const snake = name.replaceAll(/(?<=[a-z0-9])(?=[A-Z])/g, '_').toLowerCase()
  return Object.hasOwn(fields, snake) ? fields[snake] : undefined
}

/** @throws badRequest for a value that the field cannot have. */
export function conditionsToSql(conditions: readonly Condition[], fields: Fields): Prisma.Sql[] {
  return conditions.flatMap((condition) => {
    const field = fieldOf(fields, condition.field)
    return field ? [toSql(condition, field)] : []
  })
}

function toSql(condition: Condition, field: Field): Prisma.Sql {
  const { column } = field
  const value = (given: Scalar) => typed(field, condition.field, given)
  switch (condition.match) {
    case 'exact':
      return Prisma.sql`${column} = ${value(condition.value)}`
    case 'contains':
      return Prisma.sql`${column}::text ilike ${`%${escapeLike(condition.value)}%`}`
    case 'range': {
      const lower = condition.exclusive ? Prisma.sql`>` : Prisma.sql`>=`
      const upper = condition.exclusive ? Prisma.sql`<` : Prisma.sql`<=`
      return Prisma.join(
        [
          ...(condition.min === undefined ? [] : [Prisma.sql`${column} ${lower} ${value(condition.min)}`]),
          ...(condition.max === undefined ? [] : [Prisma.sql`${column} ${upper} ${value(condition.max)}`]),
          Prisma.sql`true`,
        ],
        ' and ',
      )
    }
    case 'in':
      return condition.values.length === 0
        ? Prisma.sql`false`
        : Prisma.sql`${column} in (${Prisma.join(condition.values.map(value))})`
    case 'all':
      return Prisma.sql`true` // only for fields that hold several values, which have functions of their own
  }
}

const INT8_MAX = 2n ** 63n - 1n

function typed({ type }: Field, name: string, value: Scalar): Scalar | bigint {
  if (type === 'text') return String(value)
  if (type === 'number') {
    const text = String(value)
    if (/^-?\d{1,19}$/.test(text) && BigInt(text) <= INT8_MAX && BigInt(text) >= -INT8_MAX) return BigInt(text)
  } else {
    const time =
      value instanceof Date ? value : new Date(/[zZ]|[+-]\d\d:\d\d$/.test(String(value)) ? value : `${value}Z`)
    if (!Number.isNaN(time.getTime())) return time
  }
  throw problems.badRequest({ message: `invalid value of ${name}: ${String(value)}` })
}

/** `%`, `_` and `\` mean themselves. */
export const escapeLike = (text: string): string => text.replaceAll(/[%_\\]/g, String.raw`\$&`)

/** What a list is ordered by, first to last. */
export type Order = readonly { column: Prisma.Sql; descending: boolean }[]

/**
 * The order asked for as far as the fields exist, then `unique`, so that pages do not overlap: in the direction of what comes before it,
 * for one index then serves both directions.
 */
export function orderOf(sorts: readonly Sort[], fields: Fields, fallback: Order, unique: Prisma.Sql): Order {
  const known = sorts.flatMap(({ field, descending }) => {
    const found = fieldOf(fields, field)
    return found ? [{ column: found.column, descending }] : []
  })
  const order = known.length === 0 ? fallback : known
  return [...order, { column: unique, descending: order.at(-1)?.descending ?? false }]
}

const toOrderSql = (order: Order) =>
  Prisma.join(
    order.map(({ column, descending }) => Prisma.sql`${column} ${descending ? Prisma.sql`desc` : Prisma.sql`asc`}`),
  )

/** The order asked for as far as the fields exist, then `unique`, so that pages do not overlap. */
export function orderToSql(
  sorts: readonly Sort[],
  fields: Fields,
  fallback: Prisma.Sql,
  unique: Prisma.Sql,
): Prisma.Sql {
  const known = orderOf(sorts, fields, [], unique).slice(0, -1)
  return Prisma.join([known.length === 0 ? fallback : toOrderSql(known), unique])
}

export const pageToSql = ({ number, size }: Page): Prisma.Sql =>
  size === 0 ? Prisma.empty : Prisma.sql`limit ${size} offset ${(number - 1) * size}`

/** A list, as its statement has it: `select <columns> from <from> where <all of where> order by <order>`. */
export type Listing = {
  columns: Prisma.Sql
  from: Prisma.Sql
  where: readonly Prisma.Sql[]
  /** The last of it tells any two rows apart. */
  order: Order
  page: Page
  /** Where the rows of a page are found in their order, if that is faster than in `from`: of the same columns. */
  found?: Prisma.Sql
  /** Where it is known: how many rows have their number from each of these on, ascending, so that none has to be counted. */
  counts?: readonly { from: number; rows: number }[]
}

/** So many rows are passed over at no cost that could be measured. */
const FEW = 500

/**
 * A page of rows and how many there are in all: two statements that run side by side or, for a page far inside, one after the other, for
 * then it is reached from the end that is nearer. The rows of a page are found first and read then: where an index has the order and all
 * that `where` speaks of, the rows before it cost no more than a look into that index.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as with $queryRaw, only the caller knows what its columns are
export async function listRows<Row>(
  prisma: Pick<Prisma.TransactionClient, '$queryRaw'>,
  { columns, from, where, order, page, found = from, counts }: Listing,
): Promise<{ total: number; rows: Row[] }> {
  const key = order.at(-1)!.column
  const all = Prisma.join([...where], ' and ')
  const read = (way: Order, limit: Prisma.Sql, among = all) => prisma.$queryRaw<Row[]>`
    select ${columns} from ${from} where ${key} in (select ${key} from ${found} where ${among} order by ${toOrderSql(way)} ${limit})
     order by ${toOrderSql(order)}`
  const count = async () => {
    if (counts) return counts.reduce((sum, { rows }) => sum + rows, 0)
    const [row] = await prisma.$queryRaw<[{ total: bigint }]>`select count(*) as total from ${from} where ${all}`
    return Number(row.total)
  }
  const offset = (page.number - 1) * page.size
  if (page.size === 0 || offset < FEW) {
    const [rows, total] = await Promise.all([read(order, pageToSql(page)), count()])
    return { total, rows }
  }
  const total = await count()
  const end = Math.min(offset + page.size, total)
  if (offset >= end) return { total, rows: [] }
  const forwards = offset <= total - end
  const way = forwards ? order : order.map(({ column, descending }) => ({ column, descending: !descending }))
  const skipped = forwards ? offset : total - end
  const start = counts && order.length === 1 ? startOf(counts, way[0]!, skipped) : { skip: skipped, among: [] }
  const among = Prisma.join([...where, ...start.among], ' and ')
  return { total, rows: await read(way, Prisma.sql`limit ${end - offset} offset ${start.skip}`, among) }
}

/** Where to begin so that fewer are passed over. */
function startOf(
  counts: NonNullable<Listing['counts']>,
  { column, descending }: Order[number],
  skipped: number,
): { skip: number; among: Prisma.Sql[] } {
  let skip = skipped
  let next: number | null = null
  for (const { from, rows } of descending ? counts.toReversed() : counts) {
    if (skip < rows) {
      if (!descending) return { skip, among: [Prisma.sql`${column} >= ${from}`] }
      return { skip, among: next === null ? [] : [Prisma.sql`${column} < ${next}`] }
    }
    skip -= rows
    next = from
  }
  return { skip: skipped, among: [] }
}
