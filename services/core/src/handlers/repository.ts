import {
  deleteRepository,
  findRepositoryDetails,
  grant,
  listRepositoryDetails,
  updateRepository,
  type Grant,
  type Right,
} from '@haven/artifacts'
import { problems } from '@haven/errors'
import { decide } from '@haven/identity'
import { projectIdsByVisibility, projectNodes, type ProjectFacts } from '@haven/projects'
import type { Caller } from '../caller.ts'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { inTime } from '../http/in-time.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import { presentRepository } from '../present/repository.ts'
import { visibleProjectsOf } from '../visible.ts'

export const repositoryHandlers: Handlers = {
  async listRepositories({ project, query, at }, deps) {
    const { total, repositories } = await listRepositoryDetails(deps.db, [project], listQueryOf(query))
    return listAnswer(at, query, total, repositories.map(presentRepository))
  },

  /** Of the projects in which the caller may list them. */
  async listAllRepositories({ query, caller, at }, deps) {
    const { writes } = deps.db
    const ids = await projectIdsByVisibility(writes, await visibleProjectsOf(caller))
    const nodes = [...(await projectNodes(writes, [...ids.public, ...ids.private])).values()]
    const authority = await caller.authority()
    const projects = nodes.filter((node) => {
      const on = { project: { ...node, createdAt: new Date(0) } }
      return decide(authority, { resource: 'repository', action: 'list', on }).allowed
    })
    const { total, repositories } = await listRepositoryDetails(deps.db, projects, listQueryOf(query))
    return listAnswer(at, query, total, repositories.map(presentRepository))
  },

  async getRepository({ project, path }, deps) {
    const found = await findRepositoryDetails(deps.db, project, path.repository_name)
    if (!found) throw problems.nameUnknown({ repository: `${project.name}/${path.repository_name}` })
    return ok(presentRepository(found))
  },

  async updateRepository({ project, path, body, caller }, deps) {
    await updateRepository(deps, grantOf('push', caller, project, path.repository_name), escape(body.description ?? ''))
    return ok()
  },

  async deleteRepository({ project, path, caller }, deps) {
    const granted = grantOf('delete', caller, project, path.repository_name)
    await inTime((signal) => deleteRepository(deps.artifacts, granted, { signal }))
    return ok()
  },
}

/** What the router has just decided, for the use cases that `/v2` shares. */
export const grantOf = <R extends Right>(
  right: R,
  caller: Caller,
  project: ProjectFacts,
  repository: string,
): Grant<R> =>
  grant(right, {
    project,
    repository,
    principal: caller.principal,
    requestId: caller.source.requestId ?? '',
    address: caller.source.address,
    door: 'api',
  })

export const listQueryOf = (query: { q?: string; sort?: string; page?: number; page_size?: number }) => ({
  conditions: parseQ(query.q),
  sort: parseSort(query.sort),
  page: pageOf(query),
})

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&#39;',
  '"': '&#34;',
}

// Harbor keeps descriptions so, and its portal shows them as they are.
const escape = (text: string) => text.replaceAll(/[&<>'"]/g, (char) => entities[char]!)
