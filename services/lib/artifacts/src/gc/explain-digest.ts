import { statement } from '@haven/db'
import type { GcDeps } from './deps.ts'
import { repositoryNames } from './purge-manifests.ts'

/** What keeps a digest, or what became of it: a code and its facts. */
export type DigestReason =
  | { code: 'promised'; until: Date }
  | { code: 'linked'; repository: string; promisedUntil: Date | null; neededBy: string[] }
  | { code: 'damaged'; since: Date }
  | { code: 'tagged'; repository: string; tags: string[] }
  | { code: 'childOf'; repository: string; index: string }
  | { code: 'accessoryOf'; repository: string; subject: string; subjectPresent: boolean }
  | { code: 'untagged'; repository: string; pushedAt: Date; promisedUntil: Date | null }
  | { code: 'tombstone'; repository: string; by: string; because: string; purgeAfter: Date }
  | { code: 'trashed'; because: string; eraseAfter: Date; attempts: number; lastError: string | null }
  | {
      code: 'removed'
      kind: string
      repository: string | null
      at: Date
      by: string
      because: string
      executionId: number | null
    }

export type DigestExplanation = {
  digest: string
  /** Whether a pull of it can succeed somewhere. */
  present: boolean
  reasons: DigestReason[]
}

type At = { repository_id: number; project_id: number; path: string }

const blob = statement<{ promised_until: Date; promised: boolean; damaged_at: Date | null }>(
  'explain blob',
  'select promised_until, promised_until > now() as promised, damaged_at from artifacts.blobs where digest = $1',
)
const links = statement<At & { promised_until: Date; promised: boolean; needed_by: string[] | null }>(
  'explain links',
  `select k.repository_id, r.project_id, r.path, k.promised_until, k.promised_until > now() as promised,
          (select array_agg(distinct m.digest) from artifacts.manifest_edges e join artifacts.manifests m on m.id = e.manifest_id
            where e.repository_id = k.repository_id and e.digest = b.digest) as needed_by
     from artifacts.blobs b join artifacts.blob_links k on k.blob_id = b.id join artifacts.repositories r on r.id = k.repository_id
    where b.digest = $1 and ($2::int[] is null or r.project_id = any($2)) order by r.project_id, r.path limit 100`,
)
const manifests = statement<
  At & {
    pushed_at: Date
    promised_until: Date | null
    subject_digest: string | null
    subject_present: boolean
    deleted_at: Date | null
    deleted_by: string | null
    deleted_reason: string | null
    purge_after: Date | null
    tags: string[] | null
    parents: string[] | null
  }
>(
  'explain manifests',
  `select m.repository_id, r.project_id, r.path, m.pushed_at, case when m.promised_until > now() then m.promised_until end as promised_until,
          m.subject_digest, m.deleted_at, m.deleted_by, m.deleted_reason,
          m.purge_after,
          exists (select from artifacts.manifests s where s.repository_id = m.repository_id and s.digest = m.subject_digest
                    and s.deleted_at is null) as subject_present,
          (select array_agg(t.name order by t.name) from artifacts.tags t where t.manifest_id = m.id) as tags,
          (select array_agg(distinct p.digest) from artifacts.manifest_edges e join artifacts.manifests p on p.id = e.manifest_id
            where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child' and p.deleted_at is null) as parents
     from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id
    where m.digest = $1 and m.id > 0 and ($2::int[] is null or r.project_id = any($2)) order by r.project_id, r.path limit 100`,
)
const trash = statement<{ reason: string; erase_after: Date; attempts: number; last_error: string | null }>(
  'explain trash',
  'select reason, erase_after, attempts, last_error from artifacts.trash where digest = $1 order by trashed_at limit 100',
)
const removals = statement<{
  kind: string
  repository: string | null
  removed_at: Date
  actor: string
  reason: string
  execution_id: string | null
}>(
  'explain removals',
  `select kind, repository, removed_at, actor, reason, execution_id from artifacts.removals
    where digest = $1 order by id desc limit 100`,
)

