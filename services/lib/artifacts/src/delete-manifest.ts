import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import type { Digest, Tag } from '@haven/oci'
import { ArtifactDeletedSchema, TagDeletedSchema } from '@haven/proto/events'
import type { ArtifactDeps } from './deps.ts'
import { actorOf, eventDoors, nameOf, sourceOf, type DeleteGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { buryManifest, lockManifest, parentOf } from './store/manifests.ts'
import { findRepository } from './store/repositories.ts'
import { lockTag, lockTagsOf, recordTagChange, removeTag, removeTags } from './store/tags.ts'

/**
 * Deletes a manifest with all its tags. It stays as a tombstone until garbage collection; for every reader it is gone when this
 * resolves.
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
    const manifest = await lockManifest(tx, whereOf(grant), digest)
    if (!manifest) throw await absent(deps, grant, digest)
    const parent = await parentOf(tx, manifest.repositoryId, digest)
    if (parent !== null) {
      throw problems.stillReferenced({
        message: `the deleting artifact is referenced by others: ${parent} is an index of it`,
      })
    }
    const tags = await lockTagsOf(tx, manifest.id)
    for (const { name } of tags) await requireDeletable(deps, grant, name)

    await removeTags(
      tx,
      tags.map(({ id }) => id),
    )
    for (const { name } of tags)
      await recordTagChange(tx, manifest.repositoryId, name, digest, null, changeOf(grant, reason))
    await buryManifest(tx, manifest.id, actorOf(grant), reason, deps.settings.tombstoneSeconds)
    await emit(tx, ArtifactDeletedSchema, sourceOf(grant), {
      repository: repositoryRef(grant, manifest.repositoryId),
      artifact: {
        id: BigInt(manifest.id),
        digest,
        mediaType: manifest.mediaType,
        artifactType: manifest.artifactType ?? '',
        sizeBytes: BigInt(manifest.totalBytes),
      },
      tags: tags.map(({ name }) => name),
      door: eventDoors[grant.door],
    })
    return { tags: tags.map(({ name }) => name) }
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
