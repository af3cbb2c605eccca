import type { Condition, Database } from '@haven/db'
import { problems } from '@haven/errors'
import type { Reference } from '@haven/oci'
import type { SearchTerm } from './search-terms.ts'
import { hasField, type Place } from './store/artifact-conditions.ts'
import { countFound, foundArtifacts } from './store/found-artifacts.ts'
import {
  artifactsById,
  countMatching,
  idsOfNamed,
  matchingArtifacts,
  type SelectedArtifact,
} from './store/selected-artifacts.ts'

type Deps = { db: Pick<Database, 'prisma'> }
type NamedArtifact = { path: string; reference: Reference }
type Matching = Place & { conditions: readonly Condition[] }
/** What a search finds in these projects. */
type Found = {
  among: readonly { id: number; name: string }[]
  terms: readonly SearchTerm[]
  labels: ReadonlyMap<string, readonly number[]>
}

/** What somebody chose: by name, whatever matches in a project, or what a search finds. Accessories have to be named. */
export type Selector = { project: Place['project']; named: readonly NamedArtifact[] } | Matching | Found

/** The same for later: by id, so that a tag which moves meanwhile names nothing else. */
export type Selection = { projectIds: readonly number[]; ids: readonly number[] } | Matching | Found

export type Resolved = {
  selection: Selection
  /** How many there are now, the unknown ones not counted. */
  total: number
  /** What the names are of, in their order. */
  named: readonly (NamedArtifact & { id: number })[]
  /** Names of nothing. */
  unknown: readonly NamedArtifact[]
}

/** @throws badRequest for a condition that cannot be asked. */
export async function resolveSelector({ db }: Deps, selector: Selector): Promise<Resolved> {
  if ('among' in selector) {
    return { selection: selector, total: await countFound(db, selector), named: [], unknown: [] }
  }
  if ('conditions' in selector) {
    // A list shows more than was wanted then; here more would be deleted.
    const strange = selector.conditions.find(({ field }) => !hasField(selector, field))
    if (strange) throw problems.badRequest({ message: `q: artifacts have no field ${strange.field}` })
    const total = await countMatching(db, selector, selector.conditions)
    return { selection: selector, total, named: [], unknown: [] }
  }
  const found = await idsOfNamed(db, selector.project.id, selector.named)
  const named = selector.named.flatMap((one, i) => {
    const id = found[i] ?? null
    return id === null ? [] : [{ ...one, id }]
  })
  const ids = [...new Set(named.map(({ id }) => id))]
  const unknown = selector.named.filter((_, i) => found[i] === null)
  return { selection: { projectIds: [selector.project.id], ids }, total: ids.length, named, unknown }
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
  selection: Selection,
  { pushedUntil, below }: { pushedUntil: Date; below: number | null },
): AsyncGenerator<{ id: number; artifact: SelectedArtifact | null }> {
  if ('ids' in selection) {
    const left = selection.ids.filter((id) => below === null || id < below).sort((a, b) => b - a)
    for (let at = 0; at < left.length; at += PAGE) {
      const ids = left.slice(at, at + PAGE)
      const rows = await artifactsById(db, selection.projectIds, ids)
      const found = new Map(rows.map((artifact) => [artifact.id, artifact]))
      for (const id of ids) yield { id, artifact: found.get(id) ?? null }
    }
    return
  }
  for (let last = below; ;) {
    const at = { pushedUntil, below: last, limit: PAGE }
    const page =
      'among' in selection
        ? await foundArtifacts(db, selection, at)
        : await matchingArtifacts(db, selection, { conditions: selection.conditions, ...at })
    for (const artifact of page) yield { id: artifact.id, artifact }
    if (page.length < PAGE) return
    last = page.at(-1)!.id
  }
}
