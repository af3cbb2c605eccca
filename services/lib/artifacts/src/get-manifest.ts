import { problems } from '@haven/errors'
import { digestOf, formatReference, mediaTypes, parseDigest, type Digest, type Reference } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import { nameOf, type PullGrant, type PushGrant } from './grants.ts'
import { listReferrers, referrersIndex } from './list-referrers.ts'
import { getManifestRow, headManifestRow, isPromised, renewManifest, type ManifestFacts } from './store/manifests.ts'
import { findRepository } from './store/repositories.ts'

/** A manifest as it is served. `id` is null for one that we made up: see `synthesised`. */
export type ServedManifest = Omit<ManifestFacts, 'id' | 'promisedSeconds'> & { id: string | null }

/** Asks whether the caller may push to the repository as well. Only asked when it matters. */
export type PushQuestion = () => Promise<PushGrant | null>

/**
 * A manifest by tag or digest, byte for byte as it was pushed. A client that may push is about to refer to it, perhaps, so it is
 * promised that the manifest stays for a while, tag or not (reliability.md §8, R6).
 * @throws problems.manifestUnknown, nameUnknown, policyViolation
 */
export async function getManifest(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
  mayPush?: PushQuestion,
): Promise<ServedManifest & { payload: Buffer }> {
  const where = { projectId: grant.project.id, path: grant.repository }
  const found = await getManifestRow(deps.db.reads, where, reference)
  if (!found || !(await promised(deps, found, mayPush))) return absent(deps, grant, reference)
  await passGate(deps, grant, found)
  return found
}

/** As `getManifest`, without the bytes. */
export async function headManifest(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
  mayPush?: PushQuestion,
): Promise<ServedManifest> {
  const where = { projectId: grant.project.id, path: grant.repository }
  const found = await headManifestRow(deps.db.reads, where, reference)
  if (!found || !(await promised(deps, found, mayPush))) return absent(deps, grant, reference)
  await passGate(deps, grant, found)
  return found
}

/** False when the manifest was deleted before it could be promised. */
async function promised(
  { db, settings }: ArtifactDeps,
  found: ManifestFacts,
  mayPush: PushQuestion | undefined,
): Promise<boolean> {
  if (!mayPush || isPromised(found, settings.promiseSeconds) || !(await mayPush())) return true
  return renewManifest(db.writes, found.id, settings.promiseSeconds)
}

// The same on HEAD: Docker skips the GET when it has the digest already, so a gate on GET alone is no gate.
async function passGate({ policies }: ArtifactDeps, grant: PullGrant, { id, digest }: ManifestFacts): Promise<void> {
  if (!policies.pullGate) return
  const { allowed, reasons } = await policies.pullGate(grant, { id, digest })
  if (!allowed) throw problems.policyViolation({ message: reasons.map(({ message }) => message).join(' ') })
}

async function absent(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
): Promise<ServedManifest & { payload: Buffer }> {
  const repositoryId = await findRepository(deps.db.reads, grant.project.id, grant.repository)
  if (repositoryId === null) throw problems.nameUnknown({ repository: nameOf(grant) })
  const subject = reference.tag === undefined ? null : subjectOfFallbackTag(reference.tag)
  const made = subject && (await synthesised(deps, grant, repositoryId, subject))
  if (made) return made
  throw problems.manifestUnknown({ repository: nameOf(grant), reference: formatReference(reference) })
}

/**
 * OCI Distribution 1.1, "Referrers Tag Schema": clients that know no referrers API look for an index under the tag
 * `<algorithm>-<hex>` of the subject. Where nobody pushed one, we answer what it would hold.
 */
async function synthesised(deps: ArtifactDeps, grant: PullGrant, repositoryId: number, subject: Digest) {
  const { referrers } = await listReferrers(deps, grant, subject)
  if (referrers.length === 0) return null
  const payload = Buffer.from(JSON.stringify(referrersIndex(referrers)))
  return {
    id: null,
    repositoryId,
    tagId: null,
    digest: digestOf(payload),
    mediaType: mediaTypes.ociIndex,
    sizeBytes: payload.length,
    payload,
  }
}

const subjectOfFallbackTag = (tag: string): Digest | null => {
  const dash = tag.indexOf('-')
  return dash === -1 ? null : parseDigest(`${tag.slice(0, dash)}:${tag.slice(dash + 1)}`)
}
