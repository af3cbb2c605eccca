import {
  conditionsToSql,
  fieldOf,
  listKept,
  listRows,
  orderOf,
  Prisma,
  statement,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { nameHolds, repositoryMatches } from './search-sql.ts'

export type RepositoryDetails = {
  id: number
  projectId: number
  /** Project first. */
  name: string
  description: string
  /** Without what is only there for an index, and what hangs on another artifact. */
  artifactCount: number
  pullCount: number
  createdAt: Date
  updatedAt: Date
}

export type RepositoryQuery = { conditions?: readonly Condition[]; sort?: readonly Sort[]; page: Page }
type Named = { id: number; name: string }

const fields: Fields = {
  id: { column: Prisma.sql`r.id`, type: 'number' },
  project_id: { column: Prisma.sql`r.project_id`, type: 'number' },
  name: { column: Prisma.sql`(p.name || '/' || r.path)`, type: 'text' },
  description: { column: Prisma.sql`r.description`, type: 'text' },
  pull_count: { column: Prisma.sql`r.pull_count`, type: 'number' },
  creation_time: { column: Prisma.sql`r.created_at`, type: 'time' },
  update_time: { column: Prisma.sql`r.updated_at`, type: 'time' },
}

const columns = Prisma.sql`
  r.id, r.project_id as "projectId", p.name || '/' || r.path as name, r.description, r.pull_count::float8 as "pullCount",
  r.created_at as "createdAt", r.updated_at as "updatedAt",
  artifacts.total_listed(r.id)::int as "artifactCount"`

// An empty page is a row of nulls, which tells the total.
const pageByName = statement<{ total: number } & (RepositoryDetails | { id: null })>(
  'repositories by name',
  `select page.total::float8 as total, ${columns.sql}
     from artifacts.page_listed_repositories($1::int[], $3, $4) page
     left join unnest(page.ids) with ordinality u (id, place) on true
     left join artifacts.repositories r on r.id = u.id
     left join unnest($1::int[], $2::text[]) p (id, name) on p.id = r.project_id
    order by u.place`,
)
const listedTotal = statement<{ total: number }>(
  'repositories total',
  'select total::float8 as total from artifacts.page_listed_repositories($1::int[], 0, 0)',
)

const isListed = Prisma.sql`r.deleted_at is null and r.first_pushed_at is not null`
const listed = (among: readonly Named[]) => {
  const [only] = among
  // Of one project by its id: then indexes have its repositories in order.
  return among.length === 1 && only
    ? Prisma.sql`artifacts.repositories r join (select ${only.id}::int as id, ${only.name}::text as name offset 0) p on r.project_id = ${only.id} and ${isListed}`
    : Prisma.sql`unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as p (id, name)
                 join artifacts.repositories r on r.project_id = p.id and ${isListed}`
}

/** So many projects are asked one by one how many repositories they list. */
const FEW_PROJECTS = 100

/** What of a repository stays as long as it is listed under the same name. */
const lasting = [fields.name, fields.id, fields.project_id, fields.creation_time]

/**
 * A page of the repositories among these projects, and how many there are: one statement in the order of their names, else two; one more for those of
 * one project by a part of their names, which are remembered.
 */
export async function repositoryRows(
  db: Pick<Database, 'prisma' | 'lists' | 'writes'>,
  among: readonly Named[],
  query: RepositoryQuery,
): Promise<{ total: number; repositories: RepositoryDetails[] }> {
  const { sort = [], page } = query
  const where = (query.conditions ?? []).flatMap((condition) => holds(condition, among))
  // Of one project by an index.
  const name = among.length === 1 ? Prisma.sql`r.path` : Prisma.sql`(p.name || '/' || r.path) collate "C"`
  const byName = [{ column: name, descending: false }]
  const order = orderOf(sort, fields, byName, Prisma.sql`r.id`)
  const listing = { columns, from: listed(among), order, page }
  if (where.length > 0 || page.size === 0 || among.length === 0 || among.length > FEW_PROJECTS) {
    const found = { ...listing, where: where.length === 0 ? [Prisma.sql`true`] : where }
    const lasts = [...(query.conditions ?? []), ...sort].every(({ field }) => {
      const known = fieldOf(fields, field)
      return known === undefined || lasting.includes(known)
    })
    const stamp = lasts && page.size > 0 && among.length === 1 ? await stampOf(db, among[0]!.id) : null
    const { total, rows } = await (stamp === null
      ? listRows<RepositoryDetails>(db.prisma, found)
      : listKept<RepositoryDetails>(db, { ...found, tables: [], besides: stamp }))
    return { total, repositories: rows }
  }
  // With the slash, since `a-b/x` comes before `a/x`; so whole projects follow each other. In this order they are locked, too, where one is counted anew.
  const inOrder = among.toSorted((a, b) => (`${a.name}/` < `${b.name}/` ? -1 : 1))
  if (order[0]!.column === byName[0]!.column) return readByName(db, inOrder, page)
  const counted = await db.writes.one(listedTotal, [inOrder.map(({ id }) => id)])
  const counts = [{ from: 0, rows: counted!.total }]
  const { rows } = await listRows<RepositoryDetails>(db.prisma, { ...listing, where: [Prisma.sql`true`], counts })
  return { total: counted!.total, repositories: rows }
}

/** Another text when a project lists others; null where there are few. */
async function stampOf({ prisma }: Pick<Database, 'prisma'>, projectId: number): Promise<string | null> {
  const [found] = await prisma.$queryRaw<[{ stamp: string | null }]>`
    select artifacts.listed_repositories_stamp(${projectId}::int) as stamp`
  return found.stamp
}

/** Whole names are no column: what they say of the path is found by its indexes. */
function holds(condition: Condition, among: readonly Named[]): Prisma.Sql[] {
  if (fieldOf(fields, condition.field) === fields.name) {
    if (condition.match === 'exact') return [repositoryMatches([condition.value], among)]
    if (condition.match === 'contains') {
      const text = condition.value.toLowerCase()
      // What is in the name of each project is in that of each repository.
      if (among.every(({ name }) => name.toLowerCase().includes(text))) return []
      return [nameHolds(condition.value, among, Prisma.sql`r`)]
    }
  }
  return conditionsToSql([condition], fields)
}

async function readByName(
  { writes }: Pick<Database, 'writes'>,
  inOrder: readonly Named[],
  { number, size }: Page,
): Promise<{ total: number; repositories: RepositoryDetails[] }> {
  const [ids, names] = [inOrder.map(({ id }) => id), inOrder.map(({ name }) => name)]
  const rows = await writes.rows(pageByName, [ids, names, (number - 1) * size, size])
  return { total: rows[0]!.total, repositories: rows.flatMap((row) => (row.id === null ? [] : [row])) }
}

/** Null when there is none, or nothing was pushed to it yet. */
export async function repositoryRow(
  { prisma }: Pick<Database, 'prisma'>,
  project: Named,
  path: string,
): Promise<RepositoryDetails | null> {
  const [row] = await prisma.$queryRaw<RepositoryDetails[]>`
    select ${columns} from ${listed([project])} where r.path = ${path}`
  return row ?? null
}
