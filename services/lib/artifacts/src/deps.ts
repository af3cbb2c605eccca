import type { Database } from '@haven/db'
import type { charge, usage } from '@haven/projects'
import type { BlobStorage } from '@haven/storage'
import type { Grant, PullGrant, Right } from './grants.ts'
import { ManifestBytes } from './manifest-bytes.ts'
import { OpenHashes } from './open-hashes.ts'
import { RecentAnswers } from './recent-answers.ts'
import { SeenObjects } from './seen-objects.ts'

/** Times are seconds and are measured by Postgres, since they decide what is deleted. */
export type ArtifactSettings = Readonly<{
  /** How long a blob that a client was told of is kept before anything refers to it. */
  promiseSeconds: number
  /** How long an object in the trash may still be read: longer than a signed URL lives. */
  trashSeconds: number
  /** How long a deleted manifest could be restored. */
  tombstoneSeconds: number
  /** How long a writer may be silent before another takes its upload over. */
  uploadLeaseSeconds: number
  maxUploadsPerPrincipal: number
  maxUploadsPerProject: number
  /** Whether an index may name manifests that its repository does not have. */
  sparseIndexes: boolean
}>

export const defaultArtifactSettings: ArtifactSettings = {
  promiseSeconds: 2 * 60 * 60,
  trashSeconds: 60 * 60,
  tombstoneSeconds: 0,
  uploadLeaseSeconds: 10,
  maxUploadsPerPrincipal: 200,
  maxUploadsPerProject: 1_000,
  sparseIndexes: true,
}

/** Yes, or no with every reason, as the client is told them. */
export type Verdict = { readonly allowed: boolean; readonly reasons: readonly { readonly message: string }[] }

export const messagesOf = (reasons: Verdict['reasons']): string[] => reasons.map(({ message }) => message)

/** Rules that are decided elsewhere. One that is not given allows everything; reasons of one that allows are told as warnings. */
export type ArtifactPolicies = Readonly<{
  /** Whether a tag that exists may be moved to another manifest or deleted. */
  immutability?: (grant: Grant<Right>, tag: string, change: 'overwrite' | 'delete') => Verdict | Promise<Verdict>
  /** Counts bytes that are new to the project, in the push's transaction, or throws `quotaExceeded`. */
  quota?: typeof charge
  /** Limit and use of a project that has a limit, so that an upload ends as soon as it cannot fit. */
  quotaUsage?: typeof usage
  readOnly?: () => boolean | Promise<boolean>
  pullGate?: (grant: PullGrant, manifest: { id: string; digest: string }) => Verdict | Promise<Verdict>
}>

/** What use cases need that move no bytes: of the store only its name. */
export type RecordDeps = Readonly<{
  db: Database
  storage: Pick<BlobStorage, 'name'>
  hashes: OpenHashes
  manifestBytes: ManifestBytes
  /** Waited for by whoever takes something away. */
  recent: Pick<RecentAnswers, 'settled' | 'settledWith'>
  settings: ArtifactSettings
  policies: ArtifactPolicies
}>

export type ArtifactDeps = RecordDeps &
  Readonly<{
    /** Where new blobs go and where they are read from. */
    storage: BlobStorage
    recent: RecentAnswers
    seen: SeenObjects
  }>

/** What the use cases need. One per process, since it holds the sums of uploads in flight and the bytes of manifests. */
export function artifactDeps<Storage extends Pick<BlobStorage, 'name'>>(given: {
  db: Database
  storage: Storage
  settings?: Partial<ArtifactSettings>
  policies?: ArtifactPolicies
  /** Of the process, when several services of it take away and answer. */
  recent?: RecentAnswers | undefined
}): RecordDeps & Readonly<{ storage: Storage; recent: RecentAnswers; seen: SeenObjects }> {
  return {
    db: given.db,
    storage: given.storage,
    hashes: new OpenHashes(),
    manifestBytes: new ManifestBytes(),
    recent: given.recent ?? new RecentAnswers(given.db),
    seen: new SeenObjects(),
    settings: { ...defaultArtifactSettings, ...given.settings },
    policies: given.policies ?? {},
  }
}
