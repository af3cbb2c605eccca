import {
  conditionsToSql,
  orderToSql,
  pageToSql,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'

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

const listed = (among: readonly Named[]) => Prisma.sql`
  unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as p (id, name)
  join artifacts.repositories r on r.project_id = p.id and r.deleted_at is null and r.first_pushed_at is not null`

/** So many projects are asked one by one how many repositories they list. */
const FEW_PROJECTS = 100

/** A page of the repositories among these projects, by name, and how many there are: two statements. */
export async function repositoryRows(
  { prisma }: Pick<Database, 'prisma'>,
  among: readonly Named[],
  query: RepositoryQuery,
): Promise<{ total: number; repositories: RepositoryDetails[] }> {
  if (isPlain(among, query)) return plainRows({ prisma }, among, query.page)
  const where = Prisma.join([Prisma.sql`true`, ...conditionsToSql(query.conditions ?? [], fields)], ' and ')
  const order = orderToSql(
    query.sort ?? [],
    fields,
    Prisma.sql`(p.name || '/' || r.path) collate "C"`,
    Prisma.sql`r.id`,
  )
  const [repositories, [count]] = await Promise.all([
    // Artifacts are counted for the repositories of the page only.
    prisma.$queryRaw<RepositoryDetails[]>`
      select ${columns}
        from (select r.id, p.name as project, row_number() over (order by ${order}) as place
                from ${listed(among)} where ${where} order by ${order} ${pageToSql(query.page)}) x
        join artifacts.repositories r on r.id = x.id
        cross join lateral (select x.project as name) p
       order by x.place`,
    prisma.$queryRaw<[{ total: bigint }]>`select count(*) as total from ${listed(among)} where ${where}`,
  ])
  return { total: Number(count.total), repositories }
}

/** All of them by name: their parts are counted already. */
const isPlain = (among: readonly Named[], { conditions = [], sort = [], page }: RepositoryQuery) =>
  among.length <= FEW_PROJECTS && conditions.length === 0 && sort.length === 0 && page.size > 0

async function plainRows(
  { prisma }: Pick<Database, 'prisma'>,
  among: readonly Named[],
  { number, size }: Page,
): Promise<{ total: number; repositories: RepositoryDetails[] }> {
  // With the slash, since `a-b/x` comes before `a/x`; so whole projects follow each other.
  const ordered = among.toSorted((a, b) => (`${a.name}/` < `${b.name}/` ? -1 : 1))
  const counts = await prisma.$queryRaw<{ total: number }[]>`
    select f.total::float8 as total
      from unnest(${ordered.map(({ id }) => id)}::int[]) with ordinality p (id, place), lateral artifacts.find_listed_repositories(p.id, 0) f
     order by p.place`
  let before = 0
  const parts = ordered.flatMap(({ id, name }, i) => {
    const from = Math.max((number - 1) * size - before, 0)
    const to = Math.min(number * size - before, counts[i]!.total)
    before += counts[i]!.total
    return from < to ? [{ id, name, from, count: to - from }] : []
  })
  const repositories = await prisma.$queryRaw<RepositoryDetails[]>`
    select ${columns}
      from unnest(${parts.map(({ id }) => id)}::int[], ${parts.map(({ name }) => name)}::text[], ${parts.map(({ from }) => from)}::bigint[],
                  ${parts.map(({ count }) => count)}::bigint[]) with ordinality p (id, name, skipped, count, place)
      cross join lateral artifacts.find_listed_repositories(p.id, p.skipped) f
      cross join lateral (
        select r.* from artifacts.repositories r
         where r.project_id = p.id and r.path >= f.from_path and r.deleted_at is null and r.first_pushed_at is not null
         order by r.path limit p.count offset f.rest) r
     order by p.place, r.path`
  return { total: before, repositories }
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
