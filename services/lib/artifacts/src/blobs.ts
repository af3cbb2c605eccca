import { problems } from '@haven/errors'
import type { Digest } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import { faultPoint } from './fault-point.ts'
import { repairStore } from './gc/verify-store.ts'
import { nameOf, type DeleteGrant, type PullGrant, type PushGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import {
  findAndRenewBlob,
  findBlob,
  findPromisedBlob,
  isLinkedElsewhere,
  lockBlobLink,
  unlinkBlob,
  type StoredBlob,
} from './store/blobs.ts'
import { findRepository } from './store/repositories.ts'

/**
 * A blob of the grant's repository.
 * @throws problems.blobUnknown, also when only another repository has it (threats.md A28); problems.nameUnknown
 */
export async function getBlob(
  { db, recent, storage }: ArtifactDeps,
  grant: PullGrant,
  digest: Digest,
): Promise<StoredBlob> {
  const where = { projectId: grant.project.id, path: grant.repository }
  const key = keyOf(storage, grant, digest)
  const blob =
    recent.blobs.get(key) ?? (await recent.blobs.read(key, () => findBlob(db.reads, where, digest, storage.name)))
  return blob ?? absent(db, grant, digest)
}

/**
 * As `getBlob`, or as `headBlob` for `seen`, when all it takes is in memory.
 * @param seen whether the object must have been seen in the store not long ago
 */
export function knownBlob(
  { recent, seen, storage }: ArtifactDeps,
  grant: PullGrant,
  digest: Digest,
  how: { seen: boolean },
) {
  const blob = recent.blobs.get(keyOf(storage, grant, digest))
  return blob && (!how.seen || seen.lately(blob.key)) ? blob : null
}

/** Under which an answer about a blob is remembered. */
const keyOf = (storage: ArtifactDeps['storage'], { project, repository }: PullGrant, digest: Digest) =>
  `${storage.name} ${project.id}/${repository} ${digest}`

/** As `getBlob`, for a client that is only told of it: what is said to be there has its bytes in the store (threats.md A88). */
export async function headBlob(deps: ArtifactDeps, grant: PullGrant, digest: Digest): Promise<StoredBlob> {
  const blob = await getBlob(deps, grant, digest)
  return (await isStored(deps, blob)) ? blob : absent(deps.db, grant, digest)
}

/**
 * As `headBlob`, for a client that may push: a HEAD is then a promise to refer to this blob soon, so it renews the blob's grace
 * (architecture.md, walk 5).
 */
export async function headBlobForPush(deps: ArtifactDeps, grant: PushGrant, digest: Digest): Promise<StoredBlob> {
  const { db, storage, settings } = deps
  const where = { projectId: grant.project.id, path: grant.repository }
  const { promiseSeconds } = settings
  const found = await findPromisedBlob(db.reads, where, digest, storage.name, promiseSeconds)
  const blob =
    found && !found.fresh ? await findAndRenewBlob(db.writes, where, digest, storage.name, promiseSeconds) : found
  return blob && (await isStored(deps, blob)) ? blob : absent(db, grant, digest)
}

/** A blob whose bytes are found to be lost counts as absent from now on. */
async function isStored(deps: ArtifactDeps, blob: StoredBlob): Promise<boolean> {
  return (await deps.seen.holds(deps.storage, blob)) || !(await reportUnreadable(deps, blob.key))
}

/**
 * For a reader that could not read a blob's bytes: they are looked at once more, and a blob that has lost them counts as absent from
 * now on, so that the next push brings them back.
 * @param suspicion `corrupt`: not only whether the object is there as a whole, but whether its bytes are what the digest says.
 * @returns whether it has lost them.
 */
export async function reportUnreadable(
  { db, storage, settings }: ArtifactDeps,
  key: string,
  suspicion: 'missing' | 'corrupt' = 'missing',
): Promise<boolean> {
  const found = { store: storage.name, key, digest: null, expectedBytes: null, actualBytes: null, repositories: [] }
  const [repaired] = await repairStore(db, storage, [{ kind: suspicion, ...found }], {
    trashSeconds: settings.trashSeconds,
  })
  return repaired?.action !== 'none'
}

async function absent(db: ArtifactDeps['db'], grant: PullGrant | PushGrant, digest: Digest): Promise<never> {
  if ((await findRepository(db.reads, grant.project.id, grant.repository)) === null) {
    throw problems.nameUnknown({ repository: nameOf(grant) })
  }
  throw problems.blobUnknown({ digest })
}

/**
 * Takes a blob away from one repository; its bytes go when nobody refers to them.
 * @throws problems.blobUnknown; problems.stillReferenced while a manifest of the repository needs it.
 */
export async function deleteBlob(deps: ArtifactDeps, grant: DeleteGrant, digest: Digest): Promise<void> {
  await requireWritable(deps)
  const { db, policies, recent } = deps
  await db.transaction(async (tx) => {
    // Locked first, looked at after: a manifest that is being pushed holds the link, and its edges are seen once it has committed.
    const link = await lockBlobLink(tx, { projectId: grant.project.id, path: grant.repository }, digest)
    if (!link) throw problems.blobUnknown({ digest })
    await faultPoint('blob.beforeUnlink')
    if (!(await unlinkBlob(tx, link.repositoryId, link.blobId, digest))) {
      throw problems.stillReferenced({ message: `${digest} is needed by a manifest of ${nameOf(grant)}` })
    }
    if (policies.quota && !(await isLinkedElsewhere(tx, link.blobId, grant.project.id, link.repositoryId))) {
      await policies.quota(tx, grant.project.id, -link.sizeBytes, 'blob deleted')
    }
  })
  await recent.settled()
}
