import { Prisma } from '@haven/db'
import type { SearchTerm } from '../search-terms.ts'
import type { ArtifactRow } from './artifact-columns.ts'
import { named, ofIndex } from './artifact-conditions.ts'
import {
  byPush,
  LOOKED_AT,
  MAX_COUNTED,
  number,
  placeOf,
  readPage,
  textKey,
  timeKey,
  upTo,
  type Keyset,
  type Reader,
  type RowKey,
  type RowPage,
  type Source,
} from './row-pages.ts'
import {
  listedBy,
  searchChecks,
  searchedRepositories,
  searchedTimes,
  searchSets,
  searchStarts,
  type Labels,
} from './search-sql.ts'
import {
  behindOf,
  FEW_ARTIFACTS,
  inOrderOf,
  lookAhead,
  rarestSets,
  sideBySide,
  sortedOf,
  startOf,
} from './search-start.ts'

export type TagOfRow = { tag: string; tagPushedAt: Date; tagPulledAt: Date | null }

/** Each has an index that holds the rows of a repository in its order. */
const tagOrders = {
  version: textKey(Prisma.sql`t.version_key`),
  name: textKey(Prisma.sql`t.name`),
  pushed: timeKey(Prisma.sql`t`),
}
export type TagOrder = keyof typeof tagOrders

export type RepositoryOf = { project: { id: number; name: string }; path: string }
type Search = { terms: readonly SearchTerm[]; labels: Labels }

const repositoryOf = ({ project, path }: RepositoryOf) => Prisma.sql`(
  select x.id from artifacts.repositories x where x.project_id = ${project.id} and x.path = ${path} and x.deleted_at is null)`
const artifacts = Prisma.sql`artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id`
// What an index lists, and what hangs on another artifact, is no row of its own; a tag makes a child one.
export const listed = Prisma.sql`m.deleted_at is null and m.subject_digest is null and (not ${ofIndex} or ${named})`

/**
 * Tags of a repository, each with its whole artifact. One statement, and one more for a search by what an index tells. Null for a key that no
 * row has.
 */
