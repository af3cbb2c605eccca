import { searchRepositories } from '@haven/artifacts'
import { listProjects, projectNodes, projectsToSearch } from '@haven/projects'
import type { HarborSchemas } from '@haven/proto'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { presentProjectBriefly } from '../present/project.ts'
import { visibleByMembership } from '../visible.ts'

/** More of either kind are not told: everybody may ask, and who finds this many looks for something else. */
const MAX_FOUND = 1000

export const searchHandlers: Handlers = {
  /** Seven statements, however much there is. */
  async search({ query, caller }, deps) {
    const visible = await visibleByMembership(caller)
    const [{ projects }, repositories, authority] = await Promise.all([
      listProjects(deps.db, { visible, nameAsWritten: query.q, page: { number: 1, size: MAX_FOUND } }),
      findRepositories(),
      caller.authority(),
    ])
    const counts = await deps.countRepositories(projects.map(({ id }) => id))
    return ok({
      project: projects.map((project) => ({
        ...presentProjectBriefly({
          project,
          repositoryCount: counts.get(project.id) ?? 0,
          roleIds: authority.rolesOn(project.id).map(({ id }) => id),
        }),
        metadata: { public: String(project.public) },
      })),
      repository: repositories,
    })

    async function findRepositories(): Promise<HarborSchemas['SearchRepository'][]> {
      // On the pool: to look through a large installation takes longer than the pulls behind it should wait.
      const { writes } = deps.db
      const among = await projectsToSearch(deps.db, visible, query.q)
      const found = await searchRepositories(writes, among, query.q, MAX_FOUND)
      const byId = await projectNodes(
        writes,
        found.map(({ projectId }) => projectId),
      )
      return found.flatMap(({ projectId, path, pullCount, artifactCount }) => {
        const project = byId.get(projectId)
        if (!project) return []
        return {
          project_id: projectId,
          project_name: project.name,
          ...(project.public && { project_public: true }),
          repository_name: `${project.name}/${path}`,
          ...(pullCount > 0 && { pull_count: pullCount }),
          ...(artifactCount > 0 && { artifact_count: artifactCount }),
        }
      })
    }
  },
}
