import { Prisma, type Database } from '@haven/db'
import { byPush, placeOf, timeKey, type Keyset, type Order } from './row-pages.ts'
import { listedBy, type Ordered } from './search-sql.ts'

/** So many artifacts are looked at wherever they lie, and sorted. */
export const FEW_ARTIFACTS = 4_000
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
export async function startOf(
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

const keyOf = (id: Prisma.Sql): Order => ({ columns: [Prisma.sql`s.pushed_at`, id], read: byPush.read })
export const behindOf = (id: Prisma.Sql, keyset: Keyset) => placeOf(keyOf(id), keyset)!.behind
export const sortedOf = (id: Prisma.Sql, keyset: Keyset) => placeOf(keyOf(id), keyset)!.sorted

/** What has one term, in the order of the page. */
export function inOrderOf(parts: OrderedTerm, only: readonly Prisma.Sql[], keyset: Keyset): Prisma.Sql {
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
export function lookAhead(
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
export function sideBySide(all: readonly OrderedTerm[], only: readonly Prisma.Sql[], keyset: Keyset): Prisma.Sql {
  const [first, ...others] = all.map((one, i) => Prisma.sql`(${inOrderOf(one, only, keyset)}) ${Prisma.raw(`a${i}`)}`)
  const joined = others.map((one, i) => {
    const alias = Prisma.raw(`a${i + 1}`)
    return Prisma.sql`join ${one} on ${alias}.pushed_at = a0.pushed_at and ${alias}.id = a0.id`
  })
  const { sorted } = placeOf(timeKey(Prisma.sql`a0`), keyset)!
  return Prisma.sql`select a0.id, a0.pushed_at from ${Prisma.join([first!, ...joined], ' ')} order by ${sorted}`
}
