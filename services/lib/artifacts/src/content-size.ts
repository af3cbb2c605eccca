import type { ArtifactDeps } from './deps.ts'
import { findRepository } from './store/repositories.ts'
import { sizeOfProject, sizeOfRepository, type HeldSize } from './store/sizes.ts'

/** What a project holds, or a repository of it; null when there is no such repository. Reads every link: seconds for a million blobs. */
export async function contentSize(
  { db }: Pick<ArtifactDeps, 'db'>,
  { projectId, path }: { projectId: number; path?: string },
): Promise<HeldSize | null> {
  if (path === undefined) return sizeOfProject(db.writes, projectId)
  const repositoryId = await findRepository(db.writes, projectId, path)
  return repositoryId === null ? null : sizeOfRepository(db.writes, projectId, repositoryId)
}
