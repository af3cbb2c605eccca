import {
  fieldOf,
  keyOfList,
  orderToSql,
  pageToSql,
  Prisma,
  type Condition,
  type Database,
  type Page,
  type Sort,
} from '@haven/db'
import type { Reference } from '@haven/oci'
import { allReferences, columns, type ArtifactParts, type ArtifactRow } from './artifact-columns.ts'
import {
  allShown,
  fieldsOf,
  findsFew,
  from,
  hasField,
  inPlace,
  lastPull,
  matching,
  ofIds,
  oneByOne,
  repositoriesOf,
  shown,
  sourceOfAll,
  within,
  type Place,
} from './artifact-conditions.ts'
import { rememberedKeys, type RememberedList } from './remembered-lists.ts'

export type ArtifactQuery = ArtifactParts & {
  conditions?: readonly Condition[]
  sort?: readonly Sort[]
  page: Page
  /** Of each repository only the artifact that was pushed last. */
  latest?: boolean
}

/** What of a repository's list is counted by its parts: all of it, what has a tag or none, what was pushed from a time until before another. */
type Listed = { tagged: boolean | null; since: Date | null; until: Date | null; oldestFirst: boolean }

/** How a list is read by its parts; null when it asks for more than they tell. */
function listedOf(place: Place, { conditions = [], sort = [], latest = false, page }: ArtifactQuery): Listed | null {
  if (place.path === undefined || latest || page.size === 0) return null
  const fields = fieldsOf(place)
  const sorted = sort.filter(({ field }) => fieldOf(fields, field))
  if (sorted.length > 1 || sorted.some(({ field }) => fieldOf(fields, field) !== fields.push_time)) return null
  const listed: Listed = { tagged: null, since: null, until: null, oldestFirst: sorted[0]?.descending === false }
  for (const condition of conditions) {
    if (condition.field === 'tags' && condition.match === 'exact' && ['*', 'nil'].includes(condition.value)) {
      const tagged = condition.value === '*'
      if (listed.tagged === !tagged) return null
      listed.tagged = tagged
    } else if (fieldOf(fields, condition.field) === fields.push_time && condition.match === 'range') {
      const { min, max, exclusive = false } = condition
      if ([min, max].some((time) => time !== undefined && !(time instanceof Date))) return null
      // Times have milliseconds.
      if (min instanceof Date) listed.since = latestOf(listed.since, new Date(min.getTime() + (exclusive ? 1 : 0)))
      if (max instanceof Date) listed.until = earliestOf(listed.until, new Date(max.getTime() + (exclusive ? 0 : 1)))
    } else if (hasField(place, condition.field)) return null
  }
  return listed
}

const latestOf = (a: Date | null, b: Date) => (a && a > b ? a : b)
const earliestOf = (a: Date | null, b: Date) => (a && a < b ? a : b)

/** No repository has as many, and Postgres counts the members of an array in an int4. */
const MAX_SKIPPED = 2 ** 30

/** A repository that is not there has none. */
async function pageListed(
  { prisma }: Pick<Database, 'prisma'>,
  place: Place,
  { number, size }: Page,
  { tagged, since, until, oldestFirst }: Listed,
): Promise<{ total: number; ids: bigint[] }> {
  const skipped = Math.min((number - 1) * size, MAX_SKIPPED)
  const [found] = await prisma.$queryRaw<{ total: number; ids: bigint[] }[]>`
    select f.total::float8 as total, f.ids
      from (${repositoriesOf(place)}) r,
           lateral artifacts.page_listed(r.id, ${skipped}::bigint, ${size}::bigint, ${oldestFirst}::boolean, ${tagged}::boolean,
                                         coalesce(${since}::timestamptz, '-infinity'), coalesce(${until}::timestamptz, 'infinity')) f`
  return found ?? { total: 0, ids: [] }
}

// Of each repository the artifact that was pushed last, of those that match; of one that holds platforms only, Harbor tells the last of those.
const newestOf = (place: Place, conditions: readonly Condition[]) => Prisma.sql`
  cross join lateral (select m.* from artifacts.manifests m
                       where m.repository_id = r.id and m.deleted_at is null and ${Prisma.join(matching(place, conditions), ' and ')}
                       order by m.pushed_at desc, m.id desc limit 1) m`

const newestOfEach = (place: Place, conditions: readonly Condition[]) =>
  Prisma.sql`artifacts.repositories r ${newestOf(place, conditions)} where ${inPlace(place)}`

