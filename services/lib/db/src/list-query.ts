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

/** The order asked for as far as the fields exist, then `unique`, so that pages do not overlap. */
export function orderToSql(
  sorts: readonly Sort[],
  fields: Fields,
  fallback: Prisma.Sql,
  unique: Prisma.Sql,
): Prisma.Sql {
  const known = sorts.flatMap(({ field, descending }) => {
    const found = fieldOf(fields, field)
    return found ? [Prisma.sql`${found.column} ${descending ? Prisma.sql`desc` : Prisma.sql`asc`}`] : []
  })
  return Prisma.join([...(known.length === 0 ? [fallback] : known), unique])
}

export const pageToSql = ({ number, size }: Page): Prisma.Sql =>
  size === 0 ? Prisma.empty : Prisma.sql`limit ${size} offset ${(number - 1) * size}`

/** A list, as its statement has it: `select <columns> from <from> where <all of where> order by <order>`. */
export type Listing = {
  columns: Prisma.Sql
  from: Prisma.Sql
  where: readonly Prisma.Sql[]
  order: Prisma.Sql
  page: Page
}

/** A page of rows and how many there are in all: two statements that run side by side. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as with $queryRaw, only the caller knows what its columns are
export async function listRows<Row>(
  prisma: Pick<Prisma.TransactionClient, '$queryRaw'>,
  { columns, from, where, order, page }: Listing,
): Promise<{ total: number; rows: Row[] }> {
  const all = Prisma.join([...where], ' and ')
  const [rows, [count]] = await Promise.all([
    prisma.$queryRaw<Row[]>`select ${columns} from ${from} where ${all} order by ${order} ${pageToSql(page)}`,
    prisma.$queryRaw<[{ total: bigint }]>`select count(*) as total from ${from} where ${all}`,
  ])
  return { total: Number(count.total), rows }
}
