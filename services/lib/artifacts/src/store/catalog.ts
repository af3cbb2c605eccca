import { statement, type Sql } from '@haven/db'

const projects = statement<{ id: number }>(
  'catalog projects',
  `select distinct project_id as id from artifacts.repositories where deleted_at is null and first_pushed_at is not null`,
)
const page = statement<{ projectId: number; path: string }>(
  'catalog page',
  `select p.id as "projectId", r.path
     from unnest($1::int[]) with ordinality as p (id, position)
     join artifacts.repositories r on r.project_id = p.id
    where r.deleted_at is null and r.first_pushed_at is not null
      and (p.position > 1 or $2::text is null or r.path collate "C" > $2)
      and exists (select from artifacts.manifests m where m.repository_id = r.id and m.deleted_at is null)
    order by p.position, r.path collate "C" limit $3`,
)

/** Projects that have a repository to list. */
export const cataloguedProjects = async (sql: Sql): Promise<number[]> =>
  (await sql.rows(projects, [])).map(({ id }) => id)

/** Repositories that have an artifact, of these projects in this order; of the first only those after `after`. */
export const cataloguePage = (sql: Sql, projectIds: readonly number[], after: string | null, limit: number) =>
  sql.rows(page, [projectIds, after, limit])
