import { Prisma, type Database } from '@haven/db'
import type { SearchTerm } from '../search-terms.ts'
import { columns, named, ofIndex, type ArtifactRow } from './artifact-rows.ts'
import { searchChecks, searchedRepositories, searchSets, type Labels, type SearchScope } from './search-sql.ts'

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
  /** Others follow in the direction of reading. */
  more: boolean
  /** How many there are in all, counted up to `MAX_COUNTED`; null when nobody counted. */
  total: number | null
}
export type TagOfRow = { tag: string; tagPushedAt: Date; tagPulledAt: Date | null }

/** Whoever wants to know how many more there are waits for all of them. */
export const MAX_COUNTED = 1_000

type Order = { columns: readonly Prisma.Sql[]; read: (key: RowKey) => unknown[] | null }

const textKey = (column: Prisma.Sql): Order => ({
  columns: [column],
  read: ([text]) => (typeof text === 'string' ? [text] : null),
})
const timeKey = (row: Prisma.Sql): Order => ({
  columns: [Prisma.sql`${row}.pushed_at`, Prisma.sql`${row}.id`],
  read: ([ms, id]) => {
    const time = new Date(Number(ms))
    return Number.isNaN(time.getTime()) || !Number.isSafeInteger(id) ? null : [time, BigInt(id as number)]
  },
})

/** Each has an index that holds the rows of a repository in its order. */
const tagOrders = {
  version: textKey(Prisma.sql`t.version_key`),
  name: textKey(Prisma.sql`t.name`),
  pushed: timeKey(Prisma.sql`t`),
}
export type TagOrder = keyof typeof tagOrders
const byPush = timeKey(Prisma.sql`m`)

const everything = { tags: true, labels: true, accessories: true }

type Source = {
  /** Repositories to read one after the other: each has its artifacts in order. */
  each?: readonly number[] | null
  from: Prisma.Sql
  where: readonly Prisma.Sql[]
  order: Order
  own: Prisma.Sql
  counted: boolean
}
type KeyRow = { key1: string | Date; key2: number | null; found: number | null }

async function readPage<Row extends object>(
  { prisma }: Pick<Database, 'prisma'>,
  { each = null, from, where, order, own, counted }: Source,
  keyset: Keyset,
): Promise<RowPage<Row> | null> {
  const { descending, backwards, size, offset } = keyset
  const values = keyset.from === null ? [] : order.read(keyset.from)
  if (values === null) return null
  const down = descending !== backwards
  const direction = Prisma.raw(down ? 'desc' : 'asc')
  const all = Prisma.join([...where], ' and ')
  const behind =
    values.length === 0
      ? Prisma.sql`true`
      : Prisma.sql`(${Prisma.join([...order.columns])}) ${Prisma.raw(down ? '<' : '>')} (${Prisma.join(values)})`
  const sorted = Prisma.join(order.columns.map((column) => Prisma.sql`${column} ${direction}`))
  const [first, second = Prisma.sql`null::bigint`] = order.columns
  const count = counted
    ? Prisma.sql`(select count(*)::int from (select 1 from ${from} where ${all} limit ${MAX_COUNTED + 1}) c)`
    : Prisma.sql`null::int`
  const read = (condition: Prisma.Sql, limit: Prisma.Sql) => Prisma.sql`
    select m.id, ${own}, ${first!} as key1, ${second} as key2
      from ${from} where ${all} and ${behind} ${condition} order by ${sorted} ${limit}`
  const limit = Prisma.sql`limit ${size + 1} offset ${offset}`
  const ofPage =
    each === null
      ? read(Prisma.empty, limit)
      : Prisma.sql`
        select f.* from unnest(${[...each]}::int[]) x (id),
               lateral (${read(Prisma.sql`and m.repository_id = x.id`, Prisma.sql`limit ${size + 1 + offset}`)}) f
         order by f.key1 ${direction}, f.key2 ${direction} ${limit}`
  const found = await prisma.$queryRaw<(Row & KeyRow)[]>`
    with page as materialized (
      select f.*, row_number() over () as place from (${ofPage}) f)
    select ${columns(everything)}, p.*, m.id::float8 as id, p.key2::float8 as key2, ${count} as found
      from page p join artifacts.manifests m on m.id = p.id join artifacts.repositories r on r.id = m.repository_id
     order by p.place`
  const page = found.slice(0, size)
  const rows = page.map((row) => ({
    ...row,
    key: row.key1 instanceof Date ? [row.key1.getTime(), row.key2!] : [row.key1],
  }))
  const atStart = values.length === 0 && offset === 0
  return {
    rows: backwards ? rows.toReversed() : rows,
    more: found.length > size,
    total: found[0]?.found ?? (counted && atStart ? 0 : null),
  }
}

export type RepositoryOf = { project: { id: number; name: string }; path: string }
type Search = { terms: readonly SearchTerm[]; labels: Labels }

const repositoryOf = ({ project, path }: RepositoryOf) => Prisma.sql`(
  select x.id from artifacts.repositories x where x.project_id = ${project.id} and x.path = ${path} and x.deleted_at is null)`
const artifacts = Prisma.sql`artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id`
// What an index lists, and what hangs on another artifact, is no row of its own; a tag makes a child one.
export const listed = Prisma.sql`m.deleted_at is null and m.subject_digest is null and (not ${ofIndex} or ${named})`

