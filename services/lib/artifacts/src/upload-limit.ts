import { problems } from '@haven/errors'
import type { Digest } from '@haven/oci'
import { UNLIMITED } from '@haven/projects'
import type { ArtifactDeps } from './deps.ts'
import type { PushGrant } from './grants.ts'
import { isBlobInProject, largestBlobOf } from './store/blobs.ts'

/**
 * How long an upload may become. What counts is decided when the blob is charged, in its transaction; this ends an upload as soon as it
 * is known that it cannot fit, so that nobody sends a gigabyte in vain.
 */
export type UploadLimit = {
  /** Up to here nothing is asked. */
  bytes: number
  /** For an upload that is longer: @throws problems.quotaExceeded unless it may still be content that the project has already. */
  raise(uploadBytes: number): Promise<void>
}

/** Null in a project without a limit, which costs nothing. `digest`: what the upload will be, where that is known. */
export async function uploadLimit(
  { db, policies }: ArtifactDeps,
  { project }: PushGrant,
  digest: Digest | null,
): Promise<UploadLimit | null> {
  if (project.quotaBytes === UNLIMITED || !policies.quotaUsage) return null
  const now = await policies.quotaUsage(db.reads, project.id)
  if (!now || now.hardBytes === UNLIMITED) return null
  const { usedBytes, hardBytes: limitBytes } = now
  const limit: UploadLimit = {
    bytes: Math.max(0, limitBytes - usedBytes),
    async raise(uploadBytes) {
      // A project counts a blob once: what another of its repositories has is free, and could be as long as the longest that it has.
      const free =
        digest === null
          ? await largestBlobOf(db.reads, project.id)
          : (await isBlobInProject(db.reads, project.id, digest))
            ? Infinity
            : 0
      if (uploadBytes > free) throw problems.quotaExceeded({ addedBytes: uploadBytes, usedBytes, limitBytes })
      limit.bytes = Math.max(limit.bytes, free)
    },
  }
  return limit
}
