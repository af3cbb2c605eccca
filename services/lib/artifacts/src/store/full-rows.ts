import { Prisma, statement, type Database, type Statement } from '@haven/db'
import type { SearchTerm } from '../search-terms.ts'
import { columns, named, ofIndex, type ArtifactRow } from './artifact-rows.ts'
import {
  listedBy,
  searchChecks,
  searchedRepositories,
  searchedTimes,
  searchSets,
  searchStarts,
  type Labels,
  type Ordered,
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
  /** Others follow in the direction of reading, or may. */
  more: boolean
  /** Where reading stopped before the page was full, because very many had been looked at by then. */
  stopped: RowKey | null
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

/** In the text of a statement: the planner thinks of a limit that it does not know as a tenth of all rows. */
const number = (value: number) => Prisma.raw(String(value))
const upTo = (rows: Prisma.Sql) => Prisma.sql`(select count(*)::int from (${rows} limit ${number(MAX_COUNTED + 1)}) c)`

/** How far pages reach, as the planner is told: a list has two texts for its pages of every size and number. */
const REACHES = [101, 10_001]

/** Statements that are planned once a connection, by their text. */
const common = new Map<string, Statement<object>>()

function rowsOfSql<Row extends object>({ prisma, writes }: Reader, sql: Prisma.Sql, isCommon: boolean): Promise<Row[]> {
  if (!isCommon) return prisma.$queryRaw<Row[]>(sql)
  const known = common.get(sql.text) ?? statement(`page of rows ${common.size + 1}`, sql.text)
  common.set(sql.text, known)
  return writes.rows(known as Statement<Row>, sql.values)
}

async function readPage<Row extends object>(
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

export type RepositoryOf = { project: { id: number; name: string }; path: string }
type Reader = Pick<Database, 'prisma' | 'writes'>
type Search = { terms: readonly SearchTerm[]; labels: Labels }

const repositoryOf = ({ project, path }: RepositoryOf) => Prisma.sql`(
  select x.id from artifacts.repositories x where x.project_id = ${project.id} and x.path = ${path} and x.deleted_at is null)`
const artifacts = Prisma.sql`artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id`
// What an index lists, and what hangs on another artifact, is no row of its own; a tag makes a child one.
export const listed = Prisma.sql`m.deleted_at is null and m.subject_digest is null and (not ${ofIndex} or ${named})`

/**
 * Tags of a repository, each with its whole artifact. One statement, and one more for a search by what an index tells. Null for a key that no
 * row has.
 */
export async function tagPage(
  db: Reader,
  place: RepositoryOf,
  { terms, labels }: Search,
  order: TagOrder,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & TagOfRow> | null> {
  const scope = { among: [place.project], labels, ofTags: true }
  const [rarest] = await rarestSets(db, searchSets(terms, scope))
  const ofRepository = Prisma.sql`t.repository_id = ${repositoryOf(place)}`
  const from = Prisma.sql`artifacts.tags t join artifacts.manifests m on m.id = t.manifest_id join artifacts.repositories r on r.id = t.repository_id`
  const where = [
    Prisma.sql`${ofRepository} and m.deleted_at is null`,
    ...searchChecks(terms, scope),
    // Of a term that is not all too frequent, all are looked at and sorted: in the order of the list there may be none.
    ...(rarest ? [Prisma.sql`m.id = any(array(${rarest}))`] : []),
  ]
  return readPage(
    db,
    {
      from,
      where,
      order: tagOrders[order],
      own: Prisma.sql`t.name as tag, t.pushed_at as "tagPushedAt", t.pulled_at as "tagPulledAt"`,
      // A tombstone has no tags: without a search an index tells.
      count: upTo(
        terms.length === 0
          ? Prisma.sql`select from artifacts.tags t where ${ofRepository}`
          : Prisma.sql`select from ${from} where ${Prisma.join(where, ' and ')}`,
      ),
      isCommon: terms.length === 0,
    },
    keyset,
  )
}

/** As `tagPage` for its artifacts, by the time of their push. */
export async function artifactPage(
  db: Reader,
  place: RepositoryOf,
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow> | null> {
  if (placeOf(byPush, keyset) === null) return null
  const scope = { among: [place.project], labels, ofTags: false }
  const asked = searchStarts(terms, scope)
  const named = Prisma.sql`r.project_id = ${place.project.id} and r.path = ${place.path}`
  const { sets, ordered } = await startOf(db, { ...asked, named: asked.ordered.length > 0 ? named : null }, keyset)
  const [few] = sets
  const [rarest, ...others] = few ? [] : ordered
  const only = [Prisma.sql`s.repository_id = ${repositoryOf(place)}`, ...searchedTimes(terms)]
  // Read in order, as far as the page and the count need.
  const within = (from: RowKey | null) =>
    rarest
      ? Prisma.sql`${rowsOf(lookAhead(rarest, others, only, { ...keyset, from }, Prisma.empty))} m
                   join artifacts.repositories r on r.id = m.repository_id`
      : artifacts
  const where = [
    Prisma.sql`m.repository_id = ${repositoryOf(place)} and ${listed}`,
    ...(few ? [Prisma.sql`m.id = any(array(${few}))`] : []),
    ...searchChecks(terms, scope),
  ]
  return readPage(
    db,
    {
      from: within(keyset.from),
      where,
      order: byPush,
      own: Prisma.sql`null as tag`,
      count:
        terms.length === 0
          ? Prisma.sql`(select artifacts.listed_up_to(${repositoryOf(place)}, ${number(MAX_COUNTED + 1)}))`
          : upTo(Prisma.sql`select from ${within(null)} where ${Prisma.join(where, ' and ')}`),
      isCommon: terms.length === 0,
    },
    keyset,
  )
}

/** The artifacts `looked` up one by one, in its order. */
const rowsOf = (looked: Prisma.Sql) => Prisma.sql`(
  select k.id, k.pushed_at, x.repository_id, x.digest, x.type, x.subject_digest, x.annotations, x.facts, x.deleted_at
    from (${looked}) k cross join lateral (select x.* from artifacts.manifests x where x.id = k.id offset 0) x)`

/** So many artifacts are looked at wherever they lie, and sorted. */
const FEW_ARTIFACTS = 4_000
/** So many are looked at in their order for one page: of what more than a few have, it is full by then when they are spread evenly. */
const LOOKED_AT = 6_000
/** So many ids are found, that only those have to be looked at which are in all of some sets. */
const MANY_ARTIFACTS = 30_000
const FEW_REPOSITORIES = 200

/** So far is looked ahead to tell which of two frequent terms is the rarer one. */
const AHEAD = 1_000

type Start = {
  /** Ids of the artifacts that have one of the terms, where few have it: the rarest first. */
  sets: Prisma.Sql[]
  /** Few repositories, in which all are. */
  repositories: number[] | null
  /** What is to be read in order, the rarest behind the place first, and whether that has more than was looked ahead. */
  ordered: OrderedTerm[]
  many: boolean
}
type OrderedTerm = readonly Ordered[]
type Asked = { sets: readonly Prisma.Sql[]; ordered: readonly OrderedTerm[]; named: Prisma.Sql | null }

const countUpTo = (set: Prisma.Sql, most: number) => Prisma.sql`(select count(*)::int from (${set} limit ${most}) s)`

/** Those sets that have not too many, the rarest first. One statement, none when there is no set. */
export async function rarestSets(
  { prisma }: Pick<Database, 'prisma'>,
  sets: readonly Prisma.Sql[],
): Promise<Prisma.Sql[]> {
  if (sets.length === 0) return []
  const [found] = await prisma.$queryRaw<[{ counts: number[] }]>`
    select array[${Prisma.join(sets.map((set) => countUpTo(set, MANY_ARTIFACTS + 1)))}] as counts`
  return sets
    .map((set, i) => ({ set, count: found.counts[i]! }))
    .filter(({ count }) => count <= MANY_ARTIFACTS)
    .toSorted((a, b) => a.count - b.count)
    .map(({ set }) => set)
}

/** How few artifacts or repositories are asked for, as far as an index tells. One statement, none when there is nothing to choose. */
async function startOf(
  { prisma }: Pick<Database, 'prisma'>,
  { sets, ordered, named }: Asked,
  keyset: Keyset,
): Promise<Start> {
  if (sets.length === 0 && named === null && ordered.length < 2) {
    return { sets: [], repositories: null, ordered: [...ordered], many: true }
  }
  const repositories = Prisma.sql`array(
    select r.id from artifacts.repositories r where r.deleted_at is null and ${named ?? Prisma.sql`false`} limit ${FEW_REPOSITORIES + 1})`
  const ofRepositories = listedBy(Prisma.sql`s.repository_id = any(${repositories})`)
  // What is in few repositories is looked for there, unless nothing else is asked for: then their lists are in order.
  const inFew =
    named !== null && sets.length + ordered.length > 0
      ? [Prisma.sql`select ${ofRepositories.id} from ${ofRepositories.from} where ${ofRepositories.where}`]
      : []
  const counts = [...inFew, ...sets].map((set, i) => countUpTo(set, i < inFew.length ? AHEAD : FEW_ARTIFACTS + 1))
  const ahead = ordered.map(
    (one) => Prisma.sql`(
      select jsonb_build_object('count', count(*), 'from', min(a.pushed_at), 'to', max(a.pushed_at))
        from (${inOrderOf(one, [], keyset)} limit ${AHEAD}) a)`,
  )
  const [found] = await prisma.$queryRaw<
    [{ counts: number[]; repositories: number[]; ahead: { count: number; from: string; to: string }[] }]
  >`
    select array[${Prisma.join([...counts, Prisma.sql`0`])}] as counts, ${repositories} as repositories,
           array[${Prisma.join([...ahead, Prisma.sql`null::jsonb`])}] as ahead`
  const isFew = named !== null && found.repositories.length <= FEW_REPOSITORIES
  const rarest = ordered
    .map((one, i) => {
      const { count, from, to } = found.ahead[i]!
      return { one, count, span: Date.parse(to) - Date.parse(from) }
    })
    .toSorted((a, b) => a.count - b.count || b.span - a.span)
  const [first] = rarest
  const most = first && first.count < AHEAD ? first.count : FEW_ARTIFACTS
  return {
    sets: [...inFew, ...sets]
      .map((set, i) => ({ set, count: found.counts[i]! }))
      .filter(({ count }, i) => (i < inFew.length ? isFew && count < Math.min(most, AHEAD) : count <= most))
      .toSorted((a, b) => a.count - b.count)
      .map(({ set }) => set),
    repositories: isFew ? found.repositories : null,
    ordered: rarest.map(({ one }) => one),
    many: (rarest[0]?.count ?? AHEAD) >= AHEAD,
  }
}

/**
 * Artifacts of these projects that a search finds, the one pushed last first. Nobody counts them. One statement, two when there is something to
 * choose, four at most when a page is not full although many have each of the terms. What no index tells is looked at up to a limit: then the page
 * says where it stopped.
 */
export async function foundPage(
  db: Reader,
  among: readonly { id: number; name: string }[],
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & { projectId: number; project: string }> | null> {
  const scope = { among, labels, ofTags: false }
  const place = placeOf(byPush, keyset)
  if (place === null) return null
  const read = (manifests: Prisma.Sql, { looked = null, each = null }: Pick<Source, 'looked' | 'each'>) =>
    readPage<ArtifactRow & { projectId: number; project: string }>(
      db,
      {
        each,
        looked,
        // Looked up one by one: read as a whole, the repositories cost more than the page.
        from: Prisma.sql`${manifests} m
          cross join lateral (select q.* from artifacts.repositories q where q.id = m.repository_id offset 0) r
          join unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as n (id, name) on n.id = r.project_id`,
        where: [Prisma.sql`r.deleted_at is null and ${listed}`, ...searchChecks(terms, scope)],
        order: byPush,
        own: Prisma.sql`r.project_id as "projectId", n.name as project`,
        count: null,
        isCommon: false,
      },
      keyset,
    )
  // In order first and looked at then, as far as the page needs.
  const lookedUp = (looked: Prisma.Sql) => read(rowsOf(Prisma.sql`${looked} limit ${LOOKED_AT}`), { looked })
  const times = searchedTimes(terms)
  const inOrder = Prisma.join(
    [Prisma.sql`s.subject_digest is null and s.deleted_at is null and ${behindOf(Prisma.sql`s.id`, keyset)}`, ...times],
    ' and ',
  )
  const sorted = sortedOf(Prisma.sql`s.id`, keyset)
  const inSets = (sets: readonly Prisma.Sql[]) =>
    lookedUp(Prisma.sql`
      select s.id, s.pushed_at from artifacts.manifests s
       where s.id = any(array(${Prisma.join(
         sets.map((set) => Prisma.sql`(${set})`),
         ' intersect ',
       )})) and ${inOrder}
       order by ${sorted}`)
  const near = (which: Prisma.Sql) =>
    lookedUp(
      Prisma.sql`select s.id, s.pushed_at from artifacts.manifests s where ${which} and ${inOrder} order by ${sorted}`,
    )
  const asked = { ...searchStarts(terms, scope), named: searchedRepositories(terms, scope) }
  const { sets, repositories, ordered, many } = await startOf(db, asked, keyset)
  if (sets.length > 0) return inSets(sets.slice(0, 1))
  const [repository] = repositories?.length === 1 ? repositories : []
  if (ordered.length > 0) {
    const only = repositories ? [...times, Prisma.sql`s.repository_id = any(${repositories}::int[])`] : times
    const [rarest, ...others] = ordered
    if (others.length === 0 && repositories === null) return lookedUp(inOrderOf(rarest!, only, keyset))
    const page = await lookedUp(lookAhead(rarest!, others, only, keyset, Prisma.sql`limit ${FEW_ARTIFACTS}`))
    if (page?.more || !many) return page
    const all =
      repository === undefined ? ordered : [...ordered, [listedBy(Prisma.sql`s.repository_id = ${repository}`)]]
    return lookedUp(sideBySide(all, only, keyset))
  }
  // A page of several repositories is put together of one of each.
  if (repositories !== null && repository === undefined)
    return read(Prisma.sql`artifacts.manifests`, { each: repositories })
  const page = await near(repository === undefined ? Prisma.sql`true` : Prisma.sql`s.repository_id = ${repository}`)
  if (!page?.stopped || asked.sets.length === 0) return page
  const few = await rarestSets(db, asked.sets)
  return few.length > 0 ? inSets(few) : page
}

const keyOf = (id: Prisma.Sql): Order => ({ columns: [Prisma.sql`s.pushed_at`, id], read: byPush.read })
const behindOf = (id: Prisma.Sql, keyset: Keyset) => placeOf(keyOf(id), keyset)!.behind
const sortedOf = (id: Prisma.Sql, keyset: Keyset) => placeOf(keyOf(id), keyset)!.sorted

/** What has one term, in the order of the page. */
function inOrderOf(parts: OrderedTerm, only: readonly Prisma.Sql[], keyset: Keyset): Prisma.Sql {
  const each = parts.map(
    ({ from, id, where }) => Prisma.sql`
      select s.pushed_at, ${id} as id, s.repository_id from ${from}
       where ${Prisma.join([where, behindOf(id, keyset), ...only], ' and ')} order by ${sortedOf(id, keyset)}`,
  )
  if (each.length === 1) return each[0]!
  // Each part is sorted, too: only then are they merged, and not all read first.
  const all =
    each.length === 0
      ? nothing
      : Prisma.join(
          each.map((part) => Prisma.sql`(${part})`),
          ' union all ',
        )
  return Prisma.sql`select s.* from (${all}) s order by ${sortedOf(Prisma.sql`s.id`, keyset)}`
}
const nothing = Prisma.sql`select now() as pushed_at, 0::bigint as id, 0 as repository_id where false`

/** What of one term, or of the next of it, has the others, too: each is looked up. */
function lookAhead(
  first: OrderedTerm,
  others: readonly OrderedTerm[],
  only: readonly Prisma.Sql[],
  keyset: Keyset,
  limit: Prisma.Sql,
) {
  const has = others.map((parts) =>
    parts.length === 0
      ? Prisma.sql`false`
      : Prisma.sql`(${Prisma.join(
          parts.map(
            ({ from, id, where }) => Prisma.sql`exists (
              select from ${from} where ${where} and s.pushed_at = k.pushed_at and ${id} = k.id offset 0)`,
          ),
          ' or ',
        )})`,
  )
  const { sorted } = placeOf(timeKey(Prisma.sql`k`), keyset)!
  return Prisma.sql`
    select k.id, k.pushed_at from (${inOrderOf(first, only, keyset)} ${limit}) k
     where ${Prisma.join([Prisma.sql`true`, ...has], ' and ')} order by ${sorted}`
}

/** What has all terms: the planner knows which are frequent, and reads them side by side or looks one up in the other. */
function sideBySide(all: readonly OrderedTerm[], only: readonly Prisma.Sql[], keyset: Keyset): Prisma.Sql {
  const [first, ...others] = all.map((one, i) => Prisma.sql`(${inOrderOf(one, only, keyset)}) ${Prisma.raw(`a${i}`)}`)
  const joined = others.map((one, i) => {
    const alias = Prisma.raw(`a${i + 1}`)
    return Prisma.sql`join ${one} on ${alias}.pushed_at = a0.pushed_at and ${alias}.id = a0.id`
  })
  const { sorted } = placeOf(timeKey(Prisma.sql`a0`), keyset)!
  return Prisma.sql`select a0.id, a0.pushed_at from ${Prisma.join([first!, ...joined], ' ')} order by ${sorted}`
}