/** Conditions of a search in one repository, whose lists are read in their order unless few artifacts have what it names. */
async function searchIn(
  db: Pick<Database, 'prisma'>,
  terms: readonly SearchTerm[],
  scope: SearchScope,
): Promise<Prisma.Sql[]> {
  const { among } = await startOf(db, terms, scope)
  return [...(among ? [Prisma.sql`m.id = any(array(${among}))`] : []), ...searchChecks(terms, scope)]
}

/**
 * Tags of a repository, each with its whole artifact. One statement, and one more for a search by what an index tells. Null for a key that no
 * row has.
 */
export const tagPage = async (
  db: Pick<Database, 'prisma'>,
  place: RepositoryOf,
  { terms, labels }: Search,
  order: TagOrder,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & TagOfRow> | null> =>
  readPage(
    db,
    {
      from: Prisma.sql`artifacts.tags t join artifacts.manifests m on m.id = t.manifest_id join artifacts.repositories r on r.id = t.repository_id`,
      where: [
        Prisma.sql`t.repository_id = ${repositoryOf(place)} and m.deleted_at is null`,
        ...(await searchIn(db, terms, { among: [place.project], labels, ofTags: true })),
      ],
      order: tagOrders[order],
      own: Prisma.sql`t.name as tag, t.pushed_at as "tagPushedAt", t.pulled_at as "tagPulledAt"`,
      counted: true,
    },
    keyset,
  )

/** As `tagPage` for its artifacts, by the time of their push. */
export const artifactPage = async (
  db: Pick<Database, 'prisma'>,
  place: RepositoryOf,
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow> | null> =>
  readPage(
    db,
    {
      from: artifacts,
      where: [
        Prisma.sql`m.repository_id = ${repositoryOf(place)} and ${listed}`,
        ...(await searchIn(db, terms, { among: [place.project], labels, ofTags: false })),
      ],
      order: byPush,
      own: Prisma.sql`null as tag`,
      counted: true,
    },
    keyset,
  )

/** So many artifacts are sorted for a page. Of what more have, a page is soon full when all are looked at in their order. */
const FEW_ARTIFACTS = 10_000
const FEW_REPOSITORIES = 200

type Start = {
  /** Ids of few artifacts, among which all are that are searched. */
  among: Prisma.Sql | null
  /** Few repositories, in which all are. */
  repositories: number[] | null
}

/** Where a search begins: with the rarest of what it names, as far as an index tells. One statement, none when it names nothing of that kind. */
async function startOf(
  { prisma }: Pick<Database, 'prisma'>,
  terms: readonly SearchTerm[],
  scope: SearchScope,
): Promise<Start> {
  const sets = searchSets(terms, scope)
  const named = searchedRepositories(terms, scope)
  if (sets.length === 0 && named === null) return { among: null, repositories: null }
  const counts = sets.map((set) => Prisma.sql`(select count(*)::int from (${set} limit ${FEW_ARTIFACTS + 1}) s)`)
  const repositories =
    named === null
      ? Prisma.sql`null::int[]`
      : Prisma.sql`array(select r.id from artifacts.repositories r where r.deleted_at is null and ${named} limit ${FEW_REPOSITORIES + 1})`
  const [found] = await prisma.$queryRaw<[{ counts: number[]; repositories: number[] | null }]>`
    select array[${Prisma.join([...counts, Prisma.sql`${FEW_ARTIFACTS + 1}::int`])}] as counts, ${repositories} as repositories`
  const fewest = Math.min(...found.counts)
  return {
    among: fewest > FEW_ARTIFACTS ? null : sets[found.counts.indexOf(fewest)]!,
    repositories: found.repositories && found.repositories.length <= FEW_REPOSITORIES ? found.repositories : null,
  }
}

/** What the conditions of a search look at. */
const searched = Prisma.sql`m.id, m.repository_id, m.digest, m.type, m.subject_digest, m.annotations, m.facts, m.pushed_at, m.pulled_at, m.deleted_at`

/**
 * Artifacts of these projects that a search finds, the one pushed last first. Two statements at most; nobody counts them.
 */
export async function foundPage(
  db: Pick<Database, 'prisma'>,
  among: readonly { id: number; name: string }[],
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & { projectId: number; project: string }> | null> {
  const scope = { among, labels, ofTags: false }
  const start = await startOf(db, terms, scope)
  // Sorted first and looked at then, as far as the page needs.
  const down = Prisma.raw(keyset.descending === keyset.backwards ? 'asc' : 'desc')
  const manifests = start.among
    ? Prisma.sql`(select ${searched} from artifacts.manifests m where m.id = any(array(${start.among})) order by m.pushed_at ${down}, m.id ${down} offset 0) m`
    : Prisma.sql`artifacts.manifests m`
  return readPage(
    db,
    {
      each: start.among ? null : start.repositories,
      // Looked up one by one: read as a whole, the repositories cost more than the page.
      from: Prisma.sql`${manifests}
        cross join lateral (select q.* from artifacts.repositories q where q.id = m.repository_id offset 0) r
        join unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as n (id, name) on n.id = r.project_id`,
      where: [Prisma.sql`r.deleted_at is null and ${listed}`, ...searchChecks(terms, scope)],
      order: byPush,
      own: Prisma.sql`r.project_id as "projectId", n.name as project`,
      counted: false,
    },
    keyset,
  )
}
