import { problems } from '@haven/errors'

type Scalar = string | number | Date

/** A term of a list query, by the API's name of the field. What a row does not have is ignored. */
export type ListCondition = { readonly field: string } & (
  | { readonly match: 'exact' | 'contains'; readonly value: string }
  | { readonly match: 'range'; readonly min?: Scalar; readonly max?: Scalar; readonly exclusive?: boolean }
  | { readonly match: 'in' | 'all'; readonly values: readonly Scalar[] }
)

export type ListSort = { readonly field: string; readonly descending: boolean }

type Column = { readonly column: string; readonly type: 'text' | 'number' | 'time' }
/** The only columns that a query reaches, by the API's names of them (threats.md R4). */
export type Columns = Readonly<Record<string, Column>>

type Where = Record<string, unknown>

/** `snake_case` or `CamelCase`, as Harbor's query language takes both. */
const columnOf = (columns: Columns, field: string): Column | undefined => {
  const snake = field.replaceAll(/(?<=[a-z0-9])(?=[A-Z])/g, '_').toLowerCase()
  return Object.hasOwn(columns, snake) ? columns[snake] : undefined
}

/**
 * Conditions as Prisma takes them.
 * @throws badRequest for a value that its field cannot have.
 */
export const toWhere = (conditions: readonly ListCondition[], columns: Columns): Where[] =>
  conditions.flatMap((condition) => {
    const known = columnOf(columns, condition.field)
    return known ? whereOf(condition, known) : []
  })

/** The order that was asked for, as far as the fields exist. */
export const toOrder = (sorts: readonly ListSort[], columns: Columns): Record<string, 'asc' | 'desc'>[] =>
  sorts.flatMap(({ field, descending }) => {
    const known = columnOf(columns, field)
    return known ? [{ [known.column]: descending ? ('desc' as const) : ('asc' as const) }] : []
  })

function whereOf(condition: ListCondition, { column, type }: Column): Where[] {
  const value = (given: Scalar) => typed(type, condition.field, given)
  switch (condition.match) {
    case 'exact':
      return [{ [column]: value(condition.value) }]
    case 'contains':
      if (type !== 'text') return [{ [column]: value(condition.value) }]
      return [{ [column]: { contains: escapeLike(condition.value), mode: 'insensitive' } }]
    case 'range': {
      const { min, max, exclusive } = condition
      return [
        {
          [column]: {
            ...(min !== undefined && { [exclusive ? 'gt' : 'gte']: value(min) }),
            ...(max !== undefined && { [exclusive ? 'lt' : 'lte']: value(max) }),
          },
        },
      ]
    }
    case 'in':
      return [{ [column]: { in: condition.values.map(value) } }]
    case 'all':
      return [] // only for fields that hold several values, and here is none
  }
}

/** `%`, `_` and `\` mean themselves. */
export const escapeLike = (text: string): string => text.replaceAll(/[%_\\]/g, String.raw`\$&`)

function typed(type: Column['type'], field: string, given: Scalar): Scalar {
  if (type === 'text') return String(given)
  if (type === 'number') {
    const number = Number(given)
    if (Number.isInteger(number) && Math.abs(number) < 2 ** 31) return number
  } else {
    const time =
      given instanceof Date ? given : new Date(/(?:[zZ]|[+-]\d\d:\d\d)$/.test(String(given)) ? given : `${given}Z`)
    if (!Number.isNaN(time.getTime())) return time
  }
  throw problems.badRequest({ message: `invalid value of ${field}: ${String(given)}` })
}
