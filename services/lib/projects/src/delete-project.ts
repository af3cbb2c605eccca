import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import { ProjectDeletedSchema } from '@haven/proto/events'
import type { ProjectDeps, Transaction } from './deps.ts'
import type { ProjectNode } from './directory.ts'

export type DeleteDeps = ProjectDeps & {
  /** Asks the library that owns repositories, which knows projects and not the other way round. */
  holdsRepositories(projectId: number): Promise<boolean>
  /** Takes back, in the same transaction, what others keep about a project: members, robots. */
  forgetProject(tx: Transaction, projectId: number): Promise<void>
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
    await deps.forgetProject(tx, id)
    await emit(tx, ProjectDeletedSchema, source, { project: { id: BigInt(id), name } })
  })
  deps.directory.forget()
}
