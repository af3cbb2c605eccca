import type { Sql } from '@haven/db'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import type { Tag } from '@haven/oci'
import { TagMovedSchema } from '@haven/proto/events'
import { messagesOf, type RecordDeps } from './deps.ts'
import { actorOf, eventDoors, nameOf, sourceOf, type PushGrant } from './grants.ts'
import { adoptSubject, forgetSubject } from './store/manifests.ts'
import { createTag, lockTag, moveTag, recordTagMove } from './store/tags.ts'
import { subjectOfCosignTag } from './subject-tags.ts'

type NamedManifest = { repositoryId: number; manifestId: string; digest: string; tag: Tag }

/** Makes a tag that is not there yet, and tells of it. False when there is one. */
export async function makeTag(tx: Sql, grant: PushGrant, to: NamedManifest): Promise<boolean> {
  if (!(await createTag(tx, to, changeOf(grant)))) return false
  await tell(tx, grant, to, null)
  return true
}

const changeOf = (grant: PushGrant) => ({ actor: actorOf(grant), door: grant.door, requestId: grant.requestId })

/**
 * Points a tag at a manifest, and remembers where it pointed. An immutable tag may be made but not pushed again, not even with
 * the manifest it has, as in Harbor; cosign's tags may, or nobody could add a signature (clients.md §2).
 * @returns whether it pointed elsewhere before.
 * @throws problems.tagImmutable
 */
export async function pointTag(
  { policies }: RecordDeps,
  tx: Sql,
  grant: PushGrant,
  to: NamedManifest,
): Promise<boolean> {
  const { repositoryId, manifestId, digest, tag } = to
  const subject = subjectOfCosignTag(tag)
  if (subject !== null) await adoptSubject(tx, manifestId, subject)
  for (;;) {
    if (await makeTag(tx, grant, to)) return false
    const existing = await lockTag(tx, repositoryId, tag)
    if (!existing) continue // deleted between the two statements
    if (policies.immutability && subject === null) {
      const { allowed, reasons } = await policies.immutability(grant, tag, 'overwrite')
      if (!allowed) throw problems.tagImmutable({ repository: nameOf(grant), tag, reasons: messagesOf(reasons) })
    }
    const from = await moveTag(tx, existing, manifestId)
    if (from !== digest) {
      if (subject !== null) await forgetSubject(tx, existing.manifestId, subject)
      await recordTagMove(tx, repositoryId, tag, from, digest, changeOf(grant))
      await tell(tx, grant, to, from)
    }
    return from !== digest
  }
}

async function tell(
  tx: Sql,
  grant: PushGrant,
  { repositoryId, digest, tag }: { repositoryId: number; digest: string; tag: Tag },
  from: string | null,
): Promise<void> {
  await emit(tx, TagMovedSchema, sourceOf(grant), {
    repository: {
      id: BigInt(repositoryId),
      name: nameOf(grant),
      project: { id: BigInt(grant.project.id), name: grant.project.name },
    },
    tag,
    from: from ?? '',
    to: digest,
    door: eventDoors[grant.door],
  })
}