export async function tagPage(
  db: Reader,
  place: RepositoryOf,
  { terms, labels }: Search,
  order: TagOrder,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & TagOfRow> | null> {
  const scope = { among: [place.project], labels, ofTags: true }
  const [rarest] = await rarestSets(db, searchSets(terms, scope))
  const ofRepository = Prisma.sql`t.repository_id = ${repositoryOf(place)}`
  const from = Prisma.sql`artifacts.tags t join artifacts.manifests m on m.id = t.manifest_id join artifacts.repositories r on r.id = t.repository_id`
  const where = [
    Prisma.sql`${ofRepository} and m.deleted_at is null`,
    ...searchChecks(terms, scope),
    // Of a term that is not all too frequent, all are looked at and sorted: in the order of the list there may be none.
    ...(rarest ? [Prisma.sql`m.id = any(array(${rarest}))`] : []),
  ]
  return readPage(
    db,
    {
      from,
      where,
      order: tagOrders[order],
      own: Prisma.sql`t.name as tag, t.pushed_at as "tagPushedAt", t.pulled_at as "tagPulledAt"`,
      // A tombstone has no tags: without a search an index tells.
      count: upTo(
        terms.length === 0
          ? Prisma.sql`select from artifacts.tags t where ${ofRepository}`
          : Prisma.sql`select from ${from} where ${Prisma.join(where, ' and ')}`,
      ),
      isCommon: terms.length === 0,
    },
    keyset,
  )
}

/** As `tagPage` for its artifacts, by the time of their push. */
export async function artifactPage(
  db: Reader,
  place: RepositoryOf,
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow> | null> {
  if (placeOf(byPush, keyset) === null) return null
  const scope = { among: [place.project], labels, ofTags: false }
  const asked = searchStarts(terms, scope)
  const named = Prisma.sql`r.project_id = ${place.project.id} and r.path = ${place.path}`
  const { sets, ordered } = await startOf(db, { ...asked, named: asked.ordered.length > 0 ? named : null }, keyset)
  const [few] = sets
  const [rarest, ...others] = few ? [] : ordered
  const only = [Prisma.sql`s.repository_id = ${repositoryOf(place)}`, ...searchedTimes(terms)]
  // Read in order, as far as the page and the count need.
  const within = (from: RowKey | null) =>
    rarest
      ? Prisma.sql`${rowsOf(lookAhead(rarest, others, only, { ...keyset, from }, Prisma.empty))} m
                   join artifacts.repositories r on r.id = m.repository_id`
      : artifacts
  const where = [
    Prisma.sql`m.repository_id = ${repositoryOf(place)} and ${listed}`,
    ...(few ? [Prisma.sql`m.id = any(array(${few}))`] : []),
    ...searchChecks(terms, scope),
  ]
  return readPage(
    db,
    {
      from: within(keyset.from),
      where,
      order: byPush,
      own: Prisma.sql`null as tag`,
      count:
        terms.length === 0
          ? Prisma.sql`(select artifacts.listed_up_to(${repositoryOf(place)}, ${number(MAX_COUNTED + 1)}))`
          : upTo(Prisma.sql`select from ${within(null)} where ${Prisma.join(where, ' and ')}`),
      isCommon: terms.length === 0,
    },
    keyset,
  )
}

/** The artifacts `looked` up one by one, in its order. */
const rowsOf = (looked: Prisma.Sql) => Prisma.sql`(
  select k.id, k.pushed_at, x.repository_id, x.digest, x.type, x.subject_digest, x.annotations, x.facts, x.deleted_at
    from (${looked}) k cross join lateral (select x.* from artifacts.manifests x where x.id = k.id offset 0) x)`

/**
 * Artifacts of these projects that a search finds, the one pushed last first. Nobody counts them. One statement, two when there is something to
 * choose, four at most when a page is not full although many have each of the terms. What no index tells is looked at up to a limit: then the page
 * says where it stopped.
 */
export async function foundPage(
  db: Reader,
  among: readonly { id: number; name: string }[],
  { terms, labels }: Search,
  keyset: Keyset,
): Promise<RowPage<ArtifactRow & { projectId: number; project: string }> | null> {
  const scope = { among, labels, ofTags: false }
  const place = placeOf(byPush, keyset)
  if (place === null) return null
  const read = (manifests: Prisma.Sql, { looked = null, each = null }: Pick<Source, 'looked' | 'each'>) =>
    readPage<ArtifactRow & { projectId: number; project: string }>(
      db,
      {
        each,
        looked,
        // Looked up one by one: read as a whole, the repositories cost more than the page.
        from: Prisma.sql`${manifests} m
          cross join lateral (select q.* from artifacts.repositories q where q.id = m.repository_id offset 0) r
          join unnest(${among.map(({ id }) => id)}::int[], ${among.map(({ name }) => name)}::text[]) as n (id, name) on n.id = r.project_id`,
        where: [Prisma.sql`r.deleted_at is null and ${listed}`, ...searchChecks(terms, scope)],
        order: byPush,
        own: Prisma.sql`r.project_id as "projectId", n.name as project`,
        count: null,
        isCommon: false,
      },
      keyset,
    )
  // In order first and looked at then, as far as the page needs.
  const lookedUp = (looked: Prisma.Sql) => read(rowsOf(Prisma.sql`${looked} limit ${LOOKED_AT}`), { looked })
  const times = searchedTimes(terms)
  const inOrder = Prisma.join(
    [Prisma.sql`s.subject_digest is null and s.deleted_at is null and ${behindOf(Prisma.sql`s.id`, keyset)}`, ...times],
    ' and ',
  )
  const sorted = sortedOf(Prisma.sql`s.id`, keyset)
  const inSets = (sets: readonly Prisma.Sql[]) =>
    lookedUp(Prisma.sql`
      select s.id, s.pushed_at from artifacts.manifests s
       where s.id = any(array(${Prisma.join(
         sets.map((set) => Prisma.sql`(${set})`),
         ' intersect ',
       )})) and ${inOrder}
       order by ${sorted}`)
  const near = (which: Prisma.Sql) =>
    lookedUp(
      Prisma.sql`select s.id, s.pushed_at from artifacts.manifests s where ${which} and ${inOrder} order by ${sorted}`,
    )
  const asked = { ...searchStarts(terms, scope), named: searchedRepositories(terms, scope) }
  const { sets, repositories, ordered, many } = await startOf(db, asked, keyset)
  if (sets.length > 0) return inSets(sets.slice(0, 1))
  const [repository] = repositories?.length === 1 ? repositories : []
  if (ordered.length > 0) {
    const only = repositories ? [...times, Prisma.sql`s.repository_id = any(${repositories}::int[])`] : times
    const [rarest, ...others] = ordered
    if (others.length === 0 && repositories === null) return lookedUp(inOrderOf(rarest!, only, keyset))
    const page = await lookedUp(lookAhead(rarest!, others, only, keyset, Prisma.sql`limit ${FEW_ARTIFACTS}`))
    if (page?.more || !many) return page
    const all =
      repository === undefined ? ordered : [...ordered, [listedBy(Prisma.sql`s.repository_id = ${repository}`)]]
    return lookedUp(sideBySide(all, only, keyset))
  }
  // A page of several repositories is put together of one of each.
  if (repositories !== null && repository === undefined)
    return read(Prisma.sql`artifacts.manifests`, { each: repositories })
  const page = await near(repository === undefined ? Prisma.sql`true` : Prisma.sql`s.repository_id = ${repository}`)
  if (!page?.stopped || asked.sets.length === 0) return page
  const few = await rarestSets(db, asked.sets)
  return few.length > 0 ? inSets(few) : page
}
