import { escapeLike, statement, type Sql } from '@haven/db'
import type { ProjectNode } from './directory.ts'
import type { ProjectQuery } from './list-projects.ts'

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

const namedOfAll = statement<{ visible: null; named: number[] }>(
  'projects to search, all',
  `select null as visible, coalesce(array_agg(p.id), '{}') as named
     from projects.projects p where p.deleted_at is null and p.name ilike $1`,
)
const namedOfCaller = statement<{ visible: number[]; named: number[] }>(
  'projects to search',
  `select coalesce(array_agg(p.id), '{}') as visible, coalesce(array_agg(p.id) filter (where p.name ilike $3), '{}') as named
     from projects.projects p where ${ofCaller}`,
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
  const found =
    visible === 'all'
      ? await sql.one(namedOfAll, [pattern])
      : await sql.one(namedOfCaller, [visible.ids, visible.public, pattern])
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
