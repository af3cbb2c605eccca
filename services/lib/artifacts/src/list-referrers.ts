import { algorithmOf, encodedOf, mediaTypes, type Digest } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import type { PullGrant } from './grants.ts'
import { countReferrersOf, referrersByFallbackTag, referrersBySubject, type Referrer } from './store/referrers.ts'

const MAX_PAGE = 1_000
/** OCI Distribution: an index of referrers should be no longer than any manifest may be. */
const MAX_PAGE_BYTES = 2 * 1024 * 1024
/** A tag is at most this long, so the fallback tag of a sha512 digest is cut there. */
const MAX_TAG_LENGTH = 128

export type ReferrersQuery = {
  artifactType?: string | null
  /** From the page before. */
  after?: string | null
  limit?: number | null
}

/**
 * Manifests of the repository that are about `subject`, whether it is there or not, oldest first. What clients wrote into the index
 * under the fallback tag comes with the first page.
 * @returns `next`: where the next page begins, null when there is none.
 */
export async function listReferrers(
  { db }: ArtifactDeps,
  grant: PullGrant,
  subject: Digest,
  { artifactType = null, after = null, limit }: ReferrersQuery = {},
): Promise<{ referrers: Referrer[]; next: string | null }> {
  const where = { projectId: grant.project.id, path: grant.repository }
  const size = Math.min(limit ?? MAX_PAGE, MAX_PAGE)
  const fallbackTag = fallbackTagOf(subject)
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
  return { referrers: [...own.referrers, ...written], next: own.next }
}

const fallbackTagOf = (subject: Digest) => `${algorithmOf(subject)}-${encodedOf(subject)}`.slice(0, MAX_TAG_LENGTH)

/** Of one subject; more are not counted. */
const MAX_COUNTED = 10_000

/** How many there are on all pages, whatever their artifact type; null for more than ten thousand. */
export const countReferrers = ({ db }: ArtifactDeps, grant: PullGrant, subject: Digest): Promise<number | null> =>
  countReferrersOf(
    db.writes,
    { projectId: grant.project.id, path: grant.repository },
    subject,
    fallbackTagOf(subject),
    MAX_COUNTED,
  )

/** The index that a list of referrers is answered as. */
export const referrersIndex = (referrers: readonly Referrer[]) => ({
  schemaVersion: 2,
  mediaType: mediaTypes.ociIndex,
  manifests: referrers,
})
