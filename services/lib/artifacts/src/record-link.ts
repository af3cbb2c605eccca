import type { Sql } from '@haven/db'
import type { RecordDeps } from './deps.ts'
import type { PushGrant } from './grants.ts'
import { isLinkedElsewhere } from './store/blobs.ts'

/** Counts a blob that a repository has just got, once for each project. The caller holds the blob's row. */
export async function recordLink(
  { policies }: RecordDeps,
  tx: Sql,
  { project }: PushGrant,
  blob: { id: string; sizeBytes: number; linked: boolean; known: boolean; repositoryId: number },
): Promise<void> {
  if (!policies.quota || !blob.linked) return
  if (blob.known && (await isLinkedElsewhere(tx, blob.id, project.id, blob.repositoryId))) return
  await policies.quota(tx, project.id, blob.sizeBytes, 'blob pushed')
}
