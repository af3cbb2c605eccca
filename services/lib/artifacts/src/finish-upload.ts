import { createHash } from 'node:crypto'
import { problems } from '@haven/errors'
import { algorithmOf, isSupportedAlgorithm, type Digest, type SupportedAlgorithm } from '@haven/oci'
import { SizeMismatch, UploadLost } from '@haven/storage'
import { reportUnreadable } from './blobs.ts'
import { abandon, giveUp, stageChunk, type Chunk, type Staged } from './append-to-upload.ts'
import type { ArtifactDeps } from './deps.ts'
import { faultPoint } from './fault-point.ts'
import type { PushGrant } from './grants.ts'
import { pushTransaction } from './push-transaction.ts'
import { recordLink } from './record-link.ts'
import { requireWritable } from './require-writable.ts'
import { recordBlob, replaceDamagedBlob, trashObject } from './store/blobs.ts'
import { ensureRepository } from './store/repositories.ts'
import { discardUpload, recordUpload, type UploadRow } from './store/uploads.ts'
import { uploadLimit, type UploadLimit } from './upload-limit.ts'
import { claim, type Claim } from './uploads-claim.ts'

/**
 * Makes an upload a blob of the repository: its last bytes, if `chunk` brings some, then the sum, then one transaction. The usual
 * push reads nothing twice; an upload that passed through other processes is read once more here.
 * @throws problems.digestInvalid, quotaExceeded, after which the upload is gone; otherwise as appendToUpload, after which it can go on.
 */
export async function finishUpload(
  deps: ArtifactDeps,
  grant: PushGrant,
  id: string,
  { digest, chunk }: { digest: Digest; chunk: Chunk | null },
): Promise<{ digest: Digest; sizeBytes: number }> {
  const algorithm = algorithmOf(digest)
  if (!isSupportedAlgorithm(algorithm)) {
    throw problems.digestInvalid({ digest, reason: `unsupported digest algorithm: ${algorithm}` })
  }
  await requireWritable(deps)
  await using held = await claim(deps, grant, id, chunk?.offsetBytes ?? null)
  const staged = await stage(deps, held, chunk, await uploadLimit(deps, grant, digest))
  try {
    await complete(deps, held, staged, digest, algorithm)
    await faultPoint('finish.beforeDb')
    await recordFinished(deps, grant, held.upload, digest, staged.offsetBytes)
    held.settle()
    deps.hashes.forget(id)
    await faultPoint('finish.afterDb')
    return { digest, sizeBytes: staged.offsetBytes }
  } catch (error) {
    if (!problems.digestInvalid.is(error)) await keepStaged(deps, held, staged)
    if (problems.quotaExceeded.is(error)) await abandon(deps, held)
    throw error
  }
}

async function stage(deps: ArtifactDeps, held: Claim, chunk: Chunk | null, limit: UploadLimit | null): Promise<Staged> {
  if (chunk) return stageChunk(deps, held, chunk, limit, true)
  const { id, offsetBytes, state, digestAlgorithm } = held.upload
  return { offsetBytes, state, hash: deps.hashes.take(id, offsetBytes, digestAlgorithm) }
}

/** Completes the object and proves that its bytes are what `digest` says. */
async function complete(
  deps: ArtifactDeps,
  held: Claim,
  { offsetBytes, state, hash }: Staged,
  digest: Digest,
  algorithm: SupportedAlgorithm,
): Promise<void> {
  const { db, storage, hashes } = deps
  const { upload } = held
  await faultPoint('finish.beforeHash')
  const refuse = async (actual: string) => {
    hashes.forget(upload.id)
    // First where the bytes are now, so that the eraser finds them.
    if (await recordUpload(db.writes, upload, offsetBytes, state))
      await discardUpload(db.writes, upload, 'digest mismatch')
    held.settle()
    throw problems.digestInvalid({
      digest,
      reason: `provided digest did not match uploaded content: ${digest} is ${actual}`,
    })
  }
  const summed = hash !== null && !hash.lost && upload.digestAlgorithm === algorithm
  if (summed) {
    const actual = `${algorithm}:${await hash.digest()}`
    if (actual !== digest) await refuse(actual)
    await faultPoint('finish.afterVerify')
  }
  try {
    await storage.complete(upload.key, state, offsetBytes)
  } catch (error) {
    if (error instanceof UploadLost || error instanceof SizeMismatch) await giveUp(deps, upload, error)
    throw error
  }
  await faultPoint('finish.afterMove')
  if (!summed) {
    const again = createHash(algorithm)
    await storage.send(upload.key, { offset: 0, length: offsetBytes }, again, held.signal)
    const actual = `${algorithm}:${again.digest('hex')}`
    if (actual !== digest) await refuse(actual)
  }
}

