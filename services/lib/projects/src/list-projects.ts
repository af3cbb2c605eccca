import {
  conditionsToSql,
  escapeLike,
  listKept,
  listKeys,
  orderOf,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import type { ProjectDeps, Transaction } from './deps.ts'
import type { ProjectNode } from './directory.ts'

export type ProjectDetails = ProjectNode & {
  ownerId: number
  registryId: number | null
  updatedAt: Date
  metadata: Record<string, string>
  allowlist: { items: string[]; expiresAt: Date | null }
}

export type ProjectQuery = {
  /** What the caller may see: everything, or these projects and, if `public`, all public ones. */
  visible: 'all' | { ids: readonly number[]; public: boolean }
  /** Part of the name, whatever its case. */
  name?: string
  /** Part of the name, in its case. */
  nameAsWritten?: string
  public?: boolean
  /** Projects of one of these owners. */
  ownerIds?: readonly number[]
  conditions?: readonly Condition[]
  sort?: readonly Sort[]
  page: Page
}

const fields: Fields = {
  project_id: { column: Prisma.sql`p.id`, type: 'number' },
  name: { column: Prisma.sql`p.name`, type: 'text' },
  owner_id: { column: Prisma.sql`p.owner_id`, type: 'number' },
  registry_id: { column: Prisma.sql`p.registry_id`, type: 'number' },
  creation_time: { column: Prisma.sql`p.created_at`, type: 'time' },
  update_time: { column: Prisma.sql`p.updated_at`, type: 'time' },
}

type Row = {
  id: number
  name: string
  owner_id: number
  registry_id: number | null
  created_at: Date
  updated_at: Date
  metadata: Record<string, string>
  cve_items: string[] | null
  cve_expires_at: Date | null
}

const columns = Prisma.sql`
  p.id, p.name, p.owner_id, p.registry_id, p.created_at, p.updated_at,
  coalesce((select jsonb_object_agg(m.name, m.value) from projects.project_metadata m where m.project_id = p.id), '{}') as metadata,
  c.items as cve_items, c.expires_at as cve_expires_at`
const from = Prisma.sql`projects.projects p left join projects.cve_allowlists c on c.project_id = p.id`

const isPublic = Prisma.sql`exists (
  select from projects.project_metadata v where v.project_id = p.id and v.name = 'public' and v.value = 'true')`

/** All that says which projects are listed, and in which order. */
const tables = ['projects.projects', 'projects.project_metadata']

/** A page of projects and how many there are in all. */
export async function listProjects(
  db: Pick<Database, 'prisma' | 'lists'>,
  query: ProjectQuery,
): Promise<{ total: number; projects: ProjectDetails[] }> {
  const { total, rows } = await listKept<Row>(db, {
    columns,
    from,
    where: [
      Prisma.sql`p.deleted_at is null`,
      ...(query.visible === 'all' ? [] : [visibleTo(query.visible)]),
      ...(query.name ? [Prisma.sql`p.name ilike ${`%${escapeLike(query.name)}%`}`] : []),
      ...(query.nameAsWritten ? [Prisma.sql`p.name like ${`%${escapeLike(query.nameAsWritten)}%`}`] : []),
      ...(query.public === undefined ? [] : [query.public ? isPublic : Prisma.sql`not ${isPublic}`]),
      ...(query.ownerIds ? [Prisma.sql`p.owner_id = any(${[...query.ownerIds]}::int[])`] : []),
      ...conditionsToSql(query.conditions ?? [], fields),
    ],
    order: orderOf(query.sort ?? [], fields, [{ column: Prisma.sql`p.name`, descending: false }], Prisma.sql`p.id`),
    page: query.page,
    tables,
  })
  return { total, projects: rows.map(toDetails) }
}

/** The ids of all projects that a caller may see, as far as `conditions` let them; remembered until a project changes. */
export const projectKeys = (
  db: Pick<Database, 'prisma' | 'lists'>,
  visible: ProjectQuery['visible'],
  conditions: readonly Prisma.Sql[] = [],
): Promise<Int32Array> =>
  listKeys(db, {
    from: Prisma.sql`projects.projects p`,
    where: [Prisma.sql`p.deleted_at is null`, ...(visible === 'all' ? [] : [visibleTo(visible)]), ...conditions],
    order: [{ column: Prisma.sql`p.id`, descending: false }],
    tables,
  })

const visibleTo = ({ ids, public: publicToo }: { ids: readonly number[]; public: boolean }) => {
  const named = Prisma.sql`select unnest(${[...ids]}::int[])`
  if (!publicToo) return Prisma.sql`p.id in (${named})`
  return Prisma.sql`p.id in (${named} union
    select v.project_id from projects.project_metadata v where v.name = 'public' and v.value = 'true')`
}

/** A project as it is now, past every cache. */
export async function readProject(
  { prisma }: Pick<Database, 'prisma'> | { prisma: Transaction },
  id: number,
): Promise<ProjectDetails | null> {
  const [row] = await prisma.$queryRaw<Row[]>`
    select ${columns} from ${from} where p.id = ${id} and p.deleted_at is null`
  return row ? toDetails(row) : null
}

const toDetails = (row: Row): ProjectDetails => ({
  id: row.id,
  name: row.name,
  public: row.metadata.public === 'true',
  ownerId: row.owner_id,
  registryId: row.registry_id,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
  metadata: row.metadata,
  allowlist: { items: row.cve_items ?? [], expiresAt: row.cve_expires_at },
})

/** Names of projects by id, deleted ones included: for lists that refer to them. */
export async function projectNames(
  { db }: Pick<ProjectDeps, 'db'>,
  ids: readonly number[],
): Promise<Map<number, string>> {
  const rows = await db.prisma.project.findMany({ where: { id: { in: [...ids] } }, select: { id: true, name: true } })
  return new Map(rows.map((row) => [row.id, row.name]))
}