/** A list as it is remembered. Null where it is asked for without pages. */
function rememberedOf(
  place: Place,
  { conditions = [], sort = [], latest = false, page }: ArtifactQuery,
): RememberedList | null {
  const fields = fieldsOf(place)
  if (page.size === 0) return null
  const byPulls = [...conditions, ...sort].some(({ field }) => fieldOf(fields, field) === fields.pull_time)
  const orderBy = (pulled: Prisma.Sql) =>
    orderToSql(sort, fieldsOf(place, pulled), Prisma.sql`m.pushed_at desc`, Prisma.sql`m.id desc`)
  const order = orderBy(lastPull)
  const name = keyOfList(Prisma.sql`${latest} ${shown(place, conditions, oneByOne)} ${order}`)
  const scope = inPlace(place)
  if (latest) {
    const newest = Prisma.sql`select r.id as key from ${newestOfEach(place, conditions)}`
    return {
      name,
      scope,
      byPulls,
      keys: 'repositories',
      isLong: true,
      whole: Prisma.sql`${newest} order by ${order}`,
      among: (keys) => Prisma.sql`${newest} and r.id = any(${[...keys]}::int[]) order by ${order}`,
    }
  }
  return {
    name,
    scope,
    byPulls,
    keys: 'manifests',
    isLong: !conditions.some((condition) => findsFew(condition, fields)),
    whole: Prisma.sql`select m.id as key from ${allShown(place, conditions)} order by ${orderBy(sourceOfAll(place, conditions).pulled)}`,
    among: (keys) => Prisma.sql`select m.id as key from ${shown(place, conditions, ofIds(keys))} order by ${order}`,
  }
}

/**
 * A page of a project's or repository's artifacts, and how many there are: two statements, however much hangs on them, and a few more when what
 * was listed before has changed (rememberedKeys). Accessories are not listed, nor what is only there for the sake of an index; `base=*` lists those.
 */
export async function artifactRows(
  db: Pick<Database, 'prisma' | 'lists'>,
  place: Place,
  query: ArtifactQuery,
): Promise<{ total: number; rows: ArtifactRow[] }> {
  const { conditions = [], latest = false, page } = query
  // Materialized, so that what hangs on an artifact is looked up for those of the page and no others.
  const read = (places: Prisma.Sql) => db.prisma.$queryRaw<ArtifactRow[]>`
    with page as materialized (${places})
    select ${columns(query)}
      from page p join artifacts.manifests m on m.id = p.id join artifacts.repositories r on r.id = m.repository_id
     where m.deleted_at is null
     order by p.place`
  const readIds = (ids: readonly bigint[]) =>
    read(Prisma.sql`select * from unnest(${[...ids]}::bigint[]) with ordinality as f (id, place)`)
  const listed = listedOf(place, query)
  if (listed) {
    const { total, ids } = await pageListed(db, place, page, listed)
    return { total, rows: ids.length === 0 ? [] : await readIds(ids) }
  }
  const remembered = rememberedOf(place, query)
  const keys = remembered && (await rememberedKeys(db, remembered))
  if (!keys) return readWhole(db, place, query, read)
  const [total, offset] = [keys.length, (page.number - 1) * page.size]
  const some = [...keys.subarray(offset, offset + page.size)]
  if (some.length === 0) return { total, rows: [] }
  const rows = latest
    ? await read(Prisma.sql`
        select m.id, k.place
          from unnest(${some}::int[]) with ordinality as k (id, place) join artifacts.repositories r on r.id = k.id
               ${newestOf(place, conditions)}`)
    : await readIds(some.map(BigInt))
  return { total, rows }
}

/** A list that is not remembered: all that match are looked at, for their number and to find the page. */
async function readWhole(
  db: Pick<Database, 'prisma'>,
  place: Place,
  query: ArtifactQuery,
  read: (page: Prisma.Sql) => Promise<ArtifactRow[]>,
): Promise<{ total: number; rows: ArtifactRow[] }> {
  const { conditions = [], latest = false } = query
  const order = orderToSql(query.sort ?? [], fieldsOf(place), Prisma.sql`m.pushed_at desc`, Prisma.sql`m.id desc`)
  const counted = listedOf(place, { ...query, page: { number: 1, size: 1 }, sort: [] })
  const count = async () => {
    if (counted) return (await pageListed(db, place, { number: 1, size: 0 }, counted)).total
    const [{ total }] = await db.prisma.$queryRaw<[{ total: bigint }]>`
      select count(*) as total from ${latest ? newestOfEach(place, conditions) : allShown(place, conditions)}`
    return Number(total)
  }
  const [rows, total] = await Promise.all([
    read(Prisma.sql`
      select f.id, row_number() over () as place
        from (select m.id from ${latest ? newestOfEach(place, conditions) : shown(place, conditions, oneByOne)} order by ${order} ${pageToSql(query.page)}) f`),
    count(),
  ])
  return { total, rows }
}

/** One artifact, whatever it is: accessories and children too. Null when there is none. */
export async function artifactRow(
  { prisma }: Pick<Database, 'prisma'>,
  place: Required<Place>,
  reference: Reference,
  parts: ArtifactParts,
): Promise<ArtifactRow | null> {
  const one =
    reference.tag === undefined
      ? Prisma.sql`m.digest = ${reference.digest}`
      : Prisma.sql`m.id = (select t.manifest_id from artifacts.tags t where t.repository_id = r.id and t.name = ${reference.tag})`
  const [row] = await prisma.$queryRaw<ArtifactRow[]>`
    select ${columns(parts, allReferences)} from ${from} where ${within(place)} and ${one}`
  return row ?? null
}
