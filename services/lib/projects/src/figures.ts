import { statement, type Sql } from '@haven/db'

export type ProjectFigures = { id: number; name: string; public: boolean; hardBytes: number; usedBytes: number }

const figures = statement<ProjectFigures>(
  'projects figures',
  `select p.id, p.name, v.value is not null as public, coalesce(q.hard_bytes, -1)::float8 as "hardBytes",
          (coalesce(q.used_bytes, 0) + coalesce((select sum(d.delta_bytes) from projects.quota_deltas d where d.project_id = p.id), 0))::float8
            as "usedBytes"
     from projects.projects p
     left join projects.project_metadata v on v.project_id = p.id and v.name = 'public' and v.value = 'true'
     left join projects.quotas q on q.project_id = p.id
    where p.deleted_at is null order by p.id limit $1`,
)

/** Quota and use of the first `limit` projects; a quota of -1 is none. */
export const projectFigures = (sql: Sql, limit: number): Promise<ProjectFigures[]> => sql.rows(figures, [limit])
