import { problems } from '@haven/errors'
import type { Tag } from '@haven/oci'
import type { RecordDeps } from './deps.ts'
import { nameOf, type PushGrant } from './grants.ts'
import { makeTag } from './point-tag.ts'
import { requireWritable } from './require-writable.ts'
import { headManifestRow, holdManifests } from './store/manifests.ts'

/**
 * Puts a new tag on an artifact. An existing tag stays where it is.
 * @throws problems.manifestUnknown; conflict when the repository has such a tag; denied for what hangs on another artifact.
 */
export async function addTag(
  deps: RecordDeps,
  grant: PushGrant,
  { digest, subjectDigest }: { digest: string; subjectDigest: string | null },
  tag: Tag,
): Promise<void> {
  await requireWritable(deps)
  if (subjectDigest !== null) {
    throw problems.denied({ message: "the operation isn't supported for an artifact accessory" })
  }
  const place = { projectId: grant.project.id, path: grant.repository }
  await deps.db.transaction(async (tx) => {
    const manifest = await headManifestRow(tx, place, { digest })
    const held = manifest && (await holdManifests(tx, manifest.repositoryId, [digest], deps.settings.promiseSeconds))
    if (!manifest || held?.length === 0) {
      throw problems.manifestUnknown({ repository: nameOf(grant), reference: digest })
    }
    const { id: manifestId, repositoryId } = manifest
    if (!(await makeTag(tx, grant, { repositoryId, manifestId, digest, tag }))) {
      throw problems.conflict({ message: `tag ${tag} already exists under the repository ${repositoryId}` })
    }
  })
}
