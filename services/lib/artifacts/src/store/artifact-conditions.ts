import { conditionsToSql, escapeLike, fieldOf, Prisma, type Condition, type Fields } from '@haven/db'
import { problems } from '@haven/errors'

/** A project, or one repository of it. */
export type Place = { project: { id: number; name: string }; path?: string }

// Of the rows that are looked at, one by one: `offset 0` keeps Postgres from reading all tags and children of the installation instead.
export const named = Prisma.raw('exists (select from artifacts.tags t where t.manifest_id = m.id offset 0)')
export const ofIndex = Prisma.raw(`exists (
  select from artifacts.manifest_edges e join artifacts.manifests i on i.id = e.manifest_id and i.deleted_at is null
   where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child' offset 0)`)
/** When `m` was pulled last. */
export const lastPull = Prisma.sql`(select p.pulled_at from artifacts.last_pulls p where p.manifest_id = m.id)`

/** Where artifacts `m` and their repositories `r` are read, whether one is a child of an index, and when it was pulled last. */
type Source = { from: Prisma.Sql; isChild: Prisma.Sql; pulled: Prisma.Sql }
export const from = Prisma.sql`artifacts.repositories r join artifacts.manifests m on m.repository_id = r.id and m.deleted_at is null`
export const oneByOne: Source = { from, isChild: ofIndex, pulled: lastPull }
// By their ids first: Postgres takes a million artifacts of a repository for as few as others have, and would pass over those.
export const ofIds = (ids: readonly number[]): Source => ({
  from: Prisma.sql`
    (select m.* from artifacts.manifests m where m.id = any(${ids.map(BigInt)}::bigint[]) and m.deleted_at is null offset 0) m
    join artifacts.repositories r on r.id = m.repository_id`,
  isChild: ofIndex,
  pulled: lastPull,
})
// Of all rows of a place, to count or sort them: its children and pulls are read once. Joined, since a set that does not fit into memory would be
// read for each row; who does not ask for pulls does not read them.
const amongChildren = (place: Place): Source => ({
  from: Prisma.sql`
    ${from}
    left join (select distinct e.repository_id, e.digest
                 from artifacts.manifest_edges e join artifacts.manifests i on i.id = e.manifest_id and i.deleted_at is null
                where e.kind = 'child' and e.repository_id ${place.path === undefined ? Prisma.sql`in` : Prisma.sql`=`} (${repositoriesOf(place)})) child
           on child.repository_id = m.repository_id and child.digest = m.digest
    left join artifacts.last_pulls pulled on pulled.manifest_id = m.id`,
  isChild: Prisma.sql`child.digest is not null`,
  pulled: Prisma.sql`pulled.pulled_at`,
})

/**
 * Beside a name or digest that is looked for in all repositories: their indexes have this condition, so that whoever knows the repository is not led
 * through what all others have of the same name.
 */
export const everywhere = (row: Prisma.Sql) => Prisma.sql`${row}.id > 0`

export const repositoriesOf = ({ project, path }: Place) =>
  Prisma.sql`select x.id from artifacts.repositories x where x.project_id = ${project.id} and x.deleted_at is null
             ${path === undefined ? Prisma.empty : Prisma.sql`and x.path = ${path}`}`
export const inPlace = ({ project, path }: Place) =>
  Prisma.sql`(r.project_id = ${project.id} and r.deleted_at is null ${path === undefined ? Prisma.empty : Prisma.sql`and r.path = ${path}`})`
// One repository by its id: then the index has its artifacts in order, and a page is read from it without sorting them.
export const within = (place: Place) =>
  place.path === undefined
    ? Prisma.sql`(${inPlace(place)} and ${everywhere(Prisma.sql`m`)})`
    : Prisma.sql`m.repository_id = (${repositoriesOf(place)})`

export const fieldsOf = ({ project }: Place, pulled = lastPull): Fields => ({
  id: { column: Prisma.sql`m.id`, type: 'number' },
  type: { column: Prisma.sql`m.type`, type: 'text' },
  media_type: { column: Prisma.sql`coalesce(m.config_media_type, m.media_type)`, type: 'text' },
  manifest_media_type: { column: Prisma.sql`m.media_type`, type: 'text' },
  artifact_type: { column: Prisma.sql`m.artifact_type`, type: 'text' },
  digest: { column: Prisma.sql`m.digest`, type: 'text' },
  size: { column: Prisma.sql`m.total_bytes`, type: 'number' },
  push_time: { column: Prisma.sql`m.pushed_at`, type: 'time' },
  pull_time: { column: pulled, type: 'time' },
  project_id: { column: Prisma.sql`r.project_id`, type: 'number' },
  repository_id: { column: Prisma.sql`m.repository_id`, type: 'number' },
  repository_name: { column: Prisma.sql`(${project.name}::text || '/' || r.path)`, type: 'text' },
})

