import { statement, statementOfRows, type Sql } from '@haven/db'
import { holdProject, type ProjectNode } from '@haven/projects'

/** `listed`: it has had a manifest. */
export type RepositoryRow = { id: number; listed: boolean }

type Project = Pick<ProjectNode, 'id' | 'name'>

const find = statement<RepositoryRow>(
  'repositories find',
  'select id, first_pushed_at is not null as listed from artifacts.repositories where project_id = $1 and path = $2 and deleted_at is null',
)
// Held against a deletion of the repository: what this transaction pushes must not end up in one that is gone. The
// foreign key of what it inserts would take the same lock a moment later.
const findAndHold = statementOfRows<RepositoryRow>(
  'repositories find and hold',
  { project_id: 'int4', path: 'text' },
  'project_id, path',
  `select given.n::int as n, r.id, r.listed
     from given
     join lateral (
       select id, first_pushed_at is not null as listed from artifacts.repositories
        where project_id = given.project_id and path = given.path and deleted_at is null offset 0 for key share) r on true`,
)
const lock = statement<{ id: number }>(
  'repositories lock',
  `select id from artifacts.repositories where project_id = $1 and path = $2 and deleted_at is null and first_pushed_at is not null for update`,
)
const update = statement<{ id: number }>(
  'repositories update',
  `update artifacts.repositories set description = $3, updated_at = now()
    where project_id = $1 and path = $2 and deleted_at is null and first_pushed_at is not null returning id`,
)
const bury = statement('repositories bury', 'update artifacts.repositories set deleted_at = now() where id = $1')
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
  const found = await tx.one(findAndHold, named)
  if (found) return found
  await holdProject(tx, project)
  const row = (await tx.one(add, named)) ?? (await tx.one(findAndHold, named)) // somebody else's insert was waited for
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

/** Changes the description. Null when there is no such repository. */
export const describeRepository = async (
  tx: Sql,
  projectId: number,
  path: string,
  description: string,
): Promise<number | null> => (await tx.one(update, [projectId, path, description]))?.id ?? null

/** Keeps everybody from pushing to a listed repository until the transaction ends. Null when there is none. */
export const lockRepository = async (tx: Sql, projectId: number, path: string): Promise<number | null> =>
  (await tx.one(lock, [projectId, path]))?.id ?? null

/** Makes a locked repository that has no manifest any more absent. A push makes it anew. */
export const buryRepository = (tx: Sql, id: number) => tx.rows(bury, [id])