/** Of a blob that is there already, so much is read again when it is pushed again; of a larger one only the length is looked at. */
const READ_AGAIN_BYTES = 1024 * 1024

/** The key under which the blob's bytes are, or one that is to be looked at before: then nothing was recorded. */
type Recorded = { key: string; unread: null } | { unread: string }

/** Somebody else placed the bytes while this push recorded them. */
class PlacedMeanwhile extends Error {}

async function recordFinished(
  deps: ArtifactDeps,
  grant: PushGrant,
  upload: UploadRow,
  digest: Digest,
  sizeBytes: number,
): Promise<void> {
  for (let sound: string | null = null; ;) {
    const recorded: Recorded | null = await record(deps, grant, upload, { digest, sizeBytes }, sound).catch(
      (error: unknown) => {
        if (error instanceof PlacedMeanwhile) return null
        throw error
      },
    )
    if (recorded === null) continue
    if (recorded.unread === null) {
      deps.seen.note(recorded.key)
      return
    }
    // The bytes of this push are not needed if those that are there already are sound: that is to be looked at outside of the transaction.
    await reportUnreadable(deps, recorded.unread, sizeBytes <= READ_AGAIN_BYTES ? 'corrupt' : 'missing')
    sound = recorded.unread
  }
}

async function record(
  deps: ArtifactDeps,
  grant: PushGrant,
  upload: UploadRow,
  { digest, sizeBytes }: { digest: Digest; sizeBytes: number },
  sound: string | null,
): Promise<Recorded> {
  const { promiseSeconds, trashSeconds } = deps.settings
  const { key, store } = upload
  return pushTransaction(deps, grant, [digest], async (tx) => {
    const at = { projectId: grant.project.id, path: grant.repository }
    const tryRecord = () => recordBlob(tx, at, upload, { digest, sizeBytes, store, key }, sound, promiseSeconds)
    let blob = await tryRecord()
    if (!blob) {
      // The first blob of a repository makes it.
      await ensureRepository(tx, grant.project, grant.repository)
      blob = await tryRecord()
    }
    if (!blob) throw problems.blobUploadInvalid({ reason: 'another request continued the upload' })
    if ('unread' in blob) return blob
    if (!blob.placed && !blob.damaged && blob.knownKey !== null && blob.knownKey !== sound) throw new PlacedMeanwhile()
    let surplus = blob.placed ? null : key
    if (blob.damaged && !blob.placed) {
      surplus = await replaceDamagedBlob(tx, blob.id, { store, key, sizeBytes })
    }
    if (surplus !== null) {
      // A duplicate was never to be read, so no download can be under way.
      const [reason, waitSeconds] = blob.damaged ? ['damaged', trashSeconds] : ['duplicate', 0]
      await trashObject(tx, { key: surplus, store, digest, sizeBytes, reason }, waitSeconds)
    }
    await recordLink(deps, tx, grant, { ...blob, sizeBytes, known: !blob.inserted })
    return { key: blob.placed || blob.damaged ? key : (blob.knownKey ?? key), unread: null }
  })
}

/** The client may try again: the upload must know where its bytes are. */
async function keepStaged({ db, hashes }: ArtifactDeps, { upload }: Claim, { offsetBytes, state, hash }: Staged) {
  const recorded = await recordUpload(db.writes, upload, offsetBytes, state).catch(() => false)
  if (recorded && hash) hashes.keep(upload.id, offsetBytes, upload.digestAlgorithm, hash)
}
