import { statement, type Sql } from '@haven/db'

export type FoundRepository = { projectId: number; path: string; pullCount: number; artifactCount: number }

type Row = { project_id: number; path: string; pull_count: number; artifacts: number }

// What an index lists, and what hangs on another artifact, is no artifact of its own; a tag makes a child one.
const search = statement<Row>(
  'repositories search',
  `select f.project_id, f.path, f.pull_count, count(m.id)::int as artifacts
     from (select r.id, r.project_id, r.path, r.pull_count::float8 as pull_count
             from unnest($1::int[], $2::text[]) as p(id, name)
             join artifacts.repositories r on r.project_id = p.id
            where r.deleted_at is null and r.first_pushed_at is not null and p.name || '/' || r.path ilike $3
            order by r.id desc
            limit $4) f
     left join artifacts.manifests m
       on m.repository_id = f.id and m.deleted_at is null and m.subject_digest is null
      and (exists (select from artifacts.tags t where t.manifest_id = m.id)
           or not exists (select from artifacts.manifest_edges e
                            join artifacts.manifests i on i.id = e.manifest_id and i.deleted_at is null
                           where e.repository_id = f.id and e.digest = m.digest and e.kind = 'child'))
    group by f.id, f.project_id, f.path, f.pull_count
    order by f.id desc`,
)

/**
 * Listed repositories of these projects whose whole name contains `part`, whatever its case; the newest first, `limit` at most. One
 * statement.
 */
export async function searchRepositories(
  sql: Sql,
  projects: readonly { id: number; name: string }[],
  part: string,
  limit: number,
): Promise<FoundRepository[]> {
  const pattern = `%${part.replaceAll(/[%_\\]/g, String.raw`\$&`)}%`
  const rows = await sql.rows(search, [projects.map(({ id }) => id), projects.map(({ name }) => name), pattern, limit])
  return rows.map((row) => ({
    projectId: row.project_id,
    path: row.path,
    pullCount: row.pull_count,
    artifactCount: row.artifacts,
  }))
}
