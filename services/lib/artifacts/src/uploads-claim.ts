import { problems } from '@haven/errors'
import type { ArtifactDeps } from './deps.ts'
import { principalKey, type PushGrant } from './grants.ts'
import {
  claimUpload,
  extendClaim,
  findUpload,
  releaseUpload,
  type UploadOwner,
  type UploadRow,
} from './store/uploads.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const FIRST_WAIT_MS = 20
const LONGEST_WAIT_MS = 500

/** @throws problems.blobUploadUnknown for what cannot be an upload of ours. */
export function ownerOf({ project, repository, principal }: PushGrant, id: string): UploadOwner {
  if (!UUID.test(id)) throw problems.blobUploadUnknown({ upload: id })
  return { id, projectId: project.id, path: repository, principal: principalKey(principal) }
}

/**
 * The right to the next write of an upload, kept alive while bytes flow. `signal` fires when another process took the upload over,
 * which happens only after this one was silent for the whole lease.
 */
export class Claim implements AsyncDisposable {
  readonly upload: UploadRow
  readonly signal: AbortSignal
  readonly #deps: ArtifactDeps
  readonly #lost = new AbortController()
  readonly #heartbeat: NodeJS.Timeout
  #settled = false

  constructor(deps: ArtifactDeps, upload: UploadRow) {
    this.#deps = deps
    this.upload = upload
    this.signal = this.#lost.signal
    this.#heartbeat = setInterval(() => void this.#extend(), (deps.settings.uploadLeaseSeconds * 1000) / 3)
  }

  /** The row is recorded, dropped or discarded: there is nothing left to give back. */
  settle(): void {
    this.#settled = true
  }

  async #extend() {
    try {
      const held = await extendClaim(this.#deps.db.writes, this.upload, this.#deps.settings.uploadLeaseSeconds)
      if (!held) this.#lost.abort(problems.blobUploadInvalid({ reason: 'another request continued the upload' }))
    } catch {
      // The next beat tries again; if none gets through, whoever takes the upload over is found by the fence.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#heartbeat)
    // Not worth failing a request for: what is not released is free when its lease is over.
    if (!this.#settled) await releaseUpload(this.#deps.db.writes, this.upload).catch(() => undefined)
  }
}

/**
 * Claims an upload, at `offsetBytes` when the client says where it goes on. Waits for another writer for as long as one may be
 * silent, so that after a crash the client's next chunk gets through.
 * @throws problems.blobUploadUnknown; problems.rangeInvalid with the true offset in its facts; problems.conflict.
 */
export async function claim(
  deps: ArtifactDeps,
  grant: PushGrant,
  id: string,
  offsetBytes: number | null,
): Promise<Claim> {
  const owner = ownerOf(grant, id)
  const { uploadLeaseSeconds } = deps.settings
  const deadline = performance.now() + (uploadLeaseSeconds + 1) * 1000
  for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS)) {
    const upload = await claimUpload(deps.db.shared, owner, uploadLeaseSeconds, offsetBytes)
    if (upload) {
      if (upload.store === deps.storage.name) return new Claim(deps, upload)
      await releaseUpload(deps.db.writes, upload)
      throw problems.blobUploadUnknown({ upload: id }) // begun before the installation changed its store
    }
    const found = await findUpload(deps.db.writes, owner)
    if (!found) throw problems.blobUploadUnknown({ upload: id })
    if (!found.locked && offsetBytes !== null && found.offsetBytes !== offsetBytes) {
      throw outOfOrder(found.offsetBytes, offsetBytes)
    }
    if (found.locked && performance.now() > deadline) {
      throw problems.conflict({ message: 'another request is writing to this upload' })
    }
    if (found.locked) await new Promise((resolve) => setTimeout(resolve, waitMs))
  }
}

// OCI 1.1, "Pushing a Blob in Chunks": a chunk out of order answers 416 and leaves the upload as it was.
const outOfOrder = (isAt: number, askedFor: number) =>
  Object.assign(problems.rangeInvalid({ reason: `the upload is at byte ${isAt}, not ${askedFor}` }), {
    offsetBytes: isAt,
  })
