import { escapeLike, Prisma } from '@haven/db'
import type { NamePattern, SearchTerm } from '../search-terms.ts'
import { named } from './artifact-rows.ts'

/** Ids of labels by name. */
export type Labels = ReadonlyMap<string, readonly number[]>

type SearchScope = {
  /** The projects that are searched. */
  among: readonly { id: number; name: string }[]
  labels: Labels
  /** The rows are tags `t`, not artifacts: what is said of tags is about the one of the row. */
  ofTags: boolean
}

/** Conditions on manifests `m` in repositories `r`. Each can be answered from an index, so that the rarest may lead. */
export const searchToSql = (terms: readonly SearchTerm[], scope: SearchScope): Prisma.Sql[] =>
  terms.map((term) => (term.negated ? Prisma.sql`not (${toSql(term, scope)})` : toSql(term, scope)))

function toSql(term: SearchTerm, scope: SearchScope): Prisma.Sql {
  switch (term.field) {
    case 'word':
      if (scope.ofTags) return Prisma.sql`t.name ilike ${`%${escapeLike(term.value)}%`}`
      return Prisma.sql`m.id in (
        select t.manifest_id from artifacts.tags t where ${begins(Prisma.sql`t.name`, term.value)}
        union all
        select n.id from artifacts.manifests n where n.repository_id in (
          select q.id from artifacts.repositories q where q.deleted_at is null and ${nameHolds(term.value, scope.among)}))`
    case 'tag':
      return scope.ofTags
        ? matches(Prisma.sql`t.name`, term.pattern)
        : Prisma.sql`m.id in (select t.manifest_id from artifacts.tags t where ${matches(Prisma.sql`t.name`, term.pattern)})`
    case 'repository':
      return repositoryMatches(term.pattern, scope.among)
    case 'digest':
      // The operators of the index, whatever the database sorts by; a digest has nothing above `z`.
      return Prisma.sql`(m.digest ~>=~ ${term.prefix} and m.digest ~<~ ${`${term.prefix}~`})`
    case 'label':
      return Prisma.sql`m.id in (
        select l.manifest_id from artifacts.artifact_labels l where l.label_id = any(${[...(scope.labels.get(term.value) ?? [])]}::int[]))`
    case 'annotation':
      return term.value === null
        ? Prisma.sql`(m.annotations <> '{}' and jsonb_exists(m.annotations, ${term.name}))`
        : Prisma.sql`(m.annotations <> '{}' and m.annotations @> jsonb_build_object(${term.name}::text, ${term.value}::text))`
    case 'platform': {
      const { os, architecture } = term
      const is = (osOf: Prisma.Sql, architectureOf: Prisma.Sql) =>
        architecture === null
          ? Prisma.sql`${osOf} = ${os}`
          : Prisma.sql`${osOf} = ${os} and ${architectureOf} = ${architecture}`
      return Prisma.sql`m.id in (
        select e.manifest_id from artifacts.manifest_edges e
         where e.kind = 'child' and e.platform is not null and ${is(Prisma.sql`e.platform ->> 'os'`, Prisma.sql`e.platform ->> 'architecture'`)}
        union all
        select n.id from artifacts.manifests n
         where ${is(Prisma.sql`n.facts #>> '{attributes,os}'`, Prisma.sql`n.facts #>> '{attributes,architecture}'`)})`
    }
    case 'type':
      return Prisma.sql`m.type = ${term.value}`
    case 'pushed':
    case 'pulled': {
      const row = Prisma.raw(scope.ofTags ? 't' : 'm')
      const column = term.field === 'pushed' ? Prisma.sql`${row}.pushed_at` : Prisma.sql`${row}.pulled_at`
      return term.after ? Prisma.sql`${column} > ${term.time}` : Prisma.sql`${column} < ${term.time}`
    }
    case 'never pulled':
      return scope.ofTags ? Prisma.sql`t.pulled_at is null` : Prisma.sql`m.pulled_at is null`
    case 'untagged':
      return Prisma.sql`not ${named}`
  }
}

const begins = (column: Prisma.Sql, prefix: string) =>
  Prisma.sql`(${column} >= ${prefix} and ${column} < ${`${prefix}~`})`

/** As a whole. What stands before the first star is looked up in the index. */
function matches(column: Prisma.Sql, pattern: NamePattern): Prisma.Sql {
  const [first = '', ...more] = pattern
  if (more.length === 0) return Prisma.sql`${column} = ${first}`
  const like = Prisma.sql`${column} like ${pattern.map(escapeLike).join('%')}`
  return first === '' ? like : Prisma.sql`(${begins(column, first)} and ${like})`
}

/** Whether the whole name of a repository `q`, project first, holds a text. */
function nameHolds(text: string, among: SearchScope['among']): Prisma.Sql {
  const slash = text.indexOf('/')
  const before = (slash < 0 ? text : text.slice(0, slash)).toLowerCase()
  // A name of a project has no slash, so what stands behind the first one is the beginning of a path.
  const named = among.filter(({ name }) =>
    slash < 0 ? name.toLowerCase().includes(before) : name.toLowerCase().endsWith(before),
  )
  const below = slash < 0 ? '%' : `${escapeLike(text.slice(slash + 1))}%`
  return Prisma.sql`(q.path ilike ${`%${escapeLike(text)}%`} or (q.project_id = any(${idsOf(named)}::int[]) and q.path ilike ${below}))`
}

/** Whether the whole name of repository `r` is like this. A project that is named as a whole is found by its index. */
function repositoryMatches(pattern: NamePattern, among: SearchScope['among']): Prisma.Sql {
  const [first = '', ...more] = pattern
  const slash = first.indexOf('/')
  if (slash >= 0) {
    const named = among.filter(({ name }) => name === first.slice(0, slash))
    return Prisma.sql`(r.project_id = any(${idsOf(named)}::int[]) and ${matches(Prisma.sql`r.path`, [first.slice(slash + 1), ...more])})`
  }
  const names = among.map(({ name }) => name)
  const name = Prisma.sql`((${names}::text[])[array_position(${idsOf(among)}::int[], r.project_id)] || '/' || r.path)`
  return matches(name, pattern)
}

const idsOf = (projects: SearchScope['among']) => projects.map(({ id }) => id)
