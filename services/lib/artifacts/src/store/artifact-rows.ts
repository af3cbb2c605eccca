import {
  conditionsToSql,
  escapeLike,
  fieldOf,
  keyOfList,
  listRows,
  orderOf,
  orderToSql,
  pageToSql,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { problems } from '@haven/errors'
import type { Annotations, Platform, Reference } from '@haven/oci'
import { rememberedKeys, type RememberedList } from './remembered-lists.ts'

/** A project, or one repository of it. */
export type Place = { project: { id: number; name: string }; path?: string }

/** What of an artifact is wanted beside its own row. */
export type ArtifactParts = {
  tags?: boolean
  labels?: boolean
  accessories?: boolean
  /** Accessories of the indexes that name it. */
  inherited?: boolean
}

export type ArtifactTag = { id: number; name: string; pushedAt: string; pulledAt: string | null }
export type ArtifactReference = {
  digest: string
  /** Null for a manifest that the repository does not have. */
  childId: number | null
  platform: Platform | null
  annotations: Annotations | null
  urls: string[]
}
export type Accessory = {
  id: number
  digest: string
  /** Harbor's word: signature.cosign, subject.accessory, … */
  type: string
  sizeBytes: number
  pushedAt: string
  subjectDigest: string
  /** Null while the repository does not have the subject. */
  subjectId: number | null
}

/** Times of what hangs on it are as Postgres writes them in JSON. */
export type ArtifactRow = {
  id: number
  repositoryId: number
  path: string
  digest: string
  mediaType: string
  configMediaType: string | null
  artifactType: string | null
  kind: 'image' | 'index'
  type: string
  sizeBytes: number
  subjectDigest: string | null
  annotations: Annotations
  facts: Record<string, unknown>
  pushedBy: string | null
  pushedAt: Date
  pulledAt: Date | null
  references: ArtifactReference[] | null
  /** Others follow: a list tells the first `MAX_LISTED_REFERENCES` of each index. */
  moreReferences: boolean
  tags: ArtifactTag[] | null
  labelIds: number[] | null
  accessories: Accessory[] | null
  inherited: Accessory[] | null
}

// Harbor knows a signature that Cosign made by its layer, since the oldest ones have an image's config.
const accessoryType = (m: string) =>
  Prisma.raw(`case
    when ${m}.artifact_type = 'application/vnd.cncf.notary.signature' then 'signature.notation'
    when ${m}.config_media_type = 'application/vnd.goharbor.harbor.sbom.v1' then 'sbom.harbor'
    when ${m}.artifact_type in ('application/vnd.dev.cosign.artifact.sig.v1+json', 'application/vnd.dev.sigstore.bundle.v0.3+json')
      or ${m}.config_media_type = 'application/vnd.dev.cosign.artifact.sig.v1+json'
      or exists (select from artifacts.manifest_edges l
                  where l.manifest_id = ${m}.id and l.kind = 'layer' and l.media_type = 'application/vnd.dev.cosign.simplesigning.v1+json')
      then 'signature.cosign'
    else 'subject.accessory' end`)

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
const oneByOne: Source = { from, isChild: ofIndex, pulled: lastPull }
// By their ids first: Postgres takes a million artifacts of a repository for as few as others have, and would pass over those.
const ofIds = (ids: readonly number[]): Source => ({
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

const none = Prisma.sql`null::jsonb`

const tags = Prisma.sql`(
  select jsonb_agg(jsonb_build_object('id', t.id, 'name', t.name, 'pushedAt', t.pushed_at, 'pulledAt', t.pulled_at)
                   order by t.pushed_at desc, t.id desc)
    from artifacts.tags t where t.manifest_id = m.id)`

const labelIds = Prisma.sql`(
  select jsonb_agg(l.label_id order by l.created_at, l.label_id) from artifacts.artifact_labels l where l.manifest_id = m.id)`

const accessory = Prisma.sql`jsonb_build_object(
  'id', a.id, 'digest', a.digest, 'type', ${accessoryType('a')}, 'sizeBytes', a.total_bytes, 'pushedAt', a.pushed_at,
  'subjectDigest', a.subject_digest, 'subjectId', s.id)`

const accessories = Prisma.sql`(
  select jsonb_agg(${accessory} order by a.id)
    from artifacts.manifests a join artifacts.manifests s on s.id = m.id
   where a.repository_id = m.repository_id and a.subject_digest = m.digest and a.deleted_at is null)`

const inherited = Prisma.sql`(
  select jsonb_agg(${accessory} order by a.id)
    from artifacts.manifest_edges e
    join artifacts.manifests s on s.id = e.manifest_id and s.deleted_at is null
    join artifacts.manifests a on a.repository_id = s.repository_id and a.subject_digest = s.digest and a.deleted_at is null
   where e.repository_id = m.repository_id and e.digest = m.digest and e.kind = 'child')`

/** Of one index in a list: a page of a hundred that hold ten thousand each would be hundreds of megabytes. */
export const MAX_LISTED_REFERENCES = 200

const references = (limit: Prisma.Sql) => Prisma.sql`(
  select jsonb_agg(jsonb_build_object('digest', e.digest, 'childId', c.id, 'platform', e.platform, 'annotations', e.annotations,
                                      'urls', e.urls) order by e.position)
    from (select e.* from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' order by e.position ${limit}) e
    left join artifacts.manifests c on c.repository_id = e.repository_id and c.digest = e.digest and c.deleted_at is null
   where m.kind = 'index')`
const someReferences = Prisma.sql`
  ${references(Prisma.sql`limit ${MAX_LISTED_REFERENCES}`)} as "references",
  m.kind = 'index' and exists (
    select from artifacts.manifest_edges e where e.manifest_id = m.id and e.kind = 'child' offset ${MAX_LISTED_REFERENCES}) as "moreReferences"`
const allReferences = Prisma.sql`${references(Prisma.empty)} as "references", false as "moreReferences"`

export const columns = (parts: ArtifactParts, children = someReferences) => Prisma.sql`
  m.id::float8 as id, m.repository_id as "repositoryId", r.path, m.digest, m.media_type as "mediaType",
  m.config_media_type as "configMediaType", m.artifact_type as "artifactType", m.kind, m.type, m.total_bytes::float8 as "sizeBytes",
  m.subject_digest as "subjectDigest", m.annotations, m.facts, m.pushed_by as "pushedBy", m.pushed_at as "pushedAt", ${lastPull} as "pulledAt",
  ${children},
  ${parts.tags ? tags : none} as tags,
  ${parts.labels ? labelIds : none} as "labelIds",
  ${parts.accessories ? accessories : none} as accessories,
  ${parts.inherited ? inherited : none} as inherited`

/**
 * Beside a name or digest that is looked for in all repositories: their indexes have this condition, so that whoever knows the repository is not led
 * through what all others have of the same name.
 */
export const everywhere = (row: Prisma.Sql) => Prisma.sql`${row}.id > 0`

const repositoriesOf = ({ project, path }: Place) =>
  Prisma.sql`select x.id from artifacts.repositories x where x.project_id = ${project.id} and x.deleted_at is null
             ${path === undefined ? Prisma.empty : Prisma.sql`and x.path = ${path}`}`
const inPlace = ({ project, path }: Place) =>
  Prisma.sql`(r.project_id = ${project.id} and r.deleted_at is null ${path === undefined ? Prisma.empty : Prisma.sql`and r.path = ${path}`})`
// One repository by its id: then the index has its artifacts in order, and a page is read from it without sorting them.
const within = (place: Place) =>
  place.path === undefined
    ? Prisma.sql`(${inPlace(place)} and ${everywhere(Prisma.sql`m`)})`
    : Prisma.sql`m.repository_id = (${repositoriesOf(place)})`

const fieldsOf = ({ project }: Place, pulled = lastPull): Fields => ({
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
function matching(place: Place, conditions: readonly Condition[], pulled = lastPull): Prisma.Sql[] {
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
function shown(place: Place, conditions: readonly Condition[], source: Source): Prisma.Sql {
  const asked = [within(place), ...matching(place, conditions, source.pulled)]
  const all = conditions.some(({ field }) => field === 'base')
  const where = all ? asked : [...asked, Prisma.sql`(not ${source.isChild} or ${named})`]
  return Prisma.sql`${source.from} where ${Prisma.join(where, ' and ')}`
}

/** The same for who looks at all of it: by itself what there are few of. */
const allShown = (place: Place, conditions: readonly Condition[]) =>
  shown(place, conditions, sourceOfAll(place, conditions))
const sourceOfAll = (place: Place, conditions: readonly Condition[]) =>
  conditions.some((condition) => findsFew(condition, fieldsOf(place))) ? oneByOne : amongChildren(place)

const findsFew = (condition: Condition, fields: Fields) =>
  condition.match === 'exact' &&
  (condition.field === 'tags'
    ? !['*', 'nil'].includes(condition.value)
    : [fields.id, fields.digest].includes(fieldOf(fields, condition.field)))

export type ArtifactQuery = ArtifactParts & {
  conditions?: readonly Condition[]
  sort?: readonly Sort[]
  page: Page
  /** Of each repository only the artifact that was pushed last. */
  latest?: boolean
}

/** What of a repository's list is counted by its parts: all of it, what has a tag or none, what was pushed from a time until before another. */
type Listed = { tagged: boolean | null; since: Date | null; until: Date | null; oldestFirst: boolean }

/** How a list is read by its parts; null when it asks for more than they tell. */
function listedOf(place: Place, { conditions = [], sort = [], latest = false, page }: ArtifactQuery): Listed | null {
  if (place.path === undefined || latest || page.size === 0) return null
  const fields = fieldsOf(place)
  const sorted = sort.filter(({ field }) => fieldOf(fields, field))
  if (sorted.length > 1 || sorted.some(({ field }) => fieldOf(fields, field) !== fields.push_time)) return null
  const listed: Listed = { tagged: null, since: null, until: null, oldestFirst: sorted[0]?.descending === false }
  for (const condition of conditions) {
    if (condition.field === 'tags' && condition.match === 'exact' && ['*', 'nil'].includes(condition.value)) {
      const tagged = condition.value === '*'
      if (listed.tagged === !tagged) return null
      listed.tagged = tagged
    } else if (fieldOf(fields, condition.field) === fields.push_time && condition.match === 'range') {
      const { min, max, exclusive = false } = condition
      if ([min, max].some((time) => time !== undefined && !(time instanceof Date))) return null
      // Times have milliseconds.
      if (min instanceof Date) listed.since = latestOf(listed.since, new Date(min.getTime() + (exclusive ? 1 : 0)))
      if (max instanceof Date) listed.until = earliestOf(listed.until, new Date(max.getTime() + (exclusive ? 0 : 1)))
    } else if (hasField(place, condition.field)) return null
  }
  return listed
}

const latestOf = (a: Date | null, b: Date) => (a && a > b ? a : b)
const earliestOf = (a: Date | null, b: Date) => (a && a < b ? a : b)

/** No repository has as many, and Postgres counts the members of an array in an int4. */
const MAX_SKIPPED = 2 ** 30

/** A repository that is not there has none. */
async function pageListed(
  { prisma }: Pick<Database, 'prisma'>,
  place: Place,
  { number, size }: Page,
  { tagged, since, until, oldestFirst }: Listed,
): Promise<{ total: number; ids: bigint[] }> {
  const skipped = Math.min((number - 1) * size, MAX_SKIPPED)
  const [found] = await prisma.$queryRaw<{ total: number; ids: bigint[] }[]>`
    select f.total::float8 as total, f.ids
      from (${repositoriesOf(place)}) r,
           lateral artifacts.page_listed(r.id, ${skipped}::bigint, ${size}::bigint, ${oldestFirst}::boolean, ${tagged}::boolean,
                                         coalesce(${since}::timestamptz, '-infinity'), coalesce(${until}::timestamptz, 'infinity')) f`
  return found ?? { total: 0, ids: [] }
}

// Of each repository the artifact that was pushed last, of those that match; of one that holds platforms only, Harbor tells the last of those.
const newestOf = (place: Place, conditions: readonly Condition[]) => Prisma.sql`
  cross join lateral (select m.* from artifacts.manifests m
                       where m.repository_id = r.id and m.deleted_at is null and ${Prisma.join(matching(place, conditions), ' and ')}
                       order by m.pushed_at desc, m.id desc limit 1) m`

const newestOfEach = (place: Place, conditions: readonly Condition[]) =>
  Prisma.sql`artifacts.repositories r ${newestOf(place, conditions)} where ${inPlace(place)}`

/** A list as it is remembered. Null where it is asked for without pages. */
function rememberedOf(
  place: Place,
  { conditions = [], sort = [], latest = false, page }: ArtifactQuery,
): RememberedList | null {
  const fields = fieldsOf(place)
  if (page.size === 0) return null
  const byPulls = [...conditions, ...sort].some(({ field }) => fieldOf(fields, field) === fields.pull_time)
  const orderBy = (pulled: Prisma.Sql) =>
    orderToSql(sort, fieldsOf(place, pulled), Prisma.sql`m.pushed_at desc`, Prisma.sql`m.id desc`)
  const order = orderBy(lastPull)
  const name = keyOfList(Prisma.sql`${latest} ${shown(place, conditions, oneByOne)} ${order}`)
  const scope = inPlace(place)
  if (latest) {
    const newest = Prisma.sql`select r.id as key from ${newestOfEach(place, conditions)}`
    return {
      name,
      scope,
      byPulls,
      keys: 'repositories',
      isLong: true,
      whole: Prisma.sql`${newest} order by ${order}`,
      among: (keys) => Prisma.sql`${newest} and r.id = any(${[...keys]}::int[]) order by ${order}`,
    }
  }
  return {
    name,
    scope,
    byPulls,
    keys: 'manifests',
    isLong: !conditions.some((condition) => findsFew(condition, fields)),
    whole: Prisma.sql`select m.id as key from ${allShown(place, conditions)} order by ${orderBy(sourceOfAll(place, conditions).pulled)}`,
    among: (keys) => Prisma.sql`select m.id as key from ${shown(place, conditions, ofIds(keys))} order by ${order}`,
  }
}

/**
 * A page of a project's or repository's artifacts, and how many there are: two statements, however much hangs on them, and a few more when what
 * was listed before has changed (rememberedKeys). Accessories are not listed, nor what is only there for the sake of an index; `base=*` lists those.
 */
export async function artifactRows(
  db: Pick<Database, 'prisma' | 'lists'>,
  place: Place,
  query: ArtifactQuery,
): Promise<{ total: number; rows: ArtifactRow[] }> {
  const { conditions = [], latest = false, page } = query
  // Materialized, so that what hangs on an artifact is looked up for those of the page and no others.
  const read = (places: Prisma.Sql) => db.prisma.$queryRaw<ArtifactRow[]>`
    with page as materialized (${places})
    select ${columns(query)}
      from page p join artifacts.manifests m on m.id = p.id join artifacts.repositories r on r.id = m.repository_id
     where m.deleted_at is null
     order by p.place`
  const readIds = (ids: readonly bigint[]) =>
    read(Prisma.sql`select * from unnest(${[...ids]}::bigint[]) with ordinality as f (id, place)`)
  const listed = listedOf(place, query)
  if (listed) {
    const { total, ids } = await pageListed(db, place, page, listed)
    return { total, rows: ids.length === 0 ? [] : await readIds(ids) }
  }
  const remembered = rememberedOf(place, query)
  const keys = remembered && (await rememberedKeys(db, remembered))
  if (!keys) return readWhole(db, place, query, read)
  const [total, offset] = [keys.length, (page.number - 1) * page.size]
  const some = [...keys.subarray(offset, offset + page.size)]
  if (some.length === 0) return { total, rows: [] }
  const rows = latest
    ? await read(Prisma.sql`
        select m.id, k.place
          from unnest(${some}::int[]) with ordinality as k (id, place) join artifacts.repositories r on r.id = k.id
               ${newestOf(place, conditions)}`)
    : await readIds(some.map(BigInt))
  return { total, rows }
}

/** A list that is not remembered: all that match are looked at, for their number and to find the page. */
async function readWhole(
  db: Pick<Database, 'prisma'>,
  place: Place,
  query: ArtifactQuery,
  read: (page: Prisma.Sql) => Promise<ArtifactRow[]>,
): Promise<{ total: number; rows: ArtifactRow[] }> {
  const { conditions = [], latest = false } = query
  const order = orderToSql(query.sort ?? [], fieldsOf(place), Prisma.sql`m.pushed_at desc`, Prisma.sql`m.id desc`)
  const counted = listedOf(place, { ...query, page: { number: 1, size: 1 }, sort: [] })
  const count = async () => {
    if (counted) return (await pageListed(db, place, { number: 1, size: 0 }, counted)).total
    const [{ total }] = await db.prisma.$queryRaw<[{ total: bigint }]>`
      select count(*) as total from ${latest ? newestOfEach(place, conditions) : allShown(place, conditions)}`
    return Number(total)
  }
  const [rows, total] = await Promise.all([
    read(Prisma.sql`
      select f.id, row_number() over () as place
        from (select m.id from ${latest ? newestOfEach(place, conditions) : shown(place, conditions, oneByOne)} order by ${order} ${pageToSql(query.page)}) f`),
    count(),
  ])
  return { total, rows }
}

/** What an operation needs to know of an artifact. */
export type SelectedArtifact = {
  id: number
  projectId: number
  repositoryId: number
  path: string
  digest: string
  mediaType: string
  artifactType: string | null
  subjectDigest: string | null
  pushedAt: Date
}

export const selected = Prisma.sql`
  m.id::float8 as id, r.project_id as "projectId", m.repository_id as "repositoryId", r.path, m.digest, m.media_type as "mediaType", m.artifact_type as "artifactType",
  m.subject_digest as "subjectDigest", m.pushed_at as "pushedAt"`

/** Artifacts that match and were there at some time, the newest first, below an id. */
export const matchingArtifacts = (
  { prisma }: Pick<Database, 'prisma'>,
  place: Place,
  { conditions, pushedUntil, below, limit }: Matching & { below: number | null; limit: number },
): Promise<SelectedArtifact[]> => prisma.$queryRaw<SelectedArtifact[]>`
  select ${selected} from ${shown(place, conditions, oneByOne)} and m.pushed_at <= ${pushedUntil}
     ${below === null ? Prisma.empty : Prisma.sql`and m.id < ${BigInt(below)}`}
   order by m.id desc limit ${limit}`

type Matching = { conditions: readonly Condition[]; pushedUntil: Date }

/** Lists pass over a field that there is not, as Harbor's do. */
export const hasField = (place: Place, field: string): boolean =>
  ['tags', 'labels', 'base'].includes(field) || fieldOf(fieldsOf(place), field) !== undefined

/** How many match. @throws badRequest for what cannot be asked. */
export async function countMatching(
  { prisma }: Pick<Database, 'prisma'>,
  place: Place,
  conditions: readonly Condition[],
): Promise<number> {
  const [count] = await prisma.$queryRaw<[{ total: bigint }]>`
    select count(*) as total from ${allShown(place, conditions)}`
  return Number(count.total)
}

/** Those of the artifacts of some projects that are still there, by their ids. */
export const artifactsById = (
  { prisma }: Pick<Database, 'prisma'>,
  projectIds: readonly number[],
  ids: readonly number[],
): Promise<SelectedArtifact[]> => prisma.$queryRaw<SelectedArtifact[]>`
  select ${selected} from ${from} where m.id = any(${ids.map(BigInt)}) and r.project_id = any(${[...projectIds]}::int[]) and r.deleted_at is null`

/** Ids of artifacts that are named, in the order of the names; null for one that is not there. */
export async function idsOfNamed(
  { prisma }: Pick<Database, 'prisma'>,
  projectId: number,
  named: readonly { path: string; reference: Reference }[],
): Promise<(number | null)[]> {
  const rows = await prisma.$queryRaw<{ id: number | null }[]>`
    select coalesce(d.id, t.manifest_id)::float8 as id
      from unnest(${named.map(({ path }) => path)}::text[], ${named.map(({ reference }) => reference.digest ?? null)}::text[],
                  ${named.map(({ reference }) => reference.tag ?? null)}::text[]) with ordinality as n(path, digest, tag, place)
      left join artifacts.repositories r on r.project_id = ${projectId} and r.path = n.path and r.deleted_at is null
      left join artifacts.manifests d on d.repository_id = r.id and d.digest = n.digest and d.deleted_at is null
      left join artifacts.tags t on t.repository_id = r.id and t.name = n.tag
     order by n.place`
  return rows.map(({ id }) => id)
}

/** One artifact, whatever it is: accessories and children too. Null when there is none. */
export async function artifactRow(
  { prisma }: Pick<Database, 'prisma'>,
  place: Required<Place>,
  reference: Reference,
  parts: ArtifactParts,
): Promise<ArtifactRow | null> {
  const one =
    reference.tag === undefined
      ? Prisma.sql`m.digest = ${reference.digest}`
      : Prisma.sql`m.id = (select t.manifest_id from artifacts.tags t where t.repository_id = r.id and t.name = ${reference.tag})`
  const [row] = await prisma.$queryRaw<ArtifactRow[]>`
    select ${columns(parts, allReferences)} from ${from} where ${within(place)} and ${one}`
  return row ?? null
}

const tagFields: Fields = {
  id: { column: Prisma.sql`t.id`, type: 'number' },
  name: { column: Prisma.sql`t.name`, type: 'text' },
  version: { column: Prisma.sql`t.version_key`, type: 'text' },
  repository_id: { column: Prisma.sql`t.repository_id`, type: 'number' },
  artifact_id: { column: Prisma.sql`t.manifest_id`, type: 'number' },
  push_time: { column: Prisma.sql`t.pushed_at`, type: 'time' },
  pull_time: { column: Prisma.sql`t.pulled_at`, type: 'time' },
}

export type ListQuery = { conditions?: readonly Condition[]; sort?: readonly Sort[]; page: Page }
export type TagRow = { id: number; name: string; pushedAt: Date; pulledAt: Date | null }

/** A page of the tags of an artifact, the one pushed last first, and how many there are. */
export async function tagRows(
  { prisma }: Pick<Database, 'prisma'>,
  manifestId: number,
  query: ListQuery,
): Promise<{ total: number; rows: TagRow[] }> {
  return listRows<TagRow>(prisma, {
    columns: Prisma.sql`t.id::float8 as id, t.name, t.pushed_at as "pushedAt", t.pulled_at as "pulledAt"`,
    from: Prisma.sql`artifacts.tags t`,
    where: [Prisma.sql`t.manifest_id = ${BigInt(manifestId)}`, ...conditionsToSql(query.conditions ?? [], tagFields)],
    order: orderOf(
      query.sort ?? [],
      tagFields,
      [{ column: Prisma.sql`t.pushed_at`, descending: true }],
      Prisma.sql`t.id`,
    ),
    page: query.page,
  })
}

const accessoryFields: Fields = {
  id: { column: Prisma.sql`x.id`, type: 'number' },
  artifact_id: { column: Prisma.sql`x.id`, type: 'number' },
  type: { column: Prisma.sql`x.type`, type: 'text' },
  digest: { column: Prisma.sql`x.digest`, type: 'text' },
  size: { column: Prisma.sql`x.total_bytes`, type: 'number' },
  subject_artifact_id: { column: Prisma.sql`x.subject_id`, type: 'number' },
  subject_artifact_digest: { column: Prisma.sql`x.subject_digest`, type: 'text' },
  creation_time: { column: Prisma.sql`x.pushed_at`, type: 'time' },
}

/** A page of what hangs on an artifact, the oldest first, and how much there is. */
export async function accessoryRows(
  { prisma }: Pick<Database, 'prisma'>,
  subject: { id: number; repositoryId: number; digest: string },
  query: ListQuery,
): Promise<{ total: number; rows: Accessory[] }> {
  const source = Prisma.sql`(
    select a.id, a.digest, ${accessoryType('a')} as type, a.total_bytes, a.pushed_at, a.subject_digest, ${BigInt(subject.id)}::bigint as subject_id
      from artifacts.manifests a
     where a.repository_id = ${subject.repositoryId} and a.subject_digest = ${subject.digest} and a.deleted_at is null) x`
  const { total, rows } = await listRows<{ accessory: Accessory }>(prisma, {
    columns: Prisma.sql`
      jsonb_build_object('id', x.id, 'digest', x.digest, 'type', x.type, 'sizeBytes', x.total_bytes, 'pushedAt', x.pushed_at,
                         'subjectDigest', x.subject_digest, 'subjectId', x.subject_id) as accessory`,
    from: source,
    where: [Prisma.sql`true`, ...conditionsToSql(query.conditions ?? [], accessoryFields)],
    order: orderOf(
      query.sort ?? [],
      accessoryFields,
      [{ column: Prisma.sql`x.pushed_at`, descending: false }],
      Prisma.sql`x.id`,
    ),
    page: query.page,
  })
  return { total, rows: rows.map(({ accessory }) => accessory) }
}
