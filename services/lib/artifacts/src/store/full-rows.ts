import { Prisma, type Database } from '@haven/db'
import type { SearchTerm } from '../search-terms.ts'
import { columns, named, ofIndex, type ArtifactRow } from './artifact-rows.ts'
import {
  searchChecks,
  searchedRepositories,
  searchedType,
  searchSets,
  type Labels,
  type SearchScope,
} from './search-sql.ts'

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

/** Where a page begins, and in which direction it goes on. Null for a key that no row has. */
function placeOf(order: Order, { descending, backwards, from }: Keyset) {
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

async function readPage<Row extends object>(
  { prisma }: Pick<Database, 'prisma'>,
  { each = null, from, where, order, own, counted }: Source,
  keyset: Keyset,
): Promise<RowPage<Row> | null> {
  const { backwards, size, offset } = keyset
  const start = placeOf(order, keyset)
  if (start === null) return null
  const { behind, direction, sorted } = start
  const all = Prisma.join([...where], ' and ')
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
  const atStart = keyset.from === null && offset === 0
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
  const { sets } = await startOf(db, terms, scope, FEW_ARTIFACTS)
  return [...(sets[0] ? [Prisma.sql`m.id = any(array(${sets[0]}))`] : []), ...searchChecks(terms, scope)]
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

/** So many artifacts are looked at wherever they lie, and sorted. */
const FEW_ARTIFACTS = 4_000
/** So many are looked at in their order, where they lie side by side: of what more than a few have, a page is full by then when they are spread evenly. */
const NEAR_ARTIFACTS = 12_000
/** So many ids are found, that only those have to be looked at which are in all of some sets. */
const MANY_ARTIFACTS = 30_000
const FEW_REPOSITORIES = 200

type Start = {
  /** Ids of the artifacts that have one of the terms, where few have it: the rarest first. */
  sets: Prisma.Sql[]
  /** Few repositories, in which all are. */
  repositories: number[] | null
  /** The type that is asked for, whose index has its artifacts in order, and how many there are, up to one more than many. */
  type: Prisma.Sql | null
  ofType: number
}

/** Where a search begins: with the rarest of what it names, as far as an index tells. One statement, none when it names nothing of that kind. */
async function startOf(
  { prisma }: Pick<Database, 'prisma'>,
  terms: readonly SearchTerm[],
  scope: SearchScope,
  few: number,
): Promise<Start> {
  const sets = searchSets(terms, scope)
  const named = searchedRepositories(terms, scope)
  const type = searchedType(terms, scope)
  if (sets.length === 0 && named === null && type === null)
    return { sets: [], repositories: null, type, ofType: Infinity }
  const count = (set: Prisma.Sql, most: number) => Prisma.sql`(select count(*)::int from (${set} limit ${most + 1}) s)`
  const repositories =
    named === null
      ? Prisma.sql`null::int[]`
      : Prisma.sql`array(select r.id from artifacts.repositories r where r.deleted_at is null and ${named} limit ${FEW_REPOSITORIES + 1})`
  const ofType =
    type === null
      ? Prisma.sql`null::int`
      : count(Prisma.sql`select m.id from artifacts.manifests m where m.deleted_at is null and ${type}`, MANY_ARTIFACTS)
  const [found] = await prisma.$queryRaw<[{ counts: number[]; repositories: number[] | null; ofType: number | null }]>`
    select array[${Prisma.join([...sets.map((set) => count(set, few)), Prisma.sql`0`])}] as counts, ${repositories} as repositories,
           ${ofType} as "ofType"`
  return {
    sets: sets
      .map((set, i) => ({ set, count: found.counts[i]! }))
      .filter((one) => one.count <= few)
      .toSorted((a, b) => a.count - b.count)
      .map(({ set }) => set),
    repositories: found.repositories && found.repositories.length <= FEW_REPOSITORIES ? found.repositories : null,
    type,
    ofType: found.ofType ?? Infinity,
  }
}

/**
 * Artifacts of these projects that a search finds, the one pushed last first. Nobody counts them. Two statements; four when a page is not full
 * although many have each of the terms: then few have all of them, or those that have one were pushed long ago.
 */
export async function foundPage(
  db: Pick<Database, 'prisma'>,
  among: readonly { id: number; name: string }[],
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & { projectId: number; project: string }> | null> {
  const scope = { among, labels, ofTags: false }
  const place = placeOf(byPush, keyset)
  if (place === null) return null
  const read = (manifests: Prisma.Sql, each: number[] | null = null) =>
    readPage<ArtifactRow & { projectId: number; project: string }>(
      db,
      {
        each,
        // Looked up one by one: read as a whole, the repositories cost more than the page.
        from: Prisma.sql`${manifests} m
          cross join lateral (select q.* from artifacts.repositories q where q.id = m.repository_id offset 0) r
          join unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as n (id, name) on n.id = r.project_id`,
        where: [Prisma.sql`r.deleted_at is null and ${listed}`, ...searchChecks(terms, scope)],
        order: byPush,
        own: Prisma.sql`r.project_id as "projectId", n.name as project`,
        counted: false,
      },
      keyset,
    )
  const inOrder = Prisma.sql`m.subject_digest is null and m.deleted_at is null and ${place.behind}`
  // Sorted first and looked at then, as far as the page needs.
  const inSets = (sets: readonly Prisma.Sql[]) =>
    read(Prisma.sql`(
      select k.id, k.pushed_at, x.repository_id, x.digest, x.type, x.subject_digest, x.annotations, x.facts, x.pulled_at, x.deleted_at
        from (select m.id, m.pushed_at from artifacts.manifests m
               where m.id = any(array(${Prisma.join(
                 sets.map((set) => Prisma.sql`(${set})`),
                 ' intersect ',
               )})) and ${inOrder}
               order by ${place.sorted} offset 0) k
        cross join lateral (select x.* from artifacts.manifests x where x.id = k.id offset 0) x)`)
  const near = (which: Prisma.Sql) =>
    read(Prisma.sql`(
      select m.* from artifacts.manifests m where ${which} and ${inOrder} order by ${place.sorted} limit ${NEAR_ARTIFACTS})`)
  const { sets, repositories, type, ofType } = await startOf(db, terms, scope, FEW_ARTIFACTS)
  if (sets.length > 0) return inSets(sets.slice(0, 1))
  const byType = ofType <= MANY_ARTIFACTS
  const all = () => read(Prisma.sql`artifacts.manifests`, byType ? null : repositories)
  // A page of several repositories is put together of one of each.
  const several = !byType && repositories !== null && repositories.length !== 1
  if (several || searchSets(terms, scope).length === 0) return all()
  const [repository] = repositories ?? []
  const page = await near(
    byType ? type! : repository === undefined ? Prisma.sql`true` : Prisma.sql`m.repository_id = ${repository}`,
  )
  if (page?.more || ofType <= NEAR_ARTIFACTS) return page
  const start = await startOf(db, terms, scope, MANY_ARTIFACTS)
  return start.sets.length > 0 ? inSets(start.sets) : all()
}
