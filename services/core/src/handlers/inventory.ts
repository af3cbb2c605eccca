import { contentSize, listTagHistory, previewDeletion } from '@haven/artifacts'
import { problems } from '@haven/errors'
import type { Digest } from '@haven/oci'
import type { ProjectFacts } from '@haven/projects'
import { may } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { formatCursor, keysetAnswer, parseCursor } from '../lists/keyset.ts'
import { presentDeletion, presentSize, presentTagChange } from '../present/inventory.ts'
import { requireArtifact } from './artifact.ts'
import { grantOf } from './repository.ts'

const PAGE_SIZE = 50

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

/** Whoever sees the project only because it is public learns no names of accounts. */
const mayKnowNames = (caller: Caller, project: ProjectFacts): Promise<boolean> =>
  may(caller, { resource: 'member', action: 'list', on: { project } })
