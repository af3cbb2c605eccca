import { problems } from '@haven/errors'
import type { ArtifactDeps } from './deps.ts'
import { nameOf, type PullGrant } from './grants.ts'
import { tagDetails, tagHistory, tagNames, type RecordedTagChange, type TagDetails } from './store/tags.ts'

/**
 * Tags in the order of code points, from the first greater than `after`, which need not exist.
 * @returns `more`: whether others follow.
 * @throws problems.nameUnknown
 */
export async function listTags(
  { db }: ArtifactDeps,
  grant: PullGrant,
  { after, limit }: { after: string | null; limit: number },
): Promise<{ tags: string[]; more: boolean }> {
  // On the pool: a long list on the shared read connection would hold up the pulls behind it.
  const names = await tagNames(db.writes, { projectId: grant.project.id, path: grant.repository }, after, limit + 1)
  if (names === null) throw problems.nameUnknown({ repository: nameOf(grant) })
  return { tags: names.slice(0, limit), more: names.length > limit && limit > 0 }
}

/** As `listTags`, with what each tag points at and when it was pushed and pulled, so that nobody has to ask for each. */
export async function listTagDetails(
  { db }: ArtifactDeps,
  grant: PullGrant,
  { after, limit }: { after: string | null; limit: number },
): Promise<{ tags: TagDetails[]; more: boolean }> {
  const tags = await tagDetails(db.writes, { projectId: grant.project.id, path: grant.repository }, after, limit + 1)
  if (tags === null) throw problems.nameUnknown({ repository: nameOf(grant) })
  return { tags: tags.slice(0, limit), more: tags.length > limit && limit > 0 }
}

/**
 * Who moved a tag, from what to what, when and by which door; the latest change first, from the one before `before`. Of a tag that was
 * deleted, too; nothing for one that never was.
 * @returns `next`: what the next page comes before, null when this is the last.
 */
export async function listTagHistory(
  { db }: Pick<ArtifactDeps, 'db'>,
  place: { projectId: number; path: string },
  tag: string,
  { before, limit }: { before: string | null; limit: number },
): Promise<{ changes: RecordedTagChange[]; next: string | null }> {
  const found = await tagHistory(db.writes, place, tag, before, limit + 1)
  const changes = found.slice(0, limit)
  return { changes, next: found.length > limit ? changes.at(-1)!.id : null }
}
