import { statement, type Sql } from '@haven/db'
import { problems } from '@haven/errors'
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
