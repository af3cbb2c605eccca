import { statement, type Sql } from '@haven/db'

export type FoundRepository = { projectId: number; path: string; pullCount: number; artifactCount: number }

/** Which projects to look in: those that the caller may see (null: all), and those whose name has part of what is looked for. */
export type SearchedProjects = { visible: readonly number[] | null; named: readonly number[] }

type Row = { id: number; project_id: number; path: string; pull_count: number }

// `in (select unnest(…))` is looked up in a hash table; `= any(…)` of a parameter would go through the whole array for each row.
const search = statement<Row>(
  'repositories search',
  `select id, project_id, path, pull_count::float8 as pull_count
     from artifacts.repositories
    where deleted_at is null and first_pushed_at is not null
      and (path ilike $1 or (project_id in (select unnest($2::int[])) and path ilike $3))
      and ($4::int[] is null or project_id in (select unnest($4)))
    order by id desc
    limit $5`,
)

const countArtifacts = statement<{ repository_id: number; artifacts: number }>(
  'artifacts count',
  'select r.id as repository_id, artifacts.total_listed(r.id)::int as artifacts from unnest($1::int[]) as r (id)',
)

/**
 * Listed repositories whose whole name, project first, contains `part`, whatever its case; the newest first, `limit` at most. Two
 * statements.
 */
export async function searchRepositories(
  sql: Sql,
  { visible, named }: SearchedProjects,
  part: string,
  limit: number,
): Promise<FoundRepository[]> {
  const escaped = part.replaceAll(/[%_\\]/g, String.raw`\$&`)
  // A name of a project has no slash, so what stands behind the first one is the beginning of a path.
  const slash = escaped.indexOf('/')
  const below = slash < 0 ? '%' : `${escaped.slice(slash + 1)}%`
  const rows = await sql.rows(search, [`%${escaped}%`, named, below, visible, limit])
  if (rows.length === 0) return []
  const counts = await sql.rows(countArtifacts, [rows.map(({ id }) => id)])
  const artifacts = new Map(counts.map((row) => [row.repository_id, row.artifacts]))
  return rows.map((row) => ({
    projectId: row.project_id,
    path: row.path,
    pullCount: row.pull_count,
    artifactCount: artifacts.get(row.id) ?? 0,
  }))
}
