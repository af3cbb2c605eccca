import type { Digest } from '@haven/oci'
import type { RecordDeps } from './deps.ts'
import { faultPoint } from './fault-point.ts'
import type { PullGrant, PushGrant } from './grants.ts'
import { recordLink } from './record-link.ts'
import { requireWritable } from './require-writable.ts'
import { blobHolders, findBlob, linkBlob, type StoredBlob } from './store/blobs.ts'
import { ensureRepository } from './store/repositories.ts'

/** Enough to find one that the caller may read; more would be work for a caller who may read none. */
const MAX_HOLDERS = 50

/**
 * Links a blob of one repository to another without moving bytes. Null when the source does not have it: then it is uploaded.
 * @param isThere asked by who can look into the store, since nobody sends bytes again that were mounted.
 */
export async function mountBlob(
  deps: RecordDeps,
  grant: PushGrant,
  from: PullGrant,
  digest: Digest,
  isThere: (blob: StoredBlob) => boolean | Promise<boolean> = () => true,
): Promise<{ sizeBytes: number } | null> {
  await requireWritable(deps)
  const source = await findBlob(
    deps.db.reads,
    { projectId: from.project.id, path: from.repository },
    digest,
    deps.storage.name,
  )
  if (!source || !(await isThere(source))) return null
  await faultPoint('mount.beforeDb')
  return deps.db.transaction(async (tx) => {
    const { id: repositoryId } = await ensureRepository(tx, grant.project, grant.repository)
    const blob = await linkBlob(tx, source.id, repositoryId, deps.settings.promiseSeconds)
    if (!blob) return null // forgotten since we looked
    await recordLink(deps, tx, grant, { ...blob, known: true, repositoryId })
    return { sizeBytes: blob.sizeBytes }
  })
}

/** Repositories that have a blob, for a mount that names none: the caller asks which of them it may pull from. */
export const mountSources = ({ db }: RecordDeps, digest: Digest): Promise<{ projectId: number; path: string }[]> =>
  blobHolders(db.reads, digest, MAX_HOLDERS)
