import { problems } from '@haven/errors'
import type { Sql } from '@haven/db'
import { emit, emitAll } from '@haven/events'
import type { Digest, Tag } from '@haven/oci'
import { ArtifactDeletedSchema, TagDeletedSchema } from '@haven/proto/events'
import { messagesOf, type RecordDeps } from './deps.ts'
import { actorOf, eventDoors, nameOf, sourceOf, type DeleteGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { buryManifests, lockManifestTree, lockOrphans, parentOf, type ManifestInTree } from './store/manifests.ts'
import { findRepository } from './store/repositories.ts'
import { lockTag, lockTagsOf, recordTagRemovals, removeTag, removeTags } from './store/tags.ts'

/** Of one deletion. What is left over goes with the tombstone of what it hangs on, in garbage collection. */
export const MAX_FOLLOWERS = 1_000

/**
 * Deletes a manifest with all its tags, and what only existed for its sake, at any depth: accessories (signatures and the like) with
 * their tags, and children of an index that have no tag and that no other index names, as Harbor does. They stay as tombstones until
 * garbage collection; for every reader they are gone when this resolves.
 * @throws problems.manifestUnknown, nameUnknown; tagUndeletable; stillReferenced while an index of the repository names it.
 */
export async function deleteManifest(
  deps: RecordDeps,
  grant: DeleteGrant,
  digest: Digest,
  reason = 'deleted',
): Promise<{ tags: string[] }> {
  await requireWritable(deps)
  const deleted = await deps.db.transaction(async (tx) => {
    const [manifest, ...accessories] = await lockManifestTree(tx, whereOf(grant), [digest], 1 + MAX_FOLLOWERS)
    if (!manifest) throw await absent(deps, grant, digest)
    const parent = await parentOf(tx, manifest.repositoryId, digest)
    if (parent !== null) {
      throw problems.stillReferenced({
        message: `the deleting artifact is referenced by others: ${parent} is an index of it`,
      })
    }
    const tags = await bury(deps, tx, grant, [manifest], reason)
    await bury(deps, tx, grant, accessories, `its subject went: ${digest} was deleted`)

    let buried = [manifest, ...accessories]
    let left = MAX_FOLLOWERS - accessories.length
    while (buried.length > 0 && left > 0) {
      const orphans = await lockOrphans(tx, whereOf(grant), buried, left)
      await bury(deps, tx, grant, orphans, `its index went: ${digest} was deleted`)
      buried = orphans
      left -= orphans.length
    }
    return { tags }
  })
  await deps.recent.settled()
  return deleted
}

/**
 * Makes tombstones of locked manifests, takes their tags and tells of it.
 * @returns the tags.
 */
export async function bury(
  deps: RecordDeps,
  tx: Sql,
  grant: DeleteGrant,
  doomed: readonly ManifestInTree[],
  reason: string,
): Promise<string[]> {
  if (doomed.length === 0) return []
  const ids = doomed.map(({ id }) => id)
  const tags = await lockTagsOf(tx, ids)
  for (const { name } of tags) await requireDeletable(deps, grant, name)
  const { tombstoneSeconds } = deps.settings
  const tagsOf = Map.groupBy(tags, ({ manifestId }) => manifestId)
  const namesOf = ({ id }: ManifestInTree) => (tagsOf.get(id) ?? []).map(({ name }) => name)
  const removed = doomed.flatMap((gone) => namesOf(gone).map((tag) => ({ ...gone, tag })))
  const change = changeOf(grant, reason)
  const events = doomed.map((gone) => ({
    source: sourceOf(grant),
    facts: {
      repository: repositoryRef(grant, gone.repositoryId),
      artifact: {
        id: BigInt(gone.id),
        digest: gone.digest,
        mediaType: gone.mediaType,
        artifactType: gone.artifactType ?? '',
        sizeBytes: BigInt(gone.totalBytes),
      },
      tags: namesOf(gone),
      door: eventDoors[grant.door],
    },
  }))
  // In this order, and in one round trip.
  await Promise.all([
    removeTags(
      tx,
      tags.map(({ id }) => id),
    ),
    buryManifests(tx, ids, change, tombstoneSeconds),
    recordTagRemovals(tx, removed, change, tombstoneSeconds),
    emitAll(tx, ArtifactDeletedSchema, events),
  ])
  return tags.map(({ name }) => name)
}

/**
 * Deletes a tag and leaves its manifest.
 * @param of the manifest that it must be a tag of.
 * @throws problems.manifestUnknown, nameUnknown, tagUndeletable; notFound when it is another's tag.
 */
export async function deleteTag(
  deps: RecordDeps,
  grant: DeleteGrant,
  tag: Tag,
  { reason = 'deleted', of }: { reason?: string; of?: number } = {},
): Promise<void> {
  await requireWritable(deps)
  const repositoryId = await findRepository(deps.db.reads, grant.project.id, grant.repository)
  if (repositoryId === null) throw problems.nameUnknown({ repository: nameOf(grant) })
  await deps.db.transaction(async (tx) => {
    const found = await lockTag(tx, repositoryId, tag)
    if (of !== undefined && Number(found?.manifestId) !== of) {
      throw problems.notFound({ message: `tag ${tag} attached to artifact ${of} not found` })
    }
    if (!found) throw problems.manifestUnknown({ repository: nameOf(grant), reference: tag })
    await requireDeletable(deps, grant, tag)
    const digest = await removeTag(tx, found)
    const gone = [{ repositoryId, tag, digest }]
    await recordTagRemovals(tx, gone, changeOf(grant, reason), deps.settings.tombstoneSeconds)
    await emit(tx, TagDeletedSchema, sourceOf(grant), {
      repository: repositoryRef(grant, repositoryId),
      tag,
      digest,
      door: eventDoors[grant.door],
    })
  })
  await deps.recent.settled()
}

export async function requireDeletable({ policies }: RecordDeps, grant: DeleteGrant, tag: string): Promise<void> {
  if (!policies.immutability) return
  const { allowed, reasons } = await policies.immutability(grant, tag, 'delete')
  if (!allowed) throw problems.tagUndeletable({ tag, reasons: messagesOf(reasons) })
}

/** The problem of a reference that is not there. */
export async function absent({ db }: RecordDeps, grant: DeleteGrant, reference: string) {
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
