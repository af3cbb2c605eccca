import { escapeLike, Prisma, statement, type Database, type Sql } from '@haven/db'
import type { ProjectNode } from './directory.ts'
import { projectKeys, type ProjectQuery } from './list-projects.ts'

const isPublic = `v.name = 'public' and v.value = 'true'`
const projects = `projects.projects p left join projects.project_metadata v on v.project_id = p.id and ${isPublic}`
/** Those of a caller: $1 and, if $2, all public ones. */
const ofCaller = `p.deleted_at is null and p.id in (
  select unnest($1::int[]) union select v.project_id from projects.project_metadata v where $2 and ${isPublic})`

const everybodys = statement<{ public: number[]; private: number[] }>(
  'projects by visibility, all',
  byVisibility('p.deleted_at is null'),
)
const callers = statement<{ public: number[]; private: number[] }>('projects by visibility', byVisibility(ofCaller))

function byVisibility(rule: string): string {
  return `select coalesce(array_agg(p.id) filter (where v.value is not null), '{}') as public,
                 coalesce(array_agg(p.id) filter (where v.value is null), '{}') as private
            from ${projects} where ${rule}`
}

/** Ids of the projects that a caller may see, by whether everybody may. */
export const projectIdsByVisibility = async (
  sql: Sql,
  visible: ProjectQuery['visible'],
): Promise<{ public: number[]; private: number[] }> =>
  (visible === 'all' ? await sql.one(everybodys, []) : await sql.one(callers, [visible.ids, visible.public])) ?? {
    public: [],
    private: [],
  }

/**
 * Where repositories are to be searched by a part of their whole name: `visible` to the caller (null: everywhere), and `named`, those
 * whose own name holds the part or, when the part goes on behind a slash, ends with what stands before it.
 */
export async function projectsToSearch(
  db: Pick<Database, 'prisma' | 'lists'>,
  visible: ProjectQuery['visible'],
  part: string,
): Promise<{ visible: number[] | null; named: number[] }> {
  const [before = '', ...more] = part.split('/')
  const name = Prisma.sql`p.name ilike ${more.length === 0 ? `%${escapeLike(before)}%` : `%${escapeLike(before)}`}`
  const [all, named] = await Promise.all([
    visible === 'all' ? null : projectKeys(db, visible),
    projectKeys(db, visible, [name]),
  ])
  return { visible: all && [...all], named: [...named] }
}

const nodes = statement<Pick<ProjectNode, 'id' | 'name' | 'public'>>(
  'projects named',
  `select p.id, p.name, v.value is not null as public from ${projects} where p.id = any($1::int[])`,
)

/** Name and visibility of projects, by id. */
export async function projectNodes(
  sql: Sql,
  ids: readonly number[],
): Promise<Map<number, Pick<ProjectNode, 'id' | 'name' | 'public'>>> {
  const rows = await sql.rows(nodes, [[...new Set(ids)]])
  return new Map(rows.map((row) => [row.id, row]))
}
