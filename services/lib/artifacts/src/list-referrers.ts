import { mediaTypes, referrersTag, type Digest } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import type { PullGrant } from './grants.ts'
import { countReferrersOf, referrersByFallbackTag, referrersBySubject, type Referrer } from './store/referrers.ts'

/** Of a page, and of those that are counted. */
const MAX_PAGE = 1_000
/** OCI Distribution: an index of referrers should be no longer than any manifest may be. */
const MAX_PAGE_BYTES = 2 * 1024 * 1024

export type ReferrersQuery = {
  artifactType?: string | null
  /** From the page before. */
  after?: string | null
  limit?: number | null
}

/**
 * Manifests of the repository that are about `subject`, whether it is there or not, oldest first. What clients wrote into the index
 * under the fallback tag comes with the first page. Two statements for a list that fits into one page, one for a page further on.
 * @returns `next`: where the next page begins, null when there is none; `total`: with the first page, how many there are on all of them whatever
 * their artifact type, null for more than a thousand.
 */
export async function listReferrers(
  { db }: Pick<ArtifactDeps, 'db'>,
  grant: PullGrant,
  subject: Digest,
  { artifactType = null, after = null, limit }: ReferrersQuery = {},
): Promise<{ referrers: Referrer[]; next: string | null; total: number | null }> {
  const where = { projectId: grant.project.id, path: grant.repository }
  const size = Math.min(limit ?? MAX_PAGE, MAX_PAGE)
  const fallbackTag = referrersTag(subject)
  // On the pool: a long list on the shared read connection would hold up the pulls behind it.
  const [own, written] = await Promise.all([
    referrersBySubject(db.writes, where, subject, {
      after: after ?? '0',
      artifactType,
      limit: size,
      maxBytes: MAX_PAGE_BYTES,
    }),
    after === null
      ? referrersByFallbackTag(db.writes, where, subject, fallbackTag, { artifactType, limit: MAX_PAGE })
      : [],
  ])
  const referrers = [...own.referrers, ...written]
  const isWhole = artifactType === null && own.next === null && written.length < MAX_PAGE
  const count = () => (isWhole ? referrers.length : countReferrersOf(db.writes, where, subject, fallbackTag, MAX_PAGE))
  return { referrers, next: own.next, total: after === null ? await count() : null }
}

/** The index that a list of referrers is answered as. */
export const referrersIndex = (referrers: readonly Referrer[]) => ({
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: referrers,
})
