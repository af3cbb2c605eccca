import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import { RepositoryDeletedSchema } from '@haven/proto/events'
import { bury, requireDeletable } from '../delete-manifest.ts'
import type { ArtifactDeps } from '../deps.ts'
import { nameOf, sourceOf, type DeleteGrant } from '../grants.ts'
import { requireWritable } from '../require-writable.ts'
import { lockSomeManifests } from '../store/deletions.ts'
import { buryRepository, lockRepository } from '../store/repositories.ts'
import { tagNames } from '../store/tags.ts'

/** Of one transaction: a few seconds of work at most, in which nobody pushes to the repository. */
const BATCH = 500
const TAGS = 10_000

/**
 * Deletes a repository with all its artifacts: large ones in several transactions, after each of which what is left is whole. What is
 * pushed meanwhile goes too, unless it comes after the last; then it makes the repository anew.
 * @param signal ends it after the transaction that runs then; repeated, it goes on.
 * @throws problems.nameUnknown; tagUndeletable, before anything is deleted, while a rule protects one of its tags.
 */
export async function deleteRepository(
  deps: ArtifactDeps,
  grant: DeleteGrant,
  { signal }: { signal?: AbortSignal } = {},
): Promise<void> {
  await requireWritable(deps)
  await requireAllDeletable(deps, grant)
  while (!(await deleteBatch(deps, grant))) signal?.throwIfAborted()
  await deps.recent.settled()
}

async function requireAllDeletable(deps: ArtifactDeps, grant: DeleteGrant): Promise<void> {
  if (!deps.policies.immutability || grant.project.immutableRules.length === 0) return
  const place = { projectId: grant.project.id, path: grant.repository }
  for (let after: string | null = null; ;) {
    const names: string[] = (await tagNames(deps.db.writes, place, after, TAGS)) ?? []
    for (const name of names) await requireDeletable(deps, grant, name)
    if (names.length < TAGS) return
    after = names.at(-1)!
  }
}

/** True when the repository is gone. */
function deleteBatch(deps: ArtifactDeps, grant: DeleteGrant): Promise<boolean> {
  const { project, repository } = grant
  return deps.db.transaction(async (tx) => {
    const id = await lockRepository(tx, project.id, repository)
    if (id === null) throw problems.nameUnknown({ repository: nameOf(grant) })
    const doomed = await lockSomeManifests(tx, id, BATCH)
    for (const { tags } of doomed) for (const tag of tags) await requireDeletable(deps, grant, tag)
    await bury(
      deps,
      tx,
      grant,
      doomed.map((each) => ({ ...each, reason: 'its repository was deleted' })),
    )
    if (doomed.length === BATCH) return false
    await buryRepository(tx, id)
    await emit(tx, RepositoryDeletedSchema, sourceOf(grant), {
      repository: { id: BigInt(id), name: nameOf(grant), project: { id: BigInt(project.id), name: project.name } },
    })
    return true
  })
}
