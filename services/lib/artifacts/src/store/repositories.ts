import { statement, type Sql } from '@haven/db'
import { holdProject, type ProjectNode } from '@haven/projects'

/** `listed`: it has had a manifest. */
export type RepositoryRow = { id: number; listed: boolean }

type Project = Pick<ProjectNode, 'id' | 'name'>

const find = statement<RepositoryRow>(
  'repositories find',
  'select id, first_pushed_at is not null as listed from artifacts.repositories where project_id = $1 and path = $2 and deleted_at is null',
)
const add = statement<RepositoryRow>(
  'repositories add',
  `insert into artifacts.repositories as r (project_id, path) values ($1, $2)
   on conflict (project_id, path) do update
     set deleted_at = null, first_pushed_at = null, pull_count = 0, description = '', created_at = now(), updated_at = now()
     where r.deleted_at is not null
   returning id, false as listed`,
)
const publish = statement<{ id: number }>(
  'repositories publish',
  `update artifacts.repositories set first_pushed_at = now(), updated_at = now()
    where id = $1 and first_pushed_at is null returning id`,
)
const anyIn = statement<{ id: number }>(
  'repositories any',
  'select id from artifacts.repositories where project_id = $1 and deleted_at is null and first_pushed_at is not null limit 1',
)

export async function findRepository(sql: Sql, projectId: number, path: string): Promise<number | null> {
  return (await sql.one(find, [projectId, path]))?.id ?? null
}

/**
 * The repository; makes it when nobody did. Safe with any number of others doing the same.
 * @throws projectNotFound for a new one when the project was deleted.
 */
export async function ensureRepository(tx: Sql, project: Project, path: string): Promise<RepositoryRow> {
  const named = [project.id, path]
  const found = await tx.one(find, named)
  if (found) return found
  await holdProject(tx, project)
  const row = (await tx.one(add, named)) ?? (await tx.one(find, named)) // somebody else's insert was waited for
  if (row === null) throw new Error(`repository ${path} of project ${project.id} came and went within one statement`)
  return row
}

/**
 * Lists the repository from now on. True for the caller who did it.
 * @throws projectNotFound when the project was deleted while the repository had no manifest yet.
 */
export async function publishRepository(tx: Sql, project: Project, repositoryId: number): Promise<boolean> {
  await holdProject(tx, project)
  return (await tx.one(publish, [repositoryId])) !== null
}

/** Whether a project has repositories that it would lose. */
export async function hasRepositories(sql: Sql, projectId: number): Promise<boolean> {
  return (await sql.one(anyIn, [projectId])) !== null
}
