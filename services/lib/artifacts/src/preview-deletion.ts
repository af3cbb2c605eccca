import type { Digest } from '@haven/oci'
import { absent, MAX_FOLLOWERS } from './delete-manifest.ts'
import { messagesOf, type ArtifactDeps } from './deps.ts'
import type { DeleteGrant } from './grants.ts'
import {
  manifestTree,
  orphansOf,
  parentOf,
  stayingManifests,
  type ManifestInTree,
  type StayingManifest,
} from './store/manifests.ts'
import { sizeOfManifests } from './store/sizes.ts'
import { tagsOfManifests } from './store/tags.ts'

export type GoingManifest = Pick<ManifestInTree, 'digest' | 'type' | 'totalBytes'> & {
  role: 'artifact' | 'accessory' | 'child'
  tags: string[]
}

/** Why `deleteManifest` would refuse. */
export type DeletionBlocker = { kind: 'index'; digest: string } | { kind: 'immutable'; tag: string; messages: string[] }

export type DeletionPreview = {
  /** The artifact first. */
  goes: GoingManifest[]
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
  const where = { projectId: grant.project.id, path: grant.repository }
  const going: (ManifestInTree & Pick<GoingManifest, 'role'>)[] = []
  const idsOf = (manifests: readonly ManifestInTree[]) => manifests.map(({ id }) => id)
  const take = async (digests: readonly string[], role: GoingManifest['role']) => {
    const found = await manifestTree(sql, where, digests, 1 + MAX_FOLLOWERS - going.length, idsOf(going))
    const taken = found.map((each) => ({
      ...each,
      role: digests.includes(each.digest) ? role : ('accessory' as const),
    }))
    going.push(...taken)
    return taken
  }

  let level = await take([digest], 'artifact')
  if (level.length === 0) throw await absent(deps, grant, digest)
  while (level.length > 0 && going.length <= MAX_FOLLOWERS) {
    const orphans = await orphansOf(sql, idsOf(level), 1 + MAX_FOLLOWERS - going.length, idsOf(going))
    level = orphans.length === 0 ? [] : await take(orphans, 'child')
  }

  const ids = idsOf(going)
  const parent = await parentOf(sql, going[0]!.repositoryId, digest)
  const tags = await tagsOfManifests(sql, ids)
  const { totalBytes, uniqueBytes } = await sizeOfManifests(sql, grant.project.id, ids)
  const tagsOf = Map.groupBy(tags, ({ manifestId }) => manifestId)
  return {
    goes: going.map(({ id, digest: of, type, totalBytes: bytes, role }) => ({
      digest: of,
      type,
      totalBytes: bytes,
      role,
      tags: (tagsOf.get(id) ?? []).map(({ name }) => name),
    })),
    stays: await stayingManifests(sql, ids, MAX_FOLLOWERS),
    blockers: [
      ...(parent === null ? [] : [{ kind: 'index' as const, digest: parent }]),
      ...(await protectedTags(deps, grant, tags)),
    ],
    totalBytes,
    freedBytes: uniqueBytes,
    truncated: going.length > MAX_FOLLOWERS,
  }
}

async function protectedTags(
  { policies }: ArtifactDeps,
  grant: DeleteGrant,
  tags: readonly { name: string }[],
): Promise<DeletionBlocker[]> {
  const { immutability } = policies
  if (!immutability) return []
  const verdicts = await Promise.all(
    tags.map(async ({ name }) => ({ tag: name, ...(await immutability(grant, name, 'delete')) })),
  )
  return verdicts.flatMap(({ tag, allowed, reasons }) =>
    allowed ? [] : [{ kind: 'immutable' as const, tag, messages: messagesOf(reasons) }],
  )
}
