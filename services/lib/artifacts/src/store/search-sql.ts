import { escapeLike, Prisma } from '@haven/db'
import type { NamePattern, SearchTerm } from '../search-terms.ts'
import { everywhere, lastPull, named } from './artifact-conditions.ts'

/** Ids of labels by name. */
export type Labels = ReadonlyMap<string, readonly number[]>

export type SearchScope = {
  /** The projects that are searched. */
  among: readonly { id: number; name: string }[]
  labels: Labels
  /** The rows are tags `t`, not artifacts: what is said of tags is about the one of the row. */
  ofTags: boolean
}

/** Rows `s` that an index has in the order of pushes: of artifacts, or of terms of artifacts. */
export type Ordered = { from: Prisma.Sql; id: Prisma.Sql; where: Prisma.Sql }

/**
 * A term as SQL: a condition on a row; where an index finds all that have it, the ids of those; where it finds them in the order of pushes,
 * those, in parts of which no two have the same artifact. Of the ids and parts some may be of artifacts that do not have it.
 */
type TermSql = { holds: Prisma.Sql; set: Prisma.Sql | null; ordered: readonly Ordered[] | null }

/** Conditions on manifests `m` in repositories `r`, by sets where there are any: for whoever reads all that is found. */
export const searchToSql = (terms: readonly SearchTerm[], scope: SearchScope): Prisma.Sql[] =>
  terms.map((term) => {
    const { holds, set } = toSql(term, scope)
    return negate(term, set ? Prisma.sql`(m.id in (${set}) and ${holds})` : holds)
  })

/**
 * The same for one row after the other: for whoever stops at the end of a page. Postgres cannot tell from them how few rows may have a term, so
 * it reads in the order of the list; whoever knows a set that is small begins with that instead.
 */
export const searchChecks = (terms: readonly SearchTerm[], scope: SearchScope): Prisma.Sql[] =>
  terms.map((term) => negate(term, toSql(term, scope).holds))

/** Ids of what can be found by an index, one set for each term that has one: the page is in each of them. */
export const searchSets = (terms: readonly SearchTerm[], scope: SearchScope): Prisma.Sql[] =>
  terms.flatMap((term) => (term.negated ? [] : (toSql(term, scope).set ?? [])))

/** What an index has in the order of pushes, for each term that it has so, and the sets of the others. */
export function searchStarts(
  terms: readonly SearchTerm[],
  scope: SearchScope,
): { ordered: (readonly Ordered[])[]; sets: Prisma.Sql[] } {
  const all = terms.filter(({ negated }) => !negated).map((term) => toSql(term, scope))
  return {
    ordered: all.flatMap(({ ordered }) => (ordered ? [ordered] : [])),
    sets: all.flatMap(({ ordered, set }) => (ordered === null && set ? [set] : [])),
  }
}

/** When what is searched was pushed, of rows `s`. */
export const searchedTimes = (terms: readonly SearchTerm[]): Prisma.Sql[] =>
  terms.flatMap((term) =>
    (term.field === 'pushed' && !term.negated) || (term.field === 'pulled' && !term.negated && !term.after)
      ? isAt(Prisma.sql`s.pushed_at`, term)
      : [],
  )

/** Repositories `r` that are asked for by name; null when all may have what is searched. */
export function searchedRepositories(terms: readonly SearchTerm[], scope: SearchScope): Prisma.Sql | null {
  const asked = terms.filter((term) => term.field === 'repository' && !term.negated)
  return asked.length === 0 ? null : Prisma.join(searchChecks(asked, scope), ' and ')
}

const negate = ({ negated }: SearchTerm, condition: Prisma.Sql) =>
  negated ? Prisma.sql`not (${condition})` : condition
const row = (holds: Prisma.Sql): TermSql => ({ holds, set: null, ordered: null })

/** Artifacts that have one of these terms by which they can be searched. @param apart whether none has two: else each part leaves out those before */
function lines(holds: Prisma.Sql, found: readonly Prisma.Sql[], { apart }: { apart: boolean }): TermSql {
  const from = Prisma.sql`artifacts.search_terms s`
  const id = Prisma.sql`s.manifest_id`
  const any = Prisma.join([...found, Prisma.sql`null`])
  const others = (before: readonly Prisma.Sql[]) =>
    apart || before.length === 0
      ? Prisma.empty
      : Prisma.sql`and not exists (
          select from artifacts.search_terms o
           where o.term in (${Prisma.join([...before])}) and o.pushed_at = s.pushed_at and o.manifest_id = s.manifest_id)`
  return {
    holds,
    set: Prisma.sql`select s.manifest_id from ${from} where s.term in (${any})`,
    ordered:
      found.length > MAX_PARTS
        ? null
        : found.map((term, i) => ({ from, id, where: Prisma.sql`s.term = ${term} ${others(found.slice(0, i))}` })),
  }
}

