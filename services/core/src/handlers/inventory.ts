import {
  contentSize,
  findRepositoryDetails,
  listArtifactRows,
  listTagHistory,
  listTagRows,
  MAX_COUNTED,
  parseSearch,
  previewDeletion,
  searchArtifacts,
  type Keyset,
  type RowKey,
  type RowPage,
  type TagOrder,
} from '@haven/artifacts'
import { problems } from '@haven/errors'
import type { Digest } from '@haven/oci'
import { decide, type Permission } from '@haven/identity'
import { findLabels, labelIdsByName, projectIdsByVisibility, projectNodes, type ProjectFacts } from '@haven/projects'
import { may } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { ok, type Answer } from '../http/answer.ts'
import type { Target } from '../http/request.ts'
import { formatCursor, keysetAnswer, parseCursor } from '../lists/keyset.ts'
import { presentDeletion, presentRow, presentSize, presentTagChange, presentTagRow } from '../present/inventory.ts'
import { visibleProjectsOf } from '../visible.ts'
import { failureOf, requireArtifact } from './artifact.ts'
import { grantOf } from './repository.ts'

const PAGE_SIZE = 50
const listing: Permission = { resource: 'artifact', action: 'list' }

/** What repositories hold, as our own API tells it. */
export const inventoryHandlers: Handlers = {
  async listTagHistory({ project, path, query, caller, at }, deps) {
    const place = { projectId: project.id, path: path.repository_name }
    const cursor = parseCursor(query.cursor, 'history', 1)
    const before = cursor?.row ? String(cursor.row[0]) : null
    if (before !== null && !/^\d{1,18}$/.test(before))
      throw problems.badRequest({ message: 'cursor: no place in a history' })
    const { changes, next } = await listTagHistory(deps, place, path.tag_name, {
      before,
      limit: query.page_size ?? PAGE_SIZE,
    })
    if (changes.length === 0 && before === null) {
      throw problems.notFound({ message: `${project.name}/${path.repository_name} never had a tag ${path.tag_name}` })
    }
    const named = await mayKnowNames(caller, project)
    return keysetAnswer(
      at,
      { next: next === null ? null : formatCursor('history', { backwards: false, row: [next] }) },
      changes.map((change) => presentTagChange(change, named)),
    )
  },

  async listTagRows({ project, path, query, caller, at }, deps) {
    const sort = query.sort ?? '-version'
    const order = sort.replace('-', '') as TagOrder
    const place = { project, path: path.repository_name }
    const read = async (keyset: Keyset) =>
      listTagRows(deps.artifacts, place, { ...(await searchOf(deps, query.q)), order }, keyset, failureOf(deps))
    const page = await readPage({ deps, project, path, query, sort, width: order === 'pushed' ? 2 : 1 }, read)
    const view = await viewOf(deps, caller, project, page.rows)
    return rowsAnswer(
      at,
      sort,
      page,
      page.rows.map((row) => presentTagRow(row, view)),
    )
  },

  async listArtifactRows({ project, path, query, caller, at }, deps) {
    const sort = query.sort ?? '-pushed'
    const place = { project, path: path.repository_name }
    const read = async (keyset: Keyset) =>
      listArtifactRows(deps.artifacts, place, await searchOf(deps, query.q), keyset, failureOf(deps))
    const page = await readPage({ deps, project, path, query, sort, width: 2 }, read)
    const view = await viewOf(deps, caller, project, page.rows)
    return rowsAnswer(
      at,
      sort,
      page,
      page.rows.map((row) => presentRow(row, view)),
    )
  },

  /** Of the projects in which the caller may list artifacts. */
  async searchArtifacts({ query, caller, at }, deps) {
    const search = await searchOf(deps, query.q)
    const projects = await projectsOf(deps, caller)
    const keyset = keysetOf({ ...query, cursor: opened(deps, query.cursor) }, 'found', 2)
    const page = await searchArtifacts(deps.artifacts, projects, search, keyset, failureOf(deps))
    if (!page) throw noPlace()
    const labels = await labelsOf(deps, page.rows)
    const rows = await Promise.all(
      page.rows.map(async (row) => {
        const project = await deps.directory.byId(row.projectId)
        return project && presentRow(row, { project, labels, named: await mayKnowNames(caller, project) })
      }),
    )
    const { prev, next } = linksOf('found', keyset, page)
    return keysetAnswer(
      at,
      { prev: sealed(deps, prev), next: sealed(deps, next) },
      rows.filter((row) => row !== null), // of a project that was deleted meanwhile
    )
  },

  async previewDeletion({ project, path, caller }, deps) {
    const { digest } = await requireArtifact(deps, project, path)
    const grant = grantOf('delete', caller, project, path.repository_name)
    return ok(presentDeletion(await previewDeletion(deps.artifacts, grant, digest as Digest)))
  },

  async getProjectSize({ project }, deps) {
    return ok(presentSize((await contentSize(deps, { projectId: project.id }))!))
  },

  async getRepositorySize({ project, path }, deps) {
    const size = await contentSize(deps, { projectId: project.id, path: path.repository_name })
    if (!size) throw problems.nameUnknown({ repository: `${project.name}/${path.repository_name}` })
    return ok(presentSize(size))
  },
}

