import type { Digest } from '@haven/oci'
import { problems, type Problem } from '@haven/errors'
import { absent } from './delete-manifest.ts'
import type { ArtifactDeps, RecordDeps } from './deps.ts'
import { nameOf, type DeleteGrant } from './grants.ts'
import { requireWritable } from './require-writable.ts'
import { stayingManifests, type StayingManifest } from './store/deletions.ts'
import { sizeOfManifests } from './store/sizes.ts'
import {
  blockersOf,
  looking,
  MAX_FOLLOWERS,
  problemOf,
  whatGoes,
  type DeletionBlocker,
  type GoingManifest,
} from './what-goes.ts'

export type DeletionPreview = {
  /** The artifact first. */
  goes: Pick<GoingManifest, 'digest' | 'type' | 'totalBytes' | 'role' | 'tags'>[]
  stays: StayingManifest[]
  blockers: DeletionBlocker[]
  totalBytes: number
  /** What the project gets back, once garbage collection has been there. */
  freedBytes: number
  /** More goes than is told: garbage collection takes it. */
  truncated: boolean
}

/**
 * What `deleteManifest` would take with it, what would stay and why, and what it would refuse for. Takes no locks: what is pushed
 * meanwhile counts. A few statements, two more for each level of indexes.
 * @throws problems.manifestUnknown, nameUnknown
 */
export async function previewDeletion(
  deps: ArtifactDeps,
  grant: DeleteGrant,
  digest: Digest,
): Promise<DeletionPreview> {
  const sql = deps.db.writes
  const [going = []] = await whatGoes(looking(sql), [{ grant, digest }])
  if (going.length === 0) throw await absent(deps, grant, digest)
  const ids = going.map(({ id }) => id)
  const { totalBytes, uniqueBytes } = await sizeOfManifests(sql, grant.project.id, ids)
  return {
    goes: going.map(({ digest: of, type, totalBytes: bytes, role, tags }) => ({
      digest: of,
      type,
      totalBytes: bytes,
      role,
      tags,
    })),
    stays: await stayingManifests(sql, ids, MAX_FOLLOWERS),
    blockers: await blockersOf(deps, grant, going),
    totalBytes,
    freedBytes: uniqueBytes,
    truncated: going.length > MAX_FOLLOWERS,
  }
}

/**
 * Whether `deleteManifest` would delete each of these, one alone, in the order given: null, or what it would throw. Takes no locks. A statement
 * for all, two more for each level of indexes among them.
 * @throws problems.readOnly
 */
export async function judgeDeletions(
  deps: RecordDeps,
  asked: readonly { grant: DeleteGrant; digest: Digest }[],
): Promise<(Problem | null)[]> {
  await requireWritable(deps)
  if (asked.length === 0) return []
  const all = await whatGoes(looking(deps.db.writes), asked)
  return Promise.all(
    asked.map(async ({ grant, digest }, i) => {
      const going = all[i]!
      if (going.length === 0) return problems.manifestUnknown({ repository: nameOf(grant), reference: digest })
      const [blocker] = await blockersOf(deps, grant, going)
      return blocker ? problemOf(blocker) : null
    }),
  )
}
