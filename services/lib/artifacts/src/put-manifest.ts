import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import {
  algorithmOf,
  isSupportedAlgorithm,
  parseManifest,
  requiredBlobs,
  type Digest,
  type Manifest,
  type Reference,
  type Tag,
} from '@haven/oci'
import { ArtifactPushedSchema, RepositoryCreatedSchema } from '@haven/proto/events'
import type { Sql } from '@haven/db'
import { UNLIMITED } from '@haven/projects'
import { artifactTypeWord } from './artifact-type.ts'
import { messagesOf, type RecordDeps } from './deps.ts'
import { faultPoint } from './fault-point.ts'
import { actorOf, eventDoors, nameOf, sourceOf, type PushGrant } from './grants.ts'
import { pointTag } from './point-tag.ts'
import { pushTransaction } from './push-transaction.ts'
import { requireWritable } from './require-writable.ts'
import { holdBlobs, holdFreshBlobs } from './store/blobs.ts'
import { holdManifests, upsertManifest } from './store/manifests.ts'
import { ensureRepository, publishRepository } from './store/repositories.ts'
import { tagsOfManifests } from './store/tags.ts'

export type ManifestUpload = {
  reference: Reference
  /** Tags beside the reference's own, for a push by digest. */
  tags?: readonly Tag[]
  mediaType: string | undefined
  body: Buffer
}

export type PushedManifest = {
  digest: Digest
  tags: Tag[]
  subject: Digest | null
  /** What whoever pushed it should be told. */
  warnings: string[]
}

/**
 * Stores a manifest and points tags at it, in one transaction that holds everything the manifest needs.
 * @throws problems.manifestInvalid, digestInvalid, manifestBlobUnknown with every digest that is missing, tagImmutable, quotaExceeded
 */
export async function putManifest(deps: RecordDeps, grant: PushGrant, input: ManifestUpload): Promise<PushedManifest> {
  await requireWritable(deps)
  const manifest = parse(input)
  const named = input.reference.tag === undefined ? [] : [input.reference.tag]
  // In one order, so that two pushes of the same tags do not wait for each other.
  const tags = [...new Set([...named, ...(input.tags ?? [])])].sort()

  const keys = [`${nameOf(grant)}@${manifest.digest}`, ...tags.map((tag) => `${nameOf(grant)}:${tag}`)]

  await faultPoint('manifest.beforeDb')
  const { absent: absentChildren, moved } = await pushTransaction(deps, grant, keys, async (tx) => {
    const { repositoryId, listed, childBytes, absent } = await requireContent(deps, tx, grant, manifest)
    await faultPoint('manifest.afterCheck')
    const stored = await upsertManifest(tx, repositoryId, manifest, {
      payload: input.body,
      totalBytes: ownBytes(manifest) + childBytes,
      type: artifactTypeWord(manifest),
      pushedBy: actorOf(grant),
      promiseSeconds: deps.settings.promiseSeconds,
    })
    if (stored.retyped) await requireRetypable(deps, tx, grant, stored.id)
    const charged =
      stored.inserted && deps.policies.quota?.(tx, grant.project.id, manifest.sizeBytes, 'manifest pushed')
    // A limit lets pushes through one after another: that comes before the tags, which somebody in the queue may wait for.
    if (grant.project.quotaBytes !== UNLIMITED) await charged
    const [moved] = await Promise.all([
      pointTags(deps, tx, grant, { repositoryId, manifestId: stored.id, digest: manifest.digest }, tags),
      charged,
    ])
    await tell(tx, grant, manifest, { ...stored, repositoryId, listed, tag: tags[0] ?? '' })
    return { absent, moved: moved || stored.retyped }
  })
  await faultPoint('manifest.afterDb')
  if (moved) await deps.recent.settled()
  const warnings = [...warningsOf(absentChildren), ...(await quotaWarnings(deps, grant))]
  return { digest: manifest.digest, tags, subject: manifest.subject?.digest ?? null, warnings }
}

/** The bytes need not say what type they are of: under another one, what an immutable tag gives to its clients would be another thing. */
async function requireRetypable({ policies }: RecordDeps, tx: Sql, grant: PushGrant, id: string): Promise<void> {
  if (!policies.immutability) return
  for (const { name: tag } of await tagsOfManifests(tx, [id])) {
    const { allowed, reasons } = await policies.immutability(grant, tag, 'overwrite')
    if (!allowed) throw problems.tagImmutable({ repository: nameOf(grant), tag, reasons: messagesOf(reasons) })
  }
}

/** @returns whether one of them pointed elsewhere before. */
async function pointTags(
  deps: RecordDeps,
  tx: Sql,
  grant: PushGrant,
  to: { repositoryId: number; manifestId: string; digest: string },
  tags: readonly Tag[],
): Promise<boolean> {
  let moved = false
  for (const tag of tags) if (await pointTag(deps, tx, grant, { ...to, tag })) moved = true
  return moved
}