/** Each part is one more index to read side by side. */
const MAX_PARTS = 8

const termOf = (kind: string, value: string) => Prisma.sql`artifacts.search_term(${kind}, ${value})`

// `offset 0` and functions where operators would do: looked at for each row, as in artifact-conditions.ts.
function toSql(term: SearchTerm, scope: SearchScope): TermSql {
  switch (term.field) {
    case 'word': {
      if (scope.ofTags) return row(Prisma.sql`t.name ilike ${`%${escapeLike(term.value)}%`}`)
      const ofTag = begins(Prisma.sql`t.name`, term.value)
      return {
        ...row(Prisma.sql`(${nameHolds(term.value, scope.among, Prisma.sql`r`)} or ${hasTag(ofTag)})`),
        set: Prisma.sql`
          select t.manifest_id from artifacts.tags t where ${ofTag} and ${everywhere(Prisma.sql`t`)}
          union all
          select n.id
            from artifacts.repositories q,
                 lateral (select n.id from artifacts.manifests n
                           where n.repository_id = q.id and n.subject_digest is null and n.deleted_at is null offset 0) n
           where q.deleted_at is null and ${nameHolds(term.value, scope.among, Prisma.sql`q`)}`,
      }
    }
    case 'tag': {
      const is = Prisma.sql`(${matches(Prisma.sql`t.name`, term.pattern)} and ${everywhere(Prisma.sql`t`)})`
      if (scope.ofTags) return row(is)
      return { ...row(hasTag(is)), set: Prisma.sql`select t.manifest_id from artifacts.tags t where ${is}` }
    }
    case 'repository':
      return row(repositoryMatches(term.pattern, scope.among))
    case 'digest': {
      // The operators of the index, whatever the database sorts by; a digest has nothing above `z`.
      const of = (m: Prisma.Sql) =>
        Prisma.sql`(${m}.digest ~>=~ ${term.prefix} and ${m}.digest ~<~ ${`${term.prefix}~`})`
      return {
        ...row(Prisma.sql`starts_with(m.digest, ${term.prefix})`),
        set: Prisma.sql`select n.id from artifacts.manifests n where ${of(Prisma.sql`n`)} and ${everywhere(Prisma.sql`n`)}`,
      }
    }
    case 'label': {
      const ids = scope.labels.get(term.value) ?? []
      const holds = Prisma.sql`exists (
        select from artifacts.artifact_labels l where l.manifest_id = m.id and l.label_id = any(${[...ids]}::int[]) offset 0)`
      return lines(
        holds,
        ids.map((id) => termOf('label', String(id))),
        { apart: false },
      )
    }
    case 'annotation':
      if (term.value === null) return row(Prisma.sql`jsonb_exists(m.annotations, ${term.name})`)
      return lines(
        Prisma.sql`(m.annotations ->> ${term.name} is not distinct from ${term.value})`,
        [termOf('annotation', `${term.name}=${term.value}`), termOf('annotations', 'many')],
        { apart: true },
      )
    case 'platform': {
      const { os, architecture } = term
      const is = (osOf: Prisma.Sql, architectureOf: Prisma.Sql) =>
        architecture === null
          ? Prisma.sql`${osOf} = ${os}`
          : Prisma.sql`${osOf} = ${os} and ${architectureOf} = ${architecture}`
      const own = is(Prisma.sql`m.facts #>> '{attributes,os}'`, Prisma.sql`m.facts #>> '{attributes,architecture}'`)
      const ofChild = is(Prisma.sql`e.platform ->> 'os'`, Prisma.sql`e.platform ->> 'architecture'`)
      return lines(
        Prisma.sql`(coalesce(${own}, false) or exists (
          select from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' and ${ofChild} offset 0))`,
        [termOf('platform', architecture === null ? os : `${os}/${architecture}`)],
        { apart: true },
      )
    }
    case 'type':
      return {
        holds: Prisma.sql`m.type = ${term.value}`,
        set: null,
        ordered: [listedBy(Prisma.sql`s.type = ${term.value}`)],
      }
    case 'pushed': {
      const column = Prisma.raw(scope.ofTags ? 't.pushed_at' : 'm.pushed_at')
      return row(isAt(column, term))
    }
    case 'pulled': {
      // What was never pulled is at no time, and so has what is negated.
      const never = Prisma.sql`${term.after ? '-infinity' : 'infinity'}::timestamptz`
      if (scope.ofTags) return row(isAt(Prisma.sql`coalesce(t.pulled_at, ${never})`, term))
      const day = Prisma.sql`(${term.time}::timestamptz at time zone 'UTC')::date`
      // In the order of the index: some of them are counted by it, and not by reading rows where there may be none.
      const set = Prisma.sql`
        select p.manifest_id from artifacts.last_pulls p
         where p.pulled_day ${Prisma.raw(term.after ? '>=' : '<=')} ${day} and ${isAt(Prisma.sql`p.pulled_at`, term)}
         order by p.pulled_day`
      const holds = isAt(Prisma.sql`coalesce(${lastPull}, ${never})`, term)
      // Nothing is pulled before it is pushed: from there on the list is read.
      return { ...row(term.after ? holds : Prisma.sql`(${holds} and m.pushed_at <= ${term.time})`), set }
    }
    case 'never pulled':
      return row(scope.ofTags ? Prisma.sql`t.pulled_at is null` : Prisma.sql`${lastPull} is null`)
    case 'untagged':
      return row(Prisma.sql`not ${named}`)
  }
}

