import type { Condition, Database } from '@haven/db'
import type { Reference } from '@haven/oci'
import {
  artifactsById,
  countMatching,
  idsOfNamed,
  matchingArtifacts,
  type Place,
  type SelectedArtifact,
} from './store/artifact-rows.ts'

type Deps = { db: Pick<Database, 'prisma'> }
type NamedArtifact = { path: string; reference: Reference }
type Matching = { path?: string; conditions: readonly Condition[] }

/** What somebody chose among the artifacts of a project: by name, or whatever matches. Accessories have to be named. */
export type Selector = { named: readonly NamedArtifact[] } | Matching

/** The same for later: by id, so that a tag which moves meanwhile names nothing else. */
export type Selection = { ids: readonly number[] } | Matching

export type Resolved = {
  selection: Selection
  /** How many there are now, the unknown ones not counted. */
  total: number
  /** Names of nothing. */
  unknown: readonly NamedArtifact[]
}

/** @throws badRequest for a condition that cannot be asked. */
export async function resolveSelector({ db }: Deps, project: Place['project'], selector: Selector): Promise<Resolved> {
  if (!('named' in selector)) {
    const total = await countMatching(db, placeOf(project, selector), selector.conditions)
    return { selection: selector, total, unknown: [] }
  }
  const found = await idsOfNamed(db, project.id, selector.named)
  const ids = [...new Set(found.filter((id) => id !== null))]
  const unknown = selector.named.filter((_, i) => found[i] === null)
  return { selection: { ids }, total: ids.length, unknown }
}

const PAGE = 100

/**
 * The artifacts of a selection by falling id, each with its id, so that an index comes before the children that go with it. Null for one that is no
 * longer there.
 * @param pushedUntil what was pushed later, also again, does not match.
 * @param below where an earlier reader stopped; null: at the beginning.
 */
export async function* selectedArtifacts(
  { db }: Deps,
  project: Place['project'],
  selection: Selection,
  { pushedUntil, below }: { pushedUntil: Date; below: number | null },
): AsyncGenerator<{ id: number; artifact: SelectedArtifact | null }> {
  if ('ids' in selection) {
    const left = selection.ids.filter((id) => below === null || id < below).sort((a, b) => b - a)
    for (let at = 0; at < left.length; at += PAGE) {
      const ids = left.slice(at, at + PAGE)
      const found = new Map((await artifactsById(db, project.id, ids)).map((artifact) => [artifact.id, artifact]))
      for (const id of ids) yield { id, artifact: found.get(id) ?? null }
    }
    return
  }
  const place = placeOf(project, selection)
  for (let last = below; ;) {
    const { conditions } = selection
    const page = await matchingArtifacts(db, place, { conditions, pushedUntil, below: last, limit: PAGE })
    for (const artifact of page) yield { id: artifact.id, artifact }
    if (page.length < PAGE) return
    last = page.at(-1)!.id
  }
}

const placeOf = (project: Place['project'], { path }: Matching): Place => ({
  project,
  ...(path !== undefined && { path }),
})
