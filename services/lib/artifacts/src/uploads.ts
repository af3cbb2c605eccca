import { randomUUID } from 'node:crypto'
import { problems } from '@haven/errors'
import type { SupportedAlgorithm } from '@haven/oci'
import { newObjectKey } from '@haven/storage'
import type { ArtifactDeps } from './deps.ts'
import { faultPoint } from './fault-point.ts'
import { principalKey, type PushGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { cancelUploadRow, endIdleUploads, expireUploadRows, findUpload, insertUpload } from './store/uploads.ts'
import { ownerOf } from './uploads-claim.ts'

const RETRY_AFTER_SECONDS = 60
const EXPIRY_BATCH = 500
/** Clients that were killed leave uploads behind that nobody knows any more: where room is needed, they do not wait for their expiry. */
const IDLE_SECONDS = 60 * 60
const MAX_GIVE_WAY = 20

/**
 * Opens an upload. Its bytes go at once under the key that they will keep.
 * @throws problems.tooManyRequests when the principal or the project has too many open ones, and none that was left alone for an hour.
 */
export async function startUpload(
  deps: ArtifactDeps,
  grant: PushGrant,
  { algorithm = 'sha256' }: { algorithm?: SupportedAlgorithm } = {},
): Promise<{ id: string }> {
  await requireWritable(deps)
  const id = randomUUID()
  const { maxUploadsPerPrincipal, maxUploadsPerProject } = deps.settings
  const owner = { id, projectId: grant.project.id, path: grant.repository, principal: principalKey(grant.principal) }
  const open = () =>
    insertUpload(
      deps.db.unsynced,
      owner,
      { store: deps.storage.name, key: newObjectKey(), digestAlgorithm: algorithm },
      { perPrincipal: maxUploadsPerPrincipal, perProject: maxUploadsPerProject },
    )
  const opened =
    (await open()) || ((await endIdleUploads(deps.db.writes, owner, IDLE_SECONDS, MAX_GIVE_WAY)) > 0 && (await open()))
  if (!opened) {
    throw problems.tooManyRequests({
      retryAfterSeconds: RETRY_AFTER_SECONDS,
      message: 'too many uploads are open; finish or cancel some',
    })
  }
  await faultPoint('session.create')
  return { id }
}

/** @throws problems.blobUploadUnknown */
export async function uploadStatus(deps: ArtifactDeps, grant: PushGrant, id: string): Promise<{ offsetBytes: number }> {
  const upload = await findUpload(deps.db.reads, ownerOf(grant, id))
  if (!upload) throw problems.blobUploadUnknown({ upload: id })
  return { offsetBytes: upload.offsetBytes }
}

/**
 * Ends an upload; a request that is writing to it fails.
 * @throws problems.blobUploadUnknown
 */
export async function cancelUpload(deps: ArtifactDeps, grant: PushGrant, id: string): Promise<void> {
  deps.hashes.forget(id)
  if (!(await cancelUploadRow(deps.db.writes, ownerOf(grant, id)))) throw problems.blobUploadUnknown({ upload: id })
}

/** Ends uploads that nobody touched for `idleSeconds`. Returns how many; any number of processes may do it at once. */
export async function expireUploads(
  { db }: Pick<ArtifactDeps, 'db'>,
  idleSeconds: number,
  signal?: AbortSignal,
): Promise<number> {
  let total = 0
  for (;;) {
    signal?.throwIfAborted()
    const ended = await expireUploadRows(db.writes, idleSeconds, EXPIRY_BATCH)
    total += ended
    if (ended < EXPIRY_BATCH) return total
  }
}
