import type { Reference } from '@haven/oci'
import type { ArtifactDeps } from './deps.ts'
import { learnFacts } from './learn-facts.ts'
import type { ArtifactParts, ArtifactRow } from './store/artifact-columns.ts'
import type { Place } from './store/artifact-conditions.ts'
import { artifactRow, artifactRows, type ArtifactQuery } from './store/artifact-rows.ts'

type Told = { onFailure: (error: unknown) => void }

/**
 * A page of the artifacts of a project or a repository with what is wanted of each, the one pushed last first, and how many there are. Two
 * statements; two more when a config is read for the first time.
 * @throws badRequest for what cannot be asked.
 */
export async function listArtifacts(
  deps: Pick<ArtifactDeps, 'db' | 'storage'>,
  place: Place,
  query: ArtifactQuery,
  { onFailure }: Told,
): Promise<{ total: number; artifacts: ArtifactRow[] }> {
  const { total, rows } = await artifactRows(deps.db, place, query)
  await learnFacts(deps, rows, onFailure)
  return { total, artifacts: rows }
}

/** One artifact with what is wanted of it; accessories and children of indexes too. Null when there is none. */
export async function findArtifact(
  deps: Pick<ArtifactDeps, 'db' | 'storage'>,
  place: Required<Place>,
  reference: Reference,
  parts: ArtifactParts,
  { onFailure }: Told,
): Promise<ArtifactRow | null> {
  const row = await artifactRow(deps.db, place, reference, parts)
  if (row) await learnFacts(deps, [row], onFailure)
  return row
}
