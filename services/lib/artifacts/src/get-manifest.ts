import { problems } from '@haven/errors'
import { digestOf, formatReference, mediaTypes, type Digest, type Reference } from '@haven/oci'
import { messagesOf, type ArtifactDeps, type ArtifactPolicies } from './deps.ts'
import { nameOf, type PullGrant, type PushGrant } from './grants.ts'
import { listReferrers, referrersIndex } from './list-referrers.ts'
import { getManifestRow, headManifestRow, isPromised, renewManifest, type ManifestFacts } from './store/manifests.ts'
import { findRepository } from './store/repositories.ts'
import { subjectBeginning } from './store/referrers.ts'
import { beginningOfSubject, subjectOfFallbackTag } from './subject-tags.ts'

/** A manifest as it is served. `id` is null for one that we made up: see `synthesised`. */
export type ServedManifest = Omit<ManifestFacts, 'id' | 'promisedUntilMs'> & {
  id: string | null
  /** What whoever pulls it should be told. */
  warnings?: readonly string[]
}

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
  const found = await readWhole(deps, grant, reference)
  if (!found) return absent(deps, grant, reference)
  const { facts, payload } = found
  if (needsPromise(deps, facts) && !(await promised(deps, grant, reference, facts, mayPush))) {
    return absent(deps, grant, reference)
  }
  const { pullGate } = deps.policies
  return { ...facts, payload, ...(pullGate && { warnings: await passGate(pullGate, grant, facts) }) }
}

type WholeManifest = { readonly facts: ManifestFacts; readonly payload: Buffer }
/** `payload` null: it was not asked for. */
export type FoundManifest = WholeManifest | { readonly facts: ManifestFacts; readonly payload: null }

/**
 * As `getManifest`, or as `headManifest`, where nothing is to be promised and nobody to be asked: at once when it is in memory. Null otherwise, and
 * where there is no such manifest: those say what is wrong.
 * @param mayPush whether the caller may push to the repository as well
 */
export function findManifest(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
  { mayPush, heads }: { mayPush: boolean; heads: boolean },
): FoundManifest | null | Promise<FoundManifest | null> {
  if (deps.policies.pullGate) return null
  const key = keyOf(grant, reference)
  const known = deps.recent.manifests.get(key)
  if (known !== null) {
    if (mayPush && needsPromise(deps, known)) return null
    const payload = heads ? null : deps.manifestBytes.get(known.digest)
    if (payload !== undefined) return { facts: known, payload }
  }
  const coming = heads
    ? readFacts(deps, grant, reference, key).then(headOf)
    : readWhole(deps, grant, reference, key, known)
  return mayPush ? coming.then((found) => (found && needsPromise(deps, found.facts) ? null : found)) : coming
}

const headOf = (facts: ManifestFacts | null) => facts && { facts, payload: null }

/** The facts say what there is; the bytes are asked for only when they are not in memory. */
async function readWhole(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
  key = keyOf(grant, reference),
  known = deps.recent.manifests.get(key),
): Promise<WholeManifest | null> {
  const { db, manifestBytes } = deps
  const expected = known?.digest ?? manifestBytes.digestOf(key, reference)
  const payload = expected === undefined ? undefined : manifestBytes.get(expected)
  if (payload) {
    const facts = known ?? (await readFacts(deps, grant, reference, key))
    if (facts === null) return null
    if (facts.digest === expected) return { facts, payload }
  }
  const stored = await getManifestRow(db.reads, whereOf(grant), reference)
  if (stored) manifestBytes.keep(key, reference, stored.facts.digest, stored.payload)
  return stored
}

const readFacts = ({ db, recent }: ArtifactDeps, grant: PullGrant, reference: Reference, key: string) =>
  recent.manifests.read(key, () => headManifestRow(db.reads, whereOf(grant), reference))

/** As `getManifest`, without the bytes. */
export async function headManifest(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
  mayPush?: PushQuestion,
): Promise<ServedManifest> {
  const key = keyOf(grant, reference)
  const found = deps.recent.manifests.get(key) ?? (await readFacts(deps, grant, reference, key))
  if (!found || (needsPromise(deps, found) && !(await promised(deps, grant, reference, found, mayPush)))) {
    return absent(deps, grant, reference)
  }
  const { pullGate } = deps.policies
  return pullGate ? { ...found, warnings: await passGate(pullGate, grant, found) } : found
}

const whereOf = ({ project, repository }: PullGrant) => ({ projectId: project.id, path: repository })

/** Under which answers about a manifest are remembered. */
const keyOf = ({ project, repository }: PullGrant, { tag, digest }: Reference) =>
  `${project.id}/${repository}${tag === undefined ? `@${digest}` : `:${tag}`}`

const needsPromise = ({ settings }: ArtifactDeps, found: ManifestFacts) => !isPromised(found, settings.promiseSeconds)

/** False when the manifest was deleted before it could be promised. */
async function promised(
  { db, settings, recent }: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
  found: ManifestFacts,
  mayPush: PushQuestion | undefined,
): Promise<boolean> {
  if (!mayPush || !(await mayPush())) return true
  recent.manifests.forget(keyOf(grant, reference))
  return renewManifest(db.writes, found.id, settings.promiseSeconds)
}

// The same on HEAD: Docker skips the GET when it has the digest already, so a gate on GET alone is no gate.
async function passGate(
  pullGate: NonNullable<ArtifactPolicies['pullGate']>,
  grant: PullGrant,
  { id, digest }: ManifestFacts,
): Promise<string[]> {
  const { allowed, reasons } = await pullGate(grant, { id, digest })
  const messages = messagesOf(reasons)
  if (!allowed) throw problems.policyViolation({ message: messages.join(' ') })
  return messages
}

async function absent(
  deps: ArtifactDeps,
  grant: PullGrant,
  reference: Reference,
): Promise<ServedManifest & { payload: Buffer }> {
  const repositoryId = await findRepository(deps.db.reads, grant.project.id, grant.repository)
  if (repositoryId === null) throw problems.nameUnknown({ repository: nameOf(grant) })
  const subject = reference.tag === undefined ? null : await subjectOf(deps, repositoryId, reference.tag)
  const made = subject && (await synthesised(deps, grant, repositoryId, subject))
  if (made) return made
  throw problems.manifestUnknown({ repository: nameOf(grant), reference: formatReference(reference) })
}

async function subjectOf({ db }: ArtifactDeps, repositoryId: number, tag: string): Promise<Digest | null> {
  const beginning = beginningOfSubject(tag)
  return beginning === null ? subjectOfFallbackTag(tag) : subjectBeginning(db.reads, repositoryId, beginning)
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
