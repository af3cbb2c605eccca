import { statement, type Sql } from '@haven/db'

// From one project to the next by the index, since a `distinct` reads every repository.
const projects = statement<{ id: number }>(
  'catalog projects',
  `with recursive listed (id) as (
     (select project_id from artifacts.repositories where deleted_at is null and first_pushed_at is not null order by project_id limit 1)
     union all
     select (select r.project_id from artifacts.repositories r
              where r.project_id > l.id and r.deleted_at is null and r.first_pushed_at is not null
              order by r.project_id limit 1)
       from listed l where l.id is not null)
   select id from listed where id is not null`,
)
// No more than a page of each project: a large one is not read to its end for the sake of the order. Behind selects, as the list of tags is;
// `offset 0`: looked for one at a time, where a join for any page might read the manifests of all.
const page = statement<{ projectId: number; path: string }>(
  'catalog page',
  `select p.id as "projectId", r.path
     from unnest((select $1::int[])) with ordinality as p (id, position),
          lateral (
            select r.path from artifacts.repositories r
             where r.project_id = p.id and r.deleted_at is null and r.first_pushed_at is not null
               and r.path collate "C" > case when p.position = 1 then (select coalesce($2::text, '')) else '' end
               and exists (select from artifacts.manifests m where m.repository_id = r.id and m.deleted_at is null offset 0)
             order by r.path collate "C" limit (select $3::int)) r
    order by p.position, r.path collate "C" limit (select $3::int)`,
)

/** Projects that have a repository to list. */
export const cataloguedProjects = async (sql: Sql): Promise<number[]> =>
  (await sql.rows(projects, [])).map(({ id }) => id)

/** Repositories that have an artifact, of these projects in this order; of the first only those after `after`. */
export const cataloguePage = (sql: Sql, projectIds: readonly number[], after: string | null, limit: number) =>
  sql.rows(page, [projectIds, after, limit])
