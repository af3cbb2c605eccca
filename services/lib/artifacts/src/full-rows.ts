import type { ArtifactDeps } from './deps.ts'
import { learnFacts } from './learn-facts.ts'
import { sizesOfArtifacts, type ContentSize } from './store/sizes.ts'
import type { ArtifactRow } from './store/artifact-columns.ts'
import { artifactPage, foundPage, tagPage, type RepositoryOf, type TagOfRow, type TagOrder } from './store/full-rows.ts'
import type { Keyset, RowPage } from './store/row-pages.ts'
import type { SearchTerm } from './search-terms.ts'

type Deps = Pick<ArtifactDeps, 'db' | 'storage'>
type Search = { terms: readonly SearchTerm[]; labels: ReadonlyMap<string, readonly number[]> }
type Told = { onFailure: (error: unknown) => void }

export type FullRow = ArtifactRow & { size: ContentSize }
export type FullTagRow = FullRow & TagOfRow
export type FoundRow = ArtifactRow & { projectId: number; project: string }

/**
 * A page of the tags of a repository, each with all that is known of its artifact: two statements, and two more when a config is read for
 * the first time. Null for a place that no row has.
 */
export async function listTagRows(
  deps: Deps,
  place: RepositoryOf,
  search: Search & { order: TagOrder },
  keyset: Keyset,
  told: Told,
): Promise<RowPage<FullTagRow> | null> {
  return complete(deps, place, await tagPage(deps.db, place, search, search.order, keyset), told)
}

/** As `listTagRows` for its artifacts, by the time of their push. */
export async function listArtifactRows(
  deps: Deps,
  place: RepositoryOf,
  search: Search,
  keyset: Keyset,
  told: Told,
): Promise<RowPage<FullRow> | null> {
  return complete(deps, place, await artifactPage(deps.db, place, search, keyset), told)
}

/** Artifacts of these projects that a search finds, the one pushed last first. Null for a place that no row has. */
export async function searchArtifacts(
  deps: Deps,
  projects: readonly { id: number; name: string }[],
  search: Search,
  keyset: Keyset,
  { onFailure }: Told,
): Promise<RowPage<FoundRow> | null> {
  const page = await foundPage(deps.db, projects, search, keyset)
  if (page) await learnFacts(deps, page.rows, onFailure)
  return page
}

async function complete<Row extends ArtifactRow>(
  deps: Deps,
  { project }: RepositoryOf,
  page: RowPage<Row> | null,
  { onFailure }: Told,
): Promise<RowPage<Row & { size: ContentSize }> | null> {
  if (!page) return null
  // An artifact has a row for each of its tags.
  const artifacts = new Map(page.rows.map((row) => [row.id, row]))
  const [sizes] = await Promise.all([
    sizesOfArtifacts(deps.db.writes, project.id, [...artifacts.keys()]),
    learnFacts(deps, [...artifacts.values()], onFailure),
  ])
  const none = { totalBytes: 0, uniqueBytes: 0 } // deleted meanwhile
  return {
    ...page,
    rows: page.rows.map((row) => ({
      ...row,
      facts: artifacts.get(row.id)!.facts,
      size: sizes.get(row.id) ?? none,
    })),
  }
}
