import { problems } from '@haven/errors'
import { UploadLost, type ByteSource, type Intake, type RunningSum, type UploadState } from '@haven/storage'
import type { ArtifactDeps } from './deps.ts'
import { faultPoint } from './fault-point.ts'
import type { PushGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { discardUpload, recordUpload, type UploadRow } from './store/uploads.ts'
import { uploadLimit, type UploadLimit } from './upload-limit.ts'
import { claim, type Claim } from './uploads-claim.ts'

/** Fewer are summed in less time than it takes to hand them to another thread. */
const MIN_BYTES_ASIDE = 128 * 1024
/** What comes alone and is no larger is summed here, in ten milliseconds and less CPU (decision 0007), as long as the other thread, 13 MiB for good, is not there. */
const MAX_BYTES_ALONE = 16 * 1024 * 1024

/** Bytes that a client sends. */
export type Chunk = {
  source: ByteSource
  /** Where the client believes the upload to be; null when it did not say. */
  offsetBytes: number | null
  /** How many it announced; null for a body without a length. */
  sizeBytes: number | null
  signal?: AbortSignal | undefined
}

/**
 * Appends a chunk. When it resolves the bytes outlive this process; when it rejects the upload is as it was.
 * @throws problems.blobUploadUnknown, rangeInvalid, sizeInvalid, conflict, diskFull; quotaExceeded, after which the upload is gone.
 */
export async function appendToUpload(
  deps: ArtifactDeps,
  grant: PushGrant,
  id: string,
  chunk: Chunk,
): Promise<{ offsetBytes: number }> {
  await requireWritable(deps)
  await using held = await claim(deps, grant, id, chunk.offsetBytes)
  const limit = await uploadLimit(deps, grant, null)
  const { offsetBytes, state, hash } = await stageChunk(deps, held, chunk, limit)
  await faultPoint('chunk.afterStage')
  if (!(await recordUpload(deps.db.shared, held.upload, offsetBytes, state))) {
    throw problems.blobUploadInvalid({ reason: 'another request continued the upload' })
  }
  held.settle()
  if (hash) deps.hashes.keep(id, offsetBytes, held.upload.digestAlgorithm, hash)
  await faultPoint('chunk.afterDb')
  return { offsetBytes }
}

export type Staged = {
  offsetBytes: number
  state: UploadState | null
  /** Sum of all bytes so far; null when another process saw some of them. */
  hash: RunningSum | null
}

/** Writes and sums a claimed upload's next bytes. The caller records where it is now. */
export async function stageChunk(
  deps: ArtifactDeps,
  held: Claim,
  chunk: Chunk,
  limit: UploadLimit | null,
  last = false,
): Promise<Staged> {
  const { upload, signal } = held
  const { id, key, offsetBytes, state, digestAlgorithm } = upload
  const size = chunk.sizeBytes ?? Infinity
  const alone = size <= MAX_BYTES_ALONE && deps.hashes.alone
  const aside = deps.storage.gathers === true && size >= MIN_BYTES_ASIDE && !alone
  const hash = deps.hashes.take(id, offsetBytes, digestAlgorithm, aside)
  // At the beginning there is nothing to come back to.
  const before = offsetBytes > 0 ? hash?.copy() : undefined
  await faultPoint('chunk.beforeStage')
  deps.hashes.enter()
  try {
    const stored = await deps.storage.append(key, state, offsetBytes, counted(chunk, offsetBytes, limit), {
      ...(hash &&
        (deps.storage.gathers
          ? { onGathered: (bytes) => hash.add(bytes) }
          : { onChunk: (bytes) => void hash.add(bytes) })),
      signal: chunk.signal ? AbortSignal.any([chunk.signal, signal]) : signal,
      last,
      sizeHint: chunk.sizeBytes ?? undefined,
    })
    return { offsetBytes: offsetBytes + stored.written, state: stored.state, hash }
  } catch (error) {
    if (before) deps.hashes.keep(id, offsetBytes, digestAlgorithm, before)
    if (error instanceof UploadLost) await giveUp(deps, upload, error)
    if (problems.quotaExceeded.is(error)) await abandon(deps, held)
    throw error
  } finally {
    deps.hashes.leave()
  }
}

/** Leaves nothing of an upload that does not fit into its project. */
export async function abandon({ db, hashes }: ArtifactDeps, held: Claim): Promise<void> {
  hashes.forget(held.upload.id)
  await discardUpload(db.writes, held.upload, 'over quota')
  held.settle()
}

/** The store has lost the bytes: the client learns that it must begin again, instead of failing at each try. */
export async function giveUp(deps: ArtifactDeps, upload: UploadRow, cause: Error): Promise<never> {
  deps.hashes.forget(upload.id)
  await discardUpload(deps.db.writes, upload, 'bytes lost')
  throw problems.blobUploadUnknown({ upload: upload.id }, { cause })
}

// Counted before the store gets the last bytes: once an append has resolved, the old state may be gone.
function counted(chunk: Chunk, offsetBytes: number, limit: UploadLimit | null): ByteSource {
  const { source, sizeBytes } = chunk
  const within = async (bytes: number) => {
    if (limit && offsetBytes + bytes > limit.bytes) await limit.raise(offsetBytes + bytes)
  }
  return {
    [Symbol.asyncIterator]: () => countedPieces(chunk, within),
    // Of a body without a length each piece is looked at, since any may be the one too many.
    intake: source.intake && sizeBytes !== null ? () => countedIntake(source.intake!, sizeBytes, within) : undefined,
  }
}

type Within = (bytes: number) => Promise<void>

async function* countedPieces({ source, sizeBytes }: Chunk, within: Within): AsyncGenerator<Uint8Array, void, void> {
  let received = 0
  if (sizeBytes !== null) await within(sizeBytes)
  for await (const bytes of source) {
    received += bytes.length
    if (sizeBytes !== null && received > sizeBytes) break
    await within(received)
    yield bytes
  }
  if (sizeBytes !== null) requireSize(sizeBytes, received)
}

async function countedIntake(begin: () => Promise<Intake | null>, sizeBytes: number, within: Within) {
  await within(sizeBytes)
  const intake = await begin()
  if (!intake) return null
  let received = 0
  return {
    async fill(into: Buffer) {
      const bytes = await intake.fill(into)
      received += bytes
      if (bytes < into.length || received > sizeBytes) requireSize(sizeBytes, received)
      return bytes
    },
    close: () => intake.close(),
  }
}

function requireSize(declaredBytes: number, receivedBytes: number) {
  if (receivedBytes !== declaredBytes) throw problems.sizeInvalid({ declaredBytes, receivedBytes })
}
