import { statement, type Sql } from '@haven/db'

// `in (select unnest(…))` is looked up in a hash table; `= any(…)` of a parameter would go through the whole array for each row.
const counts = statement<{ public: number; private: number }>(
  'repositories by visibility',
  `select count(*) filter (where project_id in (select unnest($1::int[])))::int as public,
          count(*) filter (where project_id in (select unnest($2::int[])))::int as private
     from artifacts.repositories
    where deleted_at is null and first_pushed_at is not null`,
)

/** How many listed repositories there are in these projects. */
export const countRepositoriesIn = async (
  sql: Sql,
  projectIds: { public: readonly number[]; private: readonly number[] },
): Promise<{ public: number; private: number }> =>
  (await sql.one(counts, [projectIds.public, projectIds.private])) ?? { public: 0, private: 0 }

const bytes = statement<{ bytes: number }>(
  'blobs stored bytes',
  'select coalesce(sum(size_bytes), 0)::float8 as bytes from artifacts.blobs',
)

/** Bytes of all blobs, each once however many repositories hold it. */
export const storedBytes = async (sql: Sql): Promise<number> => (await sql.one(bytes, []))?.bytes ?? 0

export type RepositoryFigures = { projectId: number; repositories: number; pulls: number }
export type ArtifactFigures = { projectId: number; type: string; artifacts: number }

const repositoryFigures = statement<RepositoryFigures>(
  'repositories figures',
  `select project_id as "projectId", count(*)::int as repositories, coalesce(sum(pull_count), 0)::float8 as pulls
     from artifacts.repositories
    where project_id = any($1::int[]) and deleted_at is null and first_pushed_at is not null
    group by project_id`,
)
const artifactFigures = statement<ArtifactFigures>(
  'artifacts figures',
  `select r.project_id as "projectId", m.type, count(*)::int as artifacts
     from artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id
    where r.project_id = any($1::int[]) and r.deleted_at is null and m.deleted_at is null
    group by r.project_id, m.type`,
)

/** What is in each of these projects: listed repositories with their pulls, and manifests by Harbor's word for their type. */
export async function projectContents(
  sql: Sql,
  projectIds: readonly number[],
): Promise<{ repositories: RepositoryFigures[]; artifacts: ArtifactFigures[] }> {
  const [repositories, artifacts] = await Promise.all([
    sql.rows(repositoryFigures, [projectIds]),
    sql.rows(artifactFigures, [projectIds]),
  ])
  return { repositories, artifacts }
}

export type Backlog = {
  /** What waits to be erased from the store. */
  trash: { objects: number; bytes: number; overdue: number; failing: number }
  uploads: { open: number; bytes: number; oldestSeconds: number }
}

const trashed = statement<Backlog['trash']>(
  'trash backlog',
  `select count(*)::int as objects, coalesce(sum(size_bytes), 0)::float8 as bytes,
          count(*) filter (where erase_after < now() - interval '1 hour')::int as overdue,
          count(*) filter (where last_error is not null)::int as failing
     from artifacts.trash`,
)
const uploading = statement<Backlog['uploads']>(
  'uploads backlog',
  `select count(*)::int as open, coalesce(sum(offset_bytes), 0)::float8 as bytes,
          coalesce(extract(epoch from now() - min(created_at)), 0)::float8 as "oldestSeconds"
     from artifacts.uploads`,
)

/** What garbage collection has before it, and what clients have begun. */
export async function storeBacklog(sql: Sql): Promise<Backlog> {
  const [trash, uploads] = await Promise.all([sql.one(trashed, []), sql.one(uploading, [])])
  return { trash: trash!, uploads: uploads! }
}