const holders = statement<{ project_id: number }>(
  'explain holders',
  `select project_id from (
     select r.project_id from artifacts.blobs b join artifacts.blob_links k on k.blob_id = b.id
       join artifacts.repositories r on r.id = k.repository_id where b.digest = $1
     union select r.project_id from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id
      where m.digest = $1 and m.id > 0) held
    order by (project_id = any($2::int[])) desc, project_id limit 200`,
)

/** Projects that hold a digest, at most 200; those of `first` before others. */
export async function projectsHolding(
  { db }: Pick<GcDeps, 'db'>,
  digest: string,
  first: readonly number[],
): Promise<number[]> {
  return (await db.reads.rows(holders, [digest, [...first]])).map((row) => row.project_id)
}

/**
 * Why a digest is still here, or what removed it, when, and for whom. Without `projectIds` for administrators only: it names
 * repositories of all projects. Removals and what belongs to no project (promises, trash) are told in either case.
 */
export async function explainDigest(
  deps: Pick<GcDeps, 'db' | 'projects'>,
  digest: string,
  { projectIds }: { projectIds?: readonly number[] } = {},
): Promise<DigestExplanation> {
  const { reads } = deps.db
  const only = projectIds ? [...projectIds] : null
  const [blobRow, linkRows, manifestRows, trashRows, removalRows] = await Promise.all([
    reads.one(blob, [digest]),
    reads.rows(links, [digest, only]),
    reads.rows(manifests, [digest, only]),
    reads.rows(trash, [digest]),
    reads.rows(removals, [digest]),
  ])
  const names = await repositoryNames(deps, [...linkRows, ...manifestRows])
  const reasons: DigestReason[] = []
  if (blobRow?.damaged_at) reasons.push({ code: 'damaged', since: blobRow.damaged_at })
  if (blobRow?.promised) reasons.push({ code: 'promised', until: blobRow.promised_until })
  for (const link of linkRows) {
    reasons.push({
      code: 'linked',
      repository: names.get(link.repository_id)!,
      promisedUntil: link.promised ? link.promised_until : null,
      neededBy: link.needed_by ?? [],
    })
  }
  for (const row of manifestRows) reasons.push(...manifestReasons(row, names.get(row.repository_id)!))
  for (const row of trashRows) {
    const { erase_after: eraseAfter, attempts, last_error: lastError } = row
    reasons.push({ code: 'trashed', because: row.reason, eraseAfter, attempts, lastError })
  }
  for (const row of removalRows) {
    reasons.push({
      code: 'removed',
      kind: row.kind,
      repository: row.repository,
      at: row.removed_at,
      by: row.actor,
      because: row.reason,
      executionId: row.execution_id === null ? null : Number(row.execution_id),
    })
  }
  const present =
    manifestRows.some((row) => row.deleted_at === null) ||
    (blobRow !== null && !blobRow.damaged_at && linkRows.length > 0)
  return { digest, present, reasons }
}

type ManifestRow = NonNullable<(typeof manifests)['row']>

function manifestReasons(row: ManifestRow, repository: string): DigestReason[] {
  if (row.deleted_at) {
    const [by, because, purgeAfter] = [
      row.deleted_by ?? '',
      row.deleted_reason ?? '',
      row.purge_after ?? row.deleted_at,
    ]
    return [{ code: 'tombstone', repository, by, because, purgeAfter }]
  }
  const reasons: DigestReason[] = []
  if (row.tags) reasons.push({ code: 'tagged', repository, tags: row.tags })
  for (const index of row.parents ?? []) reasons.push({ code: 'childOf', repository, index })
  if (row.subject_digest) {
    reasons.push({ code: 'accessoryOf', repository, subject: row.subject_digest, subjectPresent: row.subject_present })
  }
  if (reasons.length === 0) {
    reasons.push({ code: 'untagged', repository, pushedAt: row.pushed_at, promisedUntil: row.promised_until })
  }
  return reasons
}
