import { statement, type Sql } from '@haven/db'
import { problems } from '@haven/errors'
import type { Transaction } from './deps.ts'
import type { ProjectNode } from './directory.ts'

// Key share: holders do not wait for each other nor for settings that change; a deletion, which frees the unique name, waits for them.
const hold = statement<{ id: number }>(
  'projects hold',
  'select id from projects.projects where id = $1 and deleted_at is null for key share',
)

/**
 * Keeps a project from being deleted until the caller's transaction ends: for who adds the first thing that a deletion would ask for.
 * @throws projectNotFound when it was deleted, whatever a cache said.
 */
export async function holdProject(tx: Sql, { id, name }: Pick<ProjectNode, 'id' | 'name'>): Promise<void> {
  if (!(await tx.one(hold, [id]))) throw problems.projectNotFound({ project: name })
}

/** The same for several projects in a transaction of Prisma, by one statement. @throws projectNotFound for any that was deleted */
export async function holdProjects(tx: Pick<Transaction, '$queryRaw'>, ids: readonly number[]): Promise<void> {
  if (ids.length === 0) return
  const held = await tx.$queryRaw<{ id: number }[]>`
    select id from projects.projects where id = any(${[...ids]}::int[]) and deleted_at is null order by id for key share`
  const found = new Set(held.map(({ id }) => id))
  const gone = ids.find((id) => !found.has(id))
  if (gone !== undefined) throw problems.projectNotFound({ project: gone })
}