function parse({ reference, mediaType, body }: ManifestUpload): Manifest {
  if (reference.digest === undefined) return parseManifest(mediaType, body)
  const algorithm = algorithmOf(reference.digest)
  if (!isSupportedAlgorithm(algorithm)) {
    throw problems.digestInvalid({ digest: reference.digest, reason: `unsupported digest algorithm: ${algorithm}` })
  }
  const manifest = parseManifest(mediaType, body, algorithm)
  if (manifest.digest !== reference.digest) {
    const reason = `provided digest did not match uploaded content: the manifest is ${manifest.digest}`
    throw problems.digestInvalid({ digest: reference.digest, reason })
  }
  return manifest
}

/**
 * Makes the repository if need be, proves that it has what the manifest needs, and keeps that until the transaction ends. In the order
 * that every holder of several rows keeps: the repository, manifests by digest, then blobs by digest. A subject may be absent, but one
 * that is there is kept as well.
 * @returns the bytes of the children that are there, and the others.
 */
async function requireContent(
  { settings }: RecordDeps,
  tx: Sql,
  { project, repository }: PushGrant,
  manifest: Manifest,
): Promise<{ repositoryId: number; listed: boolean; childBytes: number; absent: Digest[] }> {
  const at = { projectId: project.id, path: repository }
  const children = new Set(manifest.edges.filter(({ kind }) => kind === 'child').map(({ digest }) => digest))
  const named = manifest.subject ? new Set(children).add(manifest.subject.digest) : children
  const blobs = requiredBlobs(manifest).sort()
  const holdFresh = () => holdFreshBlobs(tx, at, blobs, settings.promiseSeconds)
  // Of an image, both in one round trip.
  const [{ id: repositoryId, listed }, early] = await Promise.all([
    ensureRepository(tx, project, repository),
    named.size === 0 ? holdFresh() : null,
  ])
  const held = await holdManifests(tx, repositoryId, [...named].sort(), settings.promiseSeconds)
  const present = held.filter(({ digest }) => children.has(digest as Digest))
  const fresh = early ?? (await holdFresh())
  const heldBlobs = fresh.length === blobs.length ? fresh : await holdBlobs(tx, at, blobs, settings.promiseSeconds)

  const missing = missingFrom(blobs, heldBlobs)
  const absent = missingFrom([...children], present)
  if (!settings.sparseIndexes) missing.push(...absent)
  if (missing.length > 0) throw problems.manifestBlobUnknown({ digests: missing })
  return { repositoryId, listed, childBytes: present.reduce((sum, { totalBytes }) => sum + totalBytes, 0), absent }
}

const warningsOf = (absent: readonly Digest[]): string[] =>
  absent.length === 0
    ? []
    : [`the index names ${absent.length} manifests that the repository does not have, among them ${absent[0]}`]

/** Harbor warns from here on. */
const QUOTA_WARNING = 0.85

async function quotaWarnings({ db, policies }: RecordDeps, { project }: PushGrant): Promise<string[]> {
  if (project.quotaBytes === UNLIMITED) return []
  const now = await policies.quotaUsage?.(db.reads, project.id)
  if (!now || now.hardBytes === UNLIMITED || now.usedBytes < now.hardBytes * QUOTA_WARNING) return []
  const percent = Math.floor((now.usedBytes / now.hardBytes) * 100)
  return [`the project ${project.name} has used ${percent} % of its storage quota`]
}

function missingFrom(wanted: readonly Digest[], found: readonly { digest: string }[]): Digest[] {
  if (wanted.length === found.length) return []
  const there = new Set(found.map(({ digest }) => digest))
  return wanted.filter((digest) => !there.has(digest))
}

function ownBytes({ sizeBytes, edges }: Manifest): number {
  return edges.reduce(
    (sum, edge) => (edge.kind === 'config' || edge.kind === 'layer' ? sum + edge.sizeBytes : sum),
    sizeBytes,
  )
}

async function tell(
  tx: Sql,
  grant: PushGrant,
  manifest: Manifest,
  {
    id,
    inserted,
    revived,
    repositoryId,
    listed,
    tag,
  }: { id: string; inserted: boolean; revived: boolean; repositoryId: number; listed: boolean; tag: string },
) {
  const project = { id: BigInt(grant.project.id), name: grant.project.name }
  const repository = { id: BigInt(repositoryId), name: nameOf(grant), project }
  if (!listed && (await publishRepository(tx, grant.project, repositoryId))) {
    await emit(tx, RepositoryCreatedSchema, sourceOf(grant), { repository })
  }
  await emit(tx, ArtifactPushedSchema, sourceOf(grant), {
    repository,
    artifact: {
      id: BigInt(id),
      digest: manifest.digest,
      mediaType: manifest.mediaType,
      artifactType: manifest.artifactType ?? '',
      sizeBytes: BigInt(ownBytes(manifest)),
    },
    tag,
    door: eventDoors[grant.door],
    known: !inserted && !revived,
  })
}
