import type { Sql } from '@haven/db'
import { problems, type Problem } from '@haven/errors'
import { messagesOf, type RecordDeps } from './deps.ts'
import type { DeleteGrant } from './grants.ts'
import { findDoomed, lockDoomed, orphansOf, type DeletionSet, type DoomedManifest } from './store/deletions.ts'

/** Of one deletion. What is left over goes with the tombstone of what it hangs on, in garbage collection. */
export const MAX_FOLLOWERS = 1_000

export type GoingManifest = DoomedManifest & {
  role: 'artifact' | 'accessory' | 'child'
  /** How many indexes went before it: 0 is what was asked for, and what hangs on that. */
  level: number
}

type Asked = { grant: DeleteGrant; digest: string }

/** How what goes is looked at. */
type Look = {
  doomed(sets: readonly DeletionSet[], limit: number): Promise<DoomedManifest[]>
  /** Children of indexes that go, which nothing else keeps, as `doomed`. */
  children(
    sets: readonly DeletionSet[],
    indexes: readonly (readonly string[])[],
    limit: number,
  ): Promise<DoomedManifest[]>
}

/** Without locks: what is pushed meanwhile counts. */
export const looking = (sql: Sql): Look => ({
  doomed: (sets, limit) => findDoomed(sql, sets, limit),
  async children(sets, indexes, limit) {
    const orphans = await orphansOf(sql, sets, indexes, limit)
    return orphans.length === 0 ? [] : findDoomed(sql, naming(sets, orphans), limit)
  },
})

/** So that what was found stays so until the transaction ends. */
export const locking = (tx: Sql): Look => ({
  doomed: (sets, limit) => lockDoomed(tx, sets, limit),
  async children(sets, indexes, limit) {
    const found = await orphansOf(tx, sets, indexes, limit)
    if (found.length === 0) return []
    // Looked at again under the locks: a tag or an index that came meanwhile keeps its manifest.
    const [doomed, now] = await Promise.all([
      lockDoomed(tx, naming(sets, found), limit),
      orphansOf(tx, sets, indexes, limit),
    ])
    const still = found.filter((one) => now.some(({ set, digest }) => set === one.set && digest === one.digest))
    return still.length === found.length ? doomed : lockDoomed(tx, naming(sets, still), limit)
  },
})

const naming = (sets: readonly DeletionSet[], of: readonly { set: number; digest: string }[]): DeletionSet[] => {
  const digestsOf = Map.groupBy(of, ({ set }) => set)
  return sets.map((one, i) => ({ ...one, digests: (digestsOf.get(i + 1) ?? []).map(({ digest }) => digest) }))
}

/**
 * What goes with each of these artifacts, as if it went alone, itself first: accessories (signatures and the like), and children of an index that
 * have no tag and that no other index names, as Harbor does, at any depth; 1 + MAX_FOLLOWERS at most. Nothing for what is not there. A
 * statement or two for all, and as many more for each level of indexes.
 */
export async function whatGoes(look: Look, asked: readonly Asked[]): Promise<GoingManifest[][]> {
  const all: GoingManifest[][] = asked.map(() => [])
  const limit = asked.length * (1 + MAX_FOLLOWERS)
  const sets = asked.map(({ grant: { project, repository }, digest }) => ({
    projectId: project.id,
    path: repository,
    digests: [digest],
    going: [],
  }))
  let found = await look.doomed(sets, limit)
  for (let level = 0; found.length > 0; level++) {
    const indexes: string[][] = asked.map(() => [])
    for (const one of found) {
      const going = all[one.set - 1]!
      if (going.length > MAX_FOLLOWERS) continue
      const role = !one.named ? 'accessory' : level === 0 ? 'artifact' : 'child'
      going.push({ ...one, role, level })
      if (one.kind === 'index') indexes[one.set - 1]!.push(one.id)
    }
    if (indexes.every((some) => some.length === 0)) break
    const after = sets.map((set, i) => ({ ...set, going: all[i]!.map(({ id }) => id) }))
    found = await look.children(after, indexes, limit)
  }
  return all
}

/** Why a deletion is refused. */
export type DeletionBlocker = { kind: 'index'; digest: string } | { kind: 'immutable'; tag: string; messages: string[] }

/** All that keeps what would go with an artifact. */
export async function blockersOf(
  { policies: { immutability } }: Pick<RecordDeps, 'policies'>,
  grant: DeleteGrant,
  going: readonly GoingManifest[],
): Promise<DeletionBlocker[]> {
  const index = going[0]?.index ?? null
  const blockers: DeletionBlocker[] = index === null ? [] : [{ kind: 'index', digest: index }]
  if (!immutability) return blockers
  for (const tag of going.flatMap(({ tags }) => tags)) {
    const { allowed, reasons } = await immutability(grant, tag, 'delete')
    if (!allowed) blockers.push({ kind: 'immutable', tag, messages: messagesOf(reasons) })
  }
  return blockers
}

export const problemOf = (blocker: DeletionBlocker): Problem =>
  blocker.kind === 'index'
    ? problems.stillReferenced({
        message: `the deleting artifact is referenced by others: ${blocker.digest} is an index of it`,
      })
    : problems.tagUndeletable({ tag: blocker.tag, reasons: blocker.messages })
