import { statement, type Sql } from '@haven/db'

const count = statement<{ project_id: number; repositories: number }>(
  'repositories count',
  `select project_id, count(*)::int as repositories from artifacts.repositories
    where project_id = any($1::int[]) and deleted_at is null and first_pushed_at is not null
    group by project_id`,
)

/** How many repositories each of these projects lists. A project without any is absent. */
export async function countRepositories(sql: Sql, projectIds: readonly number[]): Promise<Map<number, number>> {
  if (projectIds.length === 0) return new Map()
  const rows = await sql.rows(count, [[...new Set(projectIds)]])
  return new Map(rows.map((row) => [row.project_id, row.repositories]))
}
