import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import type { Digest, Tag } from '@haven/oci'
import { ArtifactDeletedSchema, TagDeletedSchema } from '@haven/proto/events'
import type { ArtifactDeps } from './deps.ts'
import { actorOf, eventDoors, nameOf, sourceOf, type DeleteGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { buryManifests, lockManifestTree, parentOf } from './store/manifests.ts'
import { findRepository } from './store/repositories.ts'
import { lockTag, lockTagsOf, recordTagChange, removeTag, removeTags } from './store/tags.ts'

/** Accessories in one transaction. What is left over goes with the tombstone of its subject, in garbage collection. */
const MAX_ACCESSORIES = 1_000

/**
 * Deletes a manifest with all its tags, and its accessories with theirs: signatures and the like, at any depth. They stay as tombstones
 * until garbage collection; for every reader they are gone when this resolves.
 * @throws problems.manifestUnknown, nameUnknown; tagUndeletable; stillReferenced while an index of the repository names it.
 */
export async function deleteManifest(
  deps: ArtifactDeps,
  grant: DeleteGrant,
  digest: Digest,
  reason = 'deleted',
): Promise<{ tags: string[] }> {
  await requireWritable(deps)
  return deps.db.transaction(async (tx) => {
    const [manifest, ...accessories] = await lockManifestTree(tx, whereOf(grant), digest, 1 + MAX_ACCESSORIES)
    if (!manifest) throw await absent(deps, grant, digest)
    const { repositoryId } = manifest
    const parent = await parentOf(tx, repositoryId, digest)
    if (parent !== null) {
      throw problems.stillReferenced({
        message: `the deleting artifact is referenced by others: ${parent} is an index of it`,
      })
    }
    const doomed = [manifest, ...accessories]
    const tags = await lockTagsOf(
      tx,
      doomed.map(({ id }) => id),
    )
    for (const { name } of tags) await requireDeletable(deps, grant, name)
    await removeTags(
      tx,
      tags.map(({ id }) => id),
    )
    const { tombstoneSeconds } = deps.settings
    await buryManifests(tx, [manifest.id], actorOf(grant), reason, tombstoneSeconds)
    const followers = accessories.map(({ id }) => id)
    await buryManifests(tx, followers, actorOf(grant), `its subject went: ${digest} was deleted`, tombstoneSeconds)

    const tagsOf = Map.groupBy(tags, ({ manifestId }) => manifestId)
    for (const gone of doomed) {
      const names = (tagsOf.get(gone.id) ?? []).map(({ name }) => name)
      for (const name of names)
        await recordTagChange(tx, repositoryId, name, gone.digest, null, changeOf(grant, reason))
      await emit(tx, ArtifactDeletedSchema, sourceOf(grant), {
        repository: repositoryRef(grant, repositoryId),
        artifact: {
          id: BigInt(gone.id),
          digest: gone.digest,
          mediaType: gone.mediaType,
          artifactType: gone.artifactType ?? '',
          sizeBytes: BigInt(gone.totalBytes),
        },
        tags: names,
        door: eventDoors[grant.door],
      })
    }
    return { tags: tagsOf.get(manifest.id)?.map(({ name }) => name) ?? [] }
  })
}

/**
 * Deletes a tag and leaves its manifest.
 * @throws problems.manifestUnknown, nameUnknown, tagUndeletable
 */
export async function deleteTag(deps: ArtifactDeps, grant: DeleteGrant, tag: Tag, reason = 'deleted'): Promise<void> {
  await requireWritable(deps)
  const repositoryId = await findRepository(deps.db.reads, grant.project.id, grant.repository)
  if (repositoryId === null) throw problems.nameUnknown({ repository: nameOf(grant) })
  await deps.db.transaction(async (tx) => {
    const found = await lockTag(tx, repositoryId, tag)
    if (!found) throw problems.manifestUnknown({ repository: nameOf(grant), reference: tag })
    await requireDeletable(deps, grant, tag)
    const digest = await removeTag(tx, found)
    await recordTagChange(tx, repositoryId, tag, digest, null, changeOf(grant, reason))
    await emit(tx, TagDeletedSchema, sourceOf(grant), {
      repository: repositoryRef(grant, repositoryId),
      tag,
      digest,
      door: eventDoors[grant.door],
    })
  })
}

async function requireDeletable({ policies }: ArtifactDeps, grant: DeleteGrant, tag: string): Promise<void> {
  if (policies.immutability && !(await policies.immutability(grant, tag, 'delete')).allowed) {
    throw problems.tagUndeletable({ tag })
  }
}

async function absent({ db }: ArtifactDeps, grant: DeleteGrant, reference: string) {
  const known = (await findRepository(db.reads, grant.project.id, grant.repository)) !== null
  return known
    ? problems.manifestUnknown({ repository: nameOf(grant), reference })
    : problems.nameUnknown({ repository: nameOf(grant) })
}

const whereOf = ({ project, repository }: DeleteGrant) => ({ projectId: project.id, path: repository })

const changeOf = (grant: DeleteGrant, reason: string) => ({
  actor: actorOf(grant),
  door: grant.door,
  reason,
  requestId: grant.requestId,
})

const repositoryRef = (grant: DeleteGrant, id: number) => ({
  id: BigInt(id),
  name: nameOf(grant),
  project: { id: BigInt(grant.project.id), name: grant.project.name },
})
