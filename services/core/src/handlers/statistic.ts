import { countRepositoriesIn, storedBytes } from '@haven/artifacts'
import { projectIdsByVisibility } from '@haven/projects'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { visibleByMembership } from '../visible.ts'

export const statisticHandlers: Handlers = {
  /** Who sees everything is told totals; others count what is public and their own. */
  async getStatistic({ caller }, deps) {
    const visible = await visibleByMembership(caller)
    // On the pool: to count a large installation takes longer than the pulls behind it should wait.
    const { writes } = deps.db
    const projectIds = await projectIdsByVisibility(writes, visible)
    const [repositories, bytes] = await Promise.all([
      countRepositoriesIn(writes, projectIds),
      visible === 'all' ? storedBytes(writes) : 0,
    ])
    const total = (count: { public: number; private: number }) => (visible === 'all' ? count.public + count.private : 0)
    const projects = { public: projectIds.public.length, private: projectIds.private.length }
    return ok({
      public_project_count: projects.public,
      private_project_count: projects.private,
      public_repo_count: repositories.public,
      private_repo_count: repositories.private,
      total_project_count: total(projects),
      total_repo_count: total(repositories),
      total_storage_consumption: bytes,
    })
  },
}
