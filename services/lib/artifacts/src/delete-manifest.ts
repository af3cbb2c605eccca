import { problems } from '@haven/errors'
import type { Tx } from '@haven/db'
import { emit, emitAll } from '@haven/events'
import type { Digest, Tag } from '@haven/oci'
import { ArtifactDeletedSchema, TagDeletedSchema } from '@haven/proto/events'
import { messagesOf, type RecordDeps } from './deps.ts'
import { actorOf, eventDoors, nameOf, sourceOf, type DeleteGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { buryManifests, type BuriableManifest } from './store/deletions.ts'
import { findRepository } from './store/repositories.ts'
import { lockTag, removeTag } from './store/tags.ts'
import { blockersOf, locking, problemOf, whatGoes, type GoingManifest } from './what-goes.ts'

/**
 * Deletes a manifest with all its tags, and what only existed for its sake (`whatGoes`). They stay as tombstones until garbage collection; for
 * every reader they are gone when this resolves. Two round trips, two more for each level of indexes.
 * @throws problems.manifestUnknown, nameUnknown; tagUndeletable; stillReferenced while an index of the repository names it.
 */
export async function deleteManifest(
  deps: RecordDeps,
  grant: DeleteGrant,
  digest: Digest,
  reason = 'deleted',
): Promise<{ tags: string[] }> {
  await requireWritable(deps)
  const { tags, settled } = await deps.db.transaction(async (tx) => {
    const [going = []] = await whatGoes(locking(tx), [{ grant, digest }])
    const [artifact] = going
    if (!artifact) throw await absent(deps, grant, digest)
    const [blocker] = await blockersOf(deps, grant, going)
    if (blocker) throw problemOf(blocker)
    const reasonOf = ({ role, level }: GoingManifest) => {
      if (role === 'artifact') return reason
      return `its ${level === 0 ? 'subject' : 'index'} went: ${digest} was deleted`
    }
    await bury(
      deps,
      tx,
      grant,
      going.map((each) => ({ ...each, reason: reasonOf(each) })),
    )
    return { tags: artifact.tags, settled: deps.recent.settledWith(tx) }
  })
  await settled()
  return { tags }
}

/** Makes tombstones of locked manifests and their tags, and tells of it; with the commit. */
export async function bury(
  { settings: { tombstoneSeconds } }: RecordDeps,
  tx: Tx,
  grant: DeleteGrant,
  doomed: readonly (BuriableManifest & { reason: string })[],
): Promise<void> {
  const { requestId, door } = grant
  buryManifests(tx, doomed, { actor: actorOf(grant), door, requestId, tombstoneSeconds })
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
      tags: gone.tags,
      door: eventDoors[door],
    },
  }))
  await emitAll(tx, ArtifactDeletedSchema, events)
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
  const settled = await deps.db.transaction(async (tx) => {
    const found = await lockTag(tx, repositoryId, tag)
    if (of !== undefined && Number(found?.manifestId) !== of) {
      throw problems.notFound({ message: `tag ${tag} attached to artifact ${of} not found` })
    }
    if (!found) throw problems.manifestUnknown({ repository: nameOf(grant), reference: tag })
    await requireDeletable(deps, grant, tag)
    const digest = await removeTag(tx, found.id, changeOf(grant, reason), deps.settings.tombstoneSeconds)
    await emit(tx, TagDeletedSchema, sourceOf(grant), {
      repository: repositoryRef(grant, repositoryId),
      tag,
      digest,
      door: eventDoors[grant.door],
    })
    return deps.recent.settledWith(tx)
  })
  await settled()
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
