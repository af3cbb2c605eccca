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

// `offset 0`: as in artifact-rows.ts.
const columns = Prisma.sql`
  r.id, r.project_id as "projectId", p.name || '/' || r.path as name, r.description, r.pull_count::float8 as "pullCount",
  r.created_at as "createdAt", r.updated_at as "updatedAt",
  (select count(*)::int from artifacts.manifests m
    where m.repository_id = r.id and m.deleted_at is null and m.subject_digest is null
      and (not exists (select from artifacts.manifest_edges e join artifacts.manifests i on i.id = e.manifest_id and i.deleted_at is null
                        where e.repository_id = r.id and e.digest = m.digest and e.kind = 'child' offset 0)
           or exists (select from artifacts.tags t where t.manifest_id = m.id offset 0))) as "artifactCount"`

const listed = (among: readonly Named[]) => Prisma.sql`
  unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as p (id, name)
  join artifacts.repositories r on r.project_id = p.id and r.deleted_at is null and r.first_pushed_at is not null`

/** A page of the repositories among these projects, by name, and how many there are: two statements. */
export async function repositoryRows(
  { prisma }: Pick<Database, 'prisma'>,
  among: readonly Named[],
  query: RepositoryQuery,
): Promise<{ total: number; repositories: RepositoryDetails[] }> {
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