/** Artifacts that a list may show, in the order of pushes by the index that begins with this. */
export const listedBy = (where: Prisma.Sql): Ordered => ({
  from: Prisma.sql`artifacts.manifests s`,
  id: Prisma.sql`s.id`,
  where: Prisma.sql`${where} and s.subject_digest is null and s.deleted_at is null`,
})

const isAt = (column: Prisma.Sql, { after, time }: { after: boolean; time: Date }) =>
  after ? Prisma.sql`${column} > ${time}` : Prisma.sql`${column} < ${time}`

const hasTag = (is: Prisma.Sql) =>
  Prisma.sql`exists (select from artifacts.tags t where t.manifest_id = m.id and ${is} offset 0)`

const begins = (column: Prisma.Sql, prefix: string) =>
  Prisma.sql`(${column} >= ${prefix} and ${column} < ${`${prefix}~`})`

/** As a whole. What stands before the first star is looked up in the index. */
function matches(column: Prisma.Sql, pattern: NamePattern): Prisma.Sql {
  const [first = '', ...more] = pattern
  if (more.length === 0) return Prisma.sql`${column} = ${first}`
  const like = Prisma.sql`${column} like ${pattern.map(escapeLike).join('%')}`
  return first === '' ? like : Prisma.sql`(${begins(column, first)} and ${like})`
}

/** Whether the whole name of a repository, project first, holds a text in letters of either case; paths have small ones only. */
export function nameHolds(asked: string, among: SearchScope['among'], repository: Prisma.Sql): Prisma.Sql {
  const text = asked.toLowerCase()
  const slash = text.indexOf('/')
  const before = slash < 0 ? text : text.slice(0, slash)
  // A name of a project has no slash, so what stands behind the first one is the beginning of a path.
  const named = among.filter(({ name }) =>
    slash < 0 ? name.toLowerCase().includes(before) : name.toLowerCase().endsWith(before),
  )
  const inPath = Prisma.sql`${repository}.path like ${`%${escapeLike(text)}%`}`
  if (named.length === 0) return inPath
  const below = slash < 0 ? '%' : `${escapeLike(text.slice(slash + 1))}%`
  return Prisma.sql`(${inPath} or (${repository}.project_id = any(${idsOf(named)}::int[]) and ${repository}.path like ${below}))`
}

/** Whether the whole name of repository `r` is like this. A project that is named as a whole is found by its index. */
export function repositoryMatches(pattern: NamePattern, among: SearchScope['among']): Prisma.Sql {
  const [first = '', ...more] = pattern
  const slash = first.indexOf('/')
  if (slash >= 0) {
    const named = among.filter(({ name }) => name === first.slice(0, slash))
    return Prisma.sql`(r.project_id = any(${idsOf(named)}::int[]) and ${matches(Prisma.sql`r.path`, [first.slice(slash + 1), ...more])})`
  }
  const names = among.map(({ name }) => name)
  const name = Prisma.sql`((${names}::text[])[array_position(${idsOf(among)}::int[], r.project_id)] || '/' || r.path)`
  // What a name ends with is in its path, behind the first slash if it has one: found by its trigrams.
  const end = pattern.at(-1)!
  const path = Prisma.sql`r.path like ${`%${escapeLike(end.slice(end.indexOf('/') + 1))}`}`
  return Prisma.sql`(${path} and ${matches(name, pattern)})`
}

const idsOf = (projects: SearchScope['among']) => projects.map(({ id }) => id)
