import { Prisma, statement, type Database, type Statement } from '@haven/db'
import { columns } from './artifact-columns.ts'

/** Who reads on says so by the keys of a row, which no other row of the list has. */
export type RowKey = readonly (string | number)[]
export type Keyset = {
  descending: boolean
  /** Behind this row, or before it (`backwards`); none: from the beginning or the end. */
  from: RowKey | null
  backwards: boolean
  /** Rows that are left out first, for pages by number. */
  offset: number
  size: number
}
export type RowPage<Row> = {
  rows: (Row & { key: RowKey })[]
  /** Others follow in the direction of reading, or may. */
  more: boolean
  /** Where reading stopped before the page was full, because very many had been looked at by then. */
  stopped: RowKey | null
  /** How many there are in all, counted up to `MAX_COUNTED`; null when nobody counted. */
  total: number | null
}

/** So many are looked at in their order for one page: of what more than a few have, it is full by then when they are spread evenly. */
export const LOOKED_AT = 6_000

/** Whoever wants to know how many more there are waits for all of them. */
export const MAX_COUNTED = 1_000

export type Order = { columns: readonly Prisma.Sql[]; read: (key: RowKey) => unknown[] | null }

export const textKey = (column: Prisma.Sql): Order => ({
  columns: [column],
  read: ([text]) => (typeof text === 'string' ? [text] : null),
})
export const timeKey = (row: Prisma.Sql): Order => ({
  columns: [Prisma.sql`${row}.pushed_at`, Prisma.sql`${row}.id`],
  read: ([ms, id]) => {
    const time = new Date(Number(ms))
    return Number.isNaN(time.getTime()) || !Number.isSafeInteger(id) ? null : [time, BigInt(id as number)]
  },
})

/** The one pushed last first. */
export const byPush = timeKey(Prisma.sql`m`)

const everything = { tags: true, labels: true, accessories: true }

export type Source = {
  /** What `from` looks at, by `id` and `pushed_at` in the order of the page: `LOOKED_AT` of them. */
  looked?: Prisma.Sql | null
  /** Repositories to read one after the other: each has its artifacts in order. */
  each?: readonly number[] | null
  from: Prisma.Sql
  where: readonly Prisma.Sql[]
  order: Order
  own: Prisma.Sql
  /** How many there are in all, up to one more than `MAX_COUNTED`. */
  count: Prisma.Sql | null
  /** Whether there are few texts of such a statement: it is planned once a connection then. */
  isCommon: boolean
}
type KeyRow = {
  id: number | null
  key1: string | Date
  key2: number | null
  found: number | null
  stopped: [number, number] | null
}

/** Where a page begins, and in which direction it goes on. Null for a key that no row has. */
export function placeOf(order: Order, { descending, backwards, from }: Keyset) {
  const values = from === null ? [] : order.read(from)
  if (values === null) return null
  const down = descending !== backwards
  const direction = Prisma.raw(down ? 'desc' : 'asc')
  const behind =
    values.length === 0
      ? Prisma.sql`true`
      : Prisma.sql`(${Prisma.join([...order.columns])}) ${Prisma.raw(down ? '<' : '>')} (${Prisma.join(values)})`
  return { behind, direction, sorted: Prisma.join(order.columns.map((column) => Prisma.sql`${column} ${direction}`)) }
}

/** In the text of a statement: the planner thinks of a limit that it does not know as a tenth of all rows. */
export const number = (value: number) => Prisma.raw(String(value))
export const upTo = (rows: Prisma.Sql) =>
  Prisma.sql`(select count(*)::int from (${rows} limit ${number(MAX_COUNTED + 1)}) c)`

/** How far pages reach, as the planner is told: a list has two texts for its pages of every size and number. */
const REACHES = [101, 10_001]

export type Reader = Pick<Database, 'prisma' | 'writes'>

/** Statements that are planned once a connection, by their text. */
const common = new Map<string, Statement<object>>()

function rowsOfSql<Row extends object>({ prisma, writes }: Reader, sql: Prisma.Sql, isCommon: boolean): Promise<Row[]> {
  if (!isCommon) return prisma.$queryRaw<Row[]>(sql)
  const known = common.get(sql.text) ?? statement(`page of rows ${common.size + 1}`, sql.text)
  common.set(sql.text, known)
  return writes.rows(known as Statement<Row>, sql.values)
}

export async function readPage<Row extends object>(
  db: Reader,
  { each = null, looked = null, from, where, order, own, count, isCommon }: Source,
  keyset: Keyset,
): Promise<RowPage<Row> | null> {
  const { backwards, size, offset } = keyset
  const start = placeOf(order, keyset)
  if (start === null) return null
  const { behind, direction, sorted } = start
  const all = Prisma.join([...where], ' and ')
  const [first, second = Prisma.sql`null::bigint`] = order.columns
  const read = (condition: Prisma.Sql, limit: Prisma.Sql) => Prisma.sql`
    select m.id, ${own}, ${first!} as key1, ${second} as key2
      from ${from} where ${all} and ${behind} ${condition} order by ${sorted} ${limit}`
  const limit = Prisma.sql`limit ${size + 1} offset ${offset}`
  const end = size + 1 + offset
  const reach = Prisma.sql`limit ${number(REACHES.find((most) => end <= most) ?? end)}`
  const ofPage =
    each === null
      ? Prisma.sql`select f.* from (${read(Prisma.empty, reach)}) f ${limit}`
      : Prisma.sql`
        select f.* from unnest(${[...each]}::int[]) x (id),
               lateral (${read(Prisma.sql`and m.repository_id = x.id`, Prisma.sql`limit ${size + 1 + offset}`)}) f
         order by f.key1 ${direction}, f.key2 ${direction} ${limit}`
  const stopped = looked
    ? Prisma.sql`case when (select count(*) from page) <= ${size} then (
        select jsonb_build_array(extract(epoch from l.pushed_at) * 1000, l.id) from (${looked} offset ${LOOKED_AT - 1} limit 1) l) end`
    : Prisma.sql`null::jsonb`
  // One row says where reading stopped although none was found.
  const found = await rowsOfSql<Row & KeyRow>(
    db,
    Prisma.sql`
    with page as materialized (
      select f.*, row_number() over () as place from (${ofPage}) f)
    select ${columns(everything)}, p.*, m.id::float8 as id, p.key2::float8 as key2, ${count ?? Prisma.sql`null::int`} as found, o.stopped
      from (select ${stopped} as stopped) o
      left join (page p join artifacts.manifests m on m.id = p.id join artifacts.repositories r on r.id = m.repository_id) on true
     order by p.place`,
    isCommon,
  )
  const those = found.filter(({ id }) => id !== null)
  const page = those.slice(0, size)
  const rows = page.map((row) => ({
    ...row,
    key: row.key1 instanceof Date ? [row.key1.getTime(), row.key2!] : [row.key1],
  }))
  const atStart = keyset.from === null && offset === 0
  const stop = found[0]?.stopped ?? null
  return {
    rows: backwards ? rows.toReversed() : rows,
    more: those.length > size || stop !== null,
    stopped: stop,
    total: those[0]?.found ?? (count && atStart ? 0 : null),
  }
}