/** Harbor's own terms for artifacts; everything else is a column (harbor-api.md §2). @throws badRequest */
function special(place: Place, condition: Condition): Prisma.Sql | null {
  switch (condition.field) {
    case 'tags':
      if (condition.match === 'contains') {
        const pattern = `%${escapeLike(condition.value)}%`
        return Prisma.sql`exists (select from artifacts.tags t where t.manifest_id = m.id and t.name ilike ${pattern})`
      }
      if (condition.match !== 'exact') {
        throw wrong('tags', 'fuzzy match value or exact match value')
      }
      if (condition.value === '*') return named
      if (condition.value === 'nil') return Prisma.sql`not ${named}`
      return Prisma.sql`m.id in (select t.manifest_id from artifacts.tags t
                                  where t.repository_id in (${repositoriesOf(place)}) and t.name = ${condition.value}
                                    ${place.path === undefined ? Prisma.sql`and ${everywhere(Prisma.sql`t`)}` : Prisma.empty})`
    case 'labels': {
      const ids = condition.match === 'all' ? condition.values : []
      const whole = ids.filter((id): id is number => typeof id === 'number' && Math.abs(id) < 2 ** 31)
      // Harbor's spelling.
      if (ids.length === 0 || whole.length !== ids.length) {
        throw wrong('labels', 'integer list with intersetion relationship')
      }
      return Prisma.join(
        whole.map(
          (id) =>
            Prisma.sql`exists (select from artifacts.artifact_labels l where l.manifest_id = m.id and l.label_id = ${id})`,
        ),
        ' and ',
      )
    }
    case 'base':
      if (condition.match !== 'exact' || condition.value !== '*') throw wrong('base', 'exact match value with "*"')
      return Prisma.sql`true`
    default:
      return null
  }
}

const wrong = (field: string, allowed: string) =>
  problems.badRequest({ message: `the value of "${field}" query can only be ${allowed}` })

/** What is no accessory and what is asked for. */
export function matching(place: Place, conditions: readonly Condition[], pulled = lastPull): Prisma.Sql[] {
  const terms = conditions.map((condition) => special(place, condition))
  return [
    Prisma.sql`m.subject_digest is null`,
    ...terms.filter((term) => term !== null),
    ...conditionsToSql(
      conditions.filter((_, i) => terms[i] === null),
      fieldsOf(place, pulled),
    ),
  ]
}

/** What a list of artifacts shows: no accessories, and what is only there for the sake of an index when `base=*` asks for it. */
export function shown(place: Place, conditions: readonly Condition[], source: Source): Prisma.Sql {
  const asked = [within(place), ...matching(place, conditions, source.pulled)]
  const all = conditions.some(({ field }) => field === 'base')
  const where = all ? asked : [...asked, Prisma.sql`(not ${source.isChild} or ${named})`]
  return Prisma.sql`${source.from} where ${Prisma.join(where, ' and ')}`
}

/** The same for who looks at all of it: by itself what there are few of. */
export const allShown = (place: Place, conditions: readonly Condition[]) =>
  shown(place, conditions, sourceOfAll(place, conditions))
export const sourceOfAll = (place: Place, conditions: readonly Condition[]) =>
  conditions.some((condition) => findsFew(condition, fieldsOf(place))) ? oneByOne : amongChildren(place)

export const findsFew = (condition: Condition, fields: Fields) =>
  condition.match === 'exact' &&
  (condition.field === 'tags'
    ? !['*', 'nil'].includes(condition.value)
    : [fields.id, fields.digest].includes(fieldOf(fields, condition.field)))

/** Lists pass over a field that there is not, as Harbor's do. */
export const hasField = (place: Place, field: string): boolean =>
  ['tags', 'labels', 'base'].includes(field) || fieldOf(fieldsOf(place), field) !== undefined
