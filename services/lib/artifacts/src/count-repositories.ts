import { statement, type Sql } from '@haven/db'

const count = statement<{ project_id: number; repositories: number }>(
  'repositories count',
  `select p.id as project_id, f.total::int as repositories from unnest($1::int[]) as p (id), lateral artifacts.find_listed_repositories(p.id, 0) f
    where f.total > 0`,
)

/** How many repositories each of these projects lists; one that lists none is missing. */
export async function countRepositories(sql: Sql, projectIds: readonly number[]): Promise<Map<number, number>> {
  if (projectIds.length === 0) return new Map()
  const rows = await sql.rows(count, [[...new Set(projectIds)]])
  return new Map(rows.map((row) => [row.project_id, row.repositories]))
}