type Asked = { q?: string; cursor?: string | undefined; page?: number; page_size?: number }
/** Pages by number read what they leave out. */
const MAX_NUMBERED_ROWS = 10_000

// A search over projects may stop at an artifact that its caller may not see: when that was pushed is nothing for him.
const sealed = ({ sealer }: CoreContext, cursor: string | null) => cursor && sealer.seal(cursor)

/** @throws badRequest for what no link of ours carries. */
function opened({ sealer }: CoreContext, cursor: string | undefined): string | undefined {
  if (cursor === undefined) return undefined
  try {
    return sealer.open(cursor)
  } catch {
    return '' // no link of this list, as parseCursor says
  }
}

const noPlace = () => problems.badRequest({ message: 'cursor: no row of this list has such a place' })

function keysetOf({ cursor: text, page = 1, page_size: size = PAGE_SIZE }: Asked, sort: string, width: number): Keyset {
  const cursor = parseCursor(text, sort, width)
  const offset = cursor ? 0 : (page - 1) * size
  if (offset + size > MAX_NUMBERED_ROWS) {
    throw problems.badRequest({
      message: `page: only the first ${MAX_NUMBERED_ROWS} rows have numbers, the rest is reached by links`,
    })
  }
  const descending = sort.startsWith('-') || sort === 'found'
  return { descending, from: cursor?.row ?? null, backwards: cursor?.backwards ?? false, offset, size }
}

/** Terms of a search and the labels that they name. @throws badRequest */
export async function searchOf(deps: CoreContext, q: string | undefined) {
  const terms = parseSearch(q, new Date())
  const names = terms.flatMap((term) => (term.field === 'label' ? [term.value] : []))
  return { terms, labels: await labelIdsByName(deps, names) }
}

type Reading = {
  deps: CoreContext
  project: ProjectFacts
  path: { repository_name: string }
  query: Asked
  sort: string
  width: number
}

/** @throws nameUnknown, badRequest */
async function readPage<Row>(
  { deps, project, path, query, sort, width }: Reading,
  read: (keyset: Keyset) => Promise<RowPage<Row> | null>,
): Promise<RowPage<Row> & { keyset: Keyset }> {
  const keyset = keysetOf(query, sort, width)
  const page = await read(keyset)
  if (!page) throw noPlace()
  if (page.rows.length === 0 && !(await findRepositoryDetails(deps.db, project, path.repository_name))) {
    throw problems.nameUnknown({ repository: `${project.name}/${path.repository_name}` })
  }
  return { ...page, keyset }
}

/** Where a list goes on, before and behind the page; behind what was looked at, when that did not fill it. */
function linksOf<Row>(sort: string, { from, backwards, offset }: Keyset, { rows, more, stopped }: RowPage<Row>) {
  const cursor = (goBack: boolean, row: RowKey | undefined) =>
    row ? formatCursor(sort, { backwards: goBack, row }) : null
  const reached = (goBack: boolean, row: { key: RowKey } | undefined) =>
    cursor(goBack, (goBack === backwards ? stopped : null) ?? row?.key)
  const [before, behind] = backwards ? [more, from !== null] : [from !== null || offset > 0, more]
  return {
    prev: before ? reached(true, rows[0]) : null,
    next: behind ? reached(false, rows.at(-1)) : null,
    last: behind ? formatCursor(sort, { backwards: true, row: null }) : null,
  }
}

function rowsAnswer<Row>(
  at: Target,
  sort: string,
  page: RowPage<Row> & { keyset: Keyset },
  items: readonly unknown[],
): Answer {
  const { total } = page
  const counted = total !== null && {
    'X-Total-Count': String(Math.min(total, MAX_COUNTED)),
    'X-Total-Count-Relation': total > MAX_COUNTED ? 'gte' : 'eq',
  }
  return keysetAnswer(at, linksOf(sort, page.keyset, page), items, { ...counted })
}

const labelsOf = (deps: CoreContext, rows: readonly { labelIds: number[] | null }[]) =>
  findLabels(
    deps,
    rows.flatMap(({ labelIds }) => labelIds ?? []),
  )

const viewOf = async (
  deps: CoreContext,
  caller: Caller,
  project: ProjectFacts,
  rows: readonly { labelIds: number[] | null }[],
) => ({ project, labels: await labelsOf(deps, rows), named: await mayKnowNames(caller, project) })

/** Where the caller may list artifacts, and do this to them. */
export async function projectsOf(
  { db }: CoreContext,
  caller: Caller,
  also: Permission = listing,
): Promise<{ id: number; name: string }[]> {
  const ids = await projectIdsByVisibility(db.writes, await visibleProjectsOf(caller))
  const nodes = [...(await projectNodes(db.writes, [...ids.public, ...ids.private])).values()]
  const authority = await caller.authority()
  return nodes.filter((node) => {
    const on = { project: { ...node, createdAt: new Date(0) } }
    return [listing, also].every((permission) => decide(authority, { ...permission, on }).allowed)
  })
}

/** Whoever sees the project only because it is public learns no names of accounts. */
const mayKnowNames = (caller: Caller, project: ProjectFacts): Promise<boolean> =>
  may(caller, { resource: 'member', action: 'list', on: { project } })
