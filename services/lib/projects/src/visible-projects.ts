import { escapeLike, statement, type Sql } from '@haven/db'
import type { ProjectNode } from './directory.ts'
import type { ProjectQuery } from './list-projects.ts'

/** `ids` null: every project. */
const rule = `p.deleted_at is null and ($1::int[] is null or p.id in (select unnest($1)) or ($2 and v.value is not null))`
const projects = `projects.projects p left join projects.project_metadata v
    on v.project_id = p.id and v.name = 'public' and v.value = 'true'`

const parametersOf = (visible: ProjectQuery['visible']) =>
  visible === 'all' ? [null, true] : [visible.ids, visible.public]

const byVisibility = statement<{ public: number[]; private: number[] }>(
  'projects by visibility',
  `select coalesce(array_agg(p.id) filter (where v.value is not null), '{}') as public,
          coalesce(array_agg(p.id) filter (where v.value is null), '{}') as private
     from ${projects} where ${rule}`,
)

/** Ids of the projects that a caller may see, by whether everybody may. */
export const projectIdsByVisibility = async (
  sql: Sql,
  visible: ProjectQuery['visible'],
): Promise<{ public: number[]; private: number[] }> =>
  (await sql.one(byVisibility, parametersOf(visible))) ?? { public: [], private: [] }

const toSearch = statement<{ visible: number[] | null; named: number[] }>(
  'projects to search',
  `select case when $1::int[] is null then null else coalesce(array_agg(p.id), '{}') end as visible,
          coalesce(array_agg(p.id) filter (where p.name ilike $3), '{}') as named
     from ${projects} where ${rule}`,
)

/**
 * Where repositories are to be searched by a part of their whole name: `visible` to the caller (null: everywhere), and `named`, those
 * whose own name holds the part or, when the part goes on behind a slash, ends with what stands before it.
 */
export async function projectsToSearch(
  sql: Sql,
  visible: ProjectQuery['visible'],
  part: string,
): Promise<{ visible: number[] | null; named: number[] }> {
  const [before = '', ...more] = part.split('/')
  const pattern = more.length === 0 ? `%${escapeLike(before)}%` : `%${escapeLike(before)}`
  const found = await sql.one(toSearch, [...parametersOf(visible), pattern])
  return found ?? { visible: [], named: [] }
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
