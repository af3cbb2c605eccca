import { Prisma } from './gen/prisma/client.ts'
import { problems } from '@haven/errors'
import { keyOfList, type KeptList, type KeptLists } from './kept-lists.ts'

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
  const value = (given: Scalar) => {
    const known = typed(field, condition.field, given)
    // By itself it would be read as the column's type, which may not hold it.
    return typeof known === 'bigint' ? Prisma.sql`${known}::bigint` : Prisma.sql`${known}`
  }
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

/** Whether Postgres reads a time as JavaScript writes it: within the years that have four digits, of which there is no year 0. */
export const isStorableTime = (time: Date): boolean => time.getUTCFullYear() >= 1 && time.getUTCFullYear() <= 9999

function typed({ type }: Field, name: string, value: Scalar): Scalar | bigint {
  if (type === 'text') return String(value)
  if (type === 'number') {
    const text = String(value)
    if (/^-?\d{1,19}$/.test(text) && BigInt(text) <= INT8_MAX && BigInt(text) >= -INT8_MAX) return BigInt(text)
  } else {
    const time =
      value instanceof Date ? value : new Date(/[zZ]|[+-]\d\d:\d\d$/.test(String(value)) ? value : `${value}Z`)
    if (isStorableTime(time)) return time
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
  /** Where it is known: how many rows have their number from each of these on, ascending, so that none has to be counted. */
  counts?: readonly { from: number; rows: number }[]
}

/** So many rows are passed over at no cost that could be measured. */
const FEW = 500

/** A list that is remembered until one of its tables changes. The last of `order` is an int4. */
export type KeptListing = Listing & {
  /** All that say which rows there are and in which order, as "schema.table", but for `besides`. Each has a `list_change` trigger. */
  tables: readonly string[]
  /** What else says so: another text when that has changed, read before. */
  besides?: string
}

type Prismatic = { readonly $queryRaw: Prisma.TransactionClient['$queryRaw'] }
type Reader = { readonly prisma: Prismatic; readonly lists: KeptLists }

/** Of longer lists the keys are not remembered: these are half of what a generation of lists may take. */
const MAX_KEPT = 2_000_000
const MAX_INT = 2 ** 31 - 1

/**
 * As `listRows`, in three statements at most, of a list that is remembered: a page of it is read by its keys, wherever it lies and however
 * dear the list was to find. It is remembered when it is asked for again before it changed, or for a page far inside; until then its first pages
 * are found as ever, so that a list that changes all the time is not found whole for each of them.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as with $queryRaw, only the caller knows what its columns are
export async function listKept<Row>(db: Reader, listing: KeptListing): Promise<{ total: number; rows: Row[] }> {
  const { order, page, counts } = listing
  if (page.size === 0 || (counts && order.length === 1)) return listRows<Row>(db.prisma, listing)
  const version = await versionOf(db, listing)
  const key = nameOf(listing)
  const offset = (page.number - 1) * page.size
  if (offset < FEW && db.lists.get(key, version) === null) {
    const walked = await listRows<Row>(db.prisma, listing)
    db.lists.keep(key, version, { total: walked.total, keys: null })
    return walked
  }
  const { total, keys } = await found(db, listing, key, version)
  if (keys === null) return listRows<Row>(db.prisma, listing)
  return { total, rows: await readKeys<Row>(db.prisma, listing, [...keys.subarray(offset, offset + page.size)]) }
}

/** The keys of all rows of a list that is remembered, in their order; of a longer one they are found anew each time. */
export async function listKeys(db: Reader, listing: Which): Promise<Int32Array> {
  const { keys } = await found(db, listing, nameOf(listing), await versionOf(db, listing))
  return keys ?? (await findKeys(db.prisma, listing, MAX_INT)).keys!
}

type Which = Omit<KeptListing, 'columns' | 'page'>

const nameOf = ({ from, where, order }: Which) =>
  keyOfList(Prisma.sql`${from} where ${Prisma.join([...where], ' and ')} order by ${toOrderSql(order)}`)

const versionOf = async ({ lists }: Reader, { tables, besides = '' }: Which) =>
  `${tables.length === 0 ? '' : await lists.version(tables)} ${besides}`

async function found({ prisma, lists }: Reader, listing: Which, key: string, version: string): Promise<KeptList> {
  const known = lists.get(key, version)
  if (known && (known.keys || known.total > MAX_KEPT)) return known
  const kept = await findKeys(prisma, listing, MAX_KEPT)
  lists.keep(key, version, kept)
  return kept
}

/** All keys in their order; none where there are more than `most`. */
async function findKeys(prisma: Prismatic, { from, where, order }: Which, most: number): Promise<KeptList> {
  const key = order.at(-1)!.column
  // Four bytes a key, as hexadecimal: the driver would take numbers one at a time, and makes an array of numbers of bytes.
  const [row] = await prisma.$queryRaw<[{ total: bigint; keys: string | null }]>`
    select count(*) as total, case when count(*) <= ${most} then encode(string_agg(int4send(key), ''), 'hex') end as keys
      from (select ${key} as key from ${from} where ${Prisma.join([...where], ' and ')} order by ${toOrderSql(order)}) found`
  const total = Number(row.total)
  if (total > most) return { total, keys: null }
  const keys = new Int32Array(total)
  new Uint8Array(keys.buffer).set(Buffer.from(row.keys ?? '', 'hex').swap32()) // the network's order of bytes
  return { total, keys }
}

/** Who lies in the list is known: what `where` asks is not asked again. */
async function readKeys<Row>(
  prisma: Prismatic,
  { columns, from, order }: Listing,
  keys: readonly number[],
): Promise<Row[]> {
  if (keys.length === 0) return []
  return prisma.$queryRaw<Row[]>`
    select ${columns} from ${from} where ${order.at(-1)!.column} = any(${keys}::int[]) order by ${toOrderSql(order)}`
}

/**
 * A page of rows and how many there are in all: two statements that run side by side or, for a page far inside, one after the other, for
 * then it is reached from the end that is nearer. The rows of a page are found first and read then: where an index has the order and all
 * that `where` speaks of, the rows before it cost no more than a look into that index.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as with $queryRaw, only the caller knows what its columns are
export async function listRows<Row>(
  prisma: Prismatic,
  { columns, from, where, order, page, counts }: Listing,
): Promise<{ total: number; rows: Row[] }> {
  const key = order.at(-1)!.column
  const all = Prisma.join([...where], ' and ')
  const read = (way: Order, limit: Prisma.Sql, among = all) => prisma.$queryRaw<Row[]>`
    select ${columns} from ${from} where ${key} in (select ${key} from ${from} where ${among} order by ${toOrderSql(way)} ${limit})
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
