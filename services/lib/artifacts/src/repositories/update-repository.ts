import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import { RepositoryUpdatedSchema } from '@haven/proto/events'
import { nameOf, sourceOf, type PushGrant } from '../grants.ts'
import { describeRepository } from '../store/repositories.ts'

/** Replaces the description. @throws problems.nameUnknown */
export async function updateRepository({ db }: { db: Database }, grant: PushGrant, description: string): Promise<void> {
  const { project, repository } = grant
  await db.transaction(async (tx) => {
    const id = await describeRepository(tx, project.id, repository, description)
    if (id === null) throw problems.nameUnknown({ repository: nameOf(grant) })
    await emit(tx, RepositoryUpdatedSchema, sourceOf(grant), {
      repository: { id: BigInt(id), name: nameOf(grant), project: { id: BigInt(project.id), name: project.name } },
    })
  })
}
