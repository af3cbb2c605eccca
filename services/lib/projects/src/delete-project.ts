import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { forgetProject } from '@haven/identity'
import { ProjectDeletedSchema } from '@haven/proto/events'
import type { ProjectDeps } from './deps.ts'
import type { ProjectNode } from './directory.ts'

export type DeleteDeps = ProjectDeps & {
  /**
   * Asks the library that owns repositories, which knows projects and not the other way round. Must see what was committed when it is
   * asked, so a statement of its own.
   */
  holdsRepositories(projectId: number): Promise<boolean>
}

export const notDeletable = 'the project contains repositories, can not be deleted'

/**
 * Deletes a project that holds no repositories; its name is free at once, its row stays as a tombstone.
 * @throws preconditionFailed while it holds repositories; projectNotFound.
 */
export async function deleteProject(
  deps: DeleteDeps,
  source: EventSource,
  { id, name }: Pick<ProjectNode, 'id' | 'name'>,
): Promise<void> {
  await deps.db.prisma.$transaction(async (tx) => {
    // Locks the row before anybody is asked: a first push that holds it (hold-project.ts) is waited for, and one that comes later finds
    // no project.
    const { count } = await tx.project.updateMany({
      where: { id, deletedAt: null },
      data: { deletedAt: new Date(), nameKey: null },
    })
    if (count === 0) throw problems.projectNotFound({ project: name })
    if (await deps.holdsRepositories(id)) {
      throw problems.preconditionFailed({ message: `precondition failed: ${notDeletable}` })
    }
    await tx.projectAlias.deleteMany({ where: { projectId: id } })
    await tx.quota.deleteMany({ where: { projectId: id } })
    await tx.cveAllowlist.deleteMany({ where: { projectId: id } })
    await tx.label.updateMany({ where: { projectId: id, deletedAt: null }, data: { deletedAt: new Date() } })
    await forgetProject(tx, id)
    await emit(tx, ProjectDeletedSchema, source, { project: { id: BigInt(id), name } })
  })
  deps.directory.forget()
}
