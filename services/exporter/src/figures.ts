import { countRepositoriesIn, projectContents, storeBacklog, storedBytes, type Backlog } from '@haven/artifacts'
import type { Database } from '@haven/db'
import { outboxLag } from '@haven/events'
import { countMembers } from '@haven/identity'
import { projectFigures, projectIdsByVisibility, type ProjectFigures } from '@haven/projects'
import { taskLoad, type TaskLoad } from '@haven/queue'
import type { SettingsReader } from '@haven/settings'

export type Project = ProjectFigures & {
  repositories: number
  pulls: number
  members: number
  artifacts: readonly { type: string; artifacts: number }[]
}

/** What the records say, all of about the same moment. */
export type Figures = {
  projects: { public: number; private: number }
  repositories: { public: number; private: number }
  storedBytes: number
  /** As many as the settings allow. */
  each: readonly Project[]
  tasks: TaskLoad
  backlog: Backlog
  outbox: { events: number; oldestSeconds: number; unsentAuditLines: number }
  authMode: string
  selfRegistration: boolean
}

/** Reads them from the pool for writes: to count a large installation takes longer than the pulls behind it should wait. */
export async function readFigures(
  { db: { writes }, settings }: { db: Pick<Database, 'writes'>; settings: SettingsReader },
  maxProjects: number,
): Promise<Figures> {
  const [ids, some] = await Promise.all([projectIdsByVisibility(writes, 'all'), projectFigures(writes, maxProjects)])
  const shown = some.map(({ id }) => id)
  const repositories = await countRepositoriesIn(writes, ids)
  const contents = await projectContents(writes, shown)
  const members = await countMembers(writes, shown)
  const bytes = await storedBytes(writes)
  const tasks = await taskLoad(writes)
  const backlog = await storeBacklog(writes)
  const outbox = await outboxLag(writes)
  const { auth_mode: authMode, self_registration: selfRegistration } = await settings.read()

  const repositoriesOf = new Map(contents.repositories.map((row) => [row.projectId, row]))
  const artifactsOf = Map.groupBy(contents.artifacts, (row) => row.projectId)
  return {
    projects: { public: ids.public.length, private: ids.private.length },
    repositories,
    storedBytes: bytes,
    each: some.map((project) => ({
      ...project,
      repositories: repositoriesOf.get(project.id)?.repositories ?? 0,
      pulls: repositoriesOf.get(project.id)?.pulls ?? 0,
      members: members.get(project.id) ?? 0,
      artifacts: artifactsOf.get(project.id) ?? [],
    })),
    tasks,
    backlog,
    outbox,
    authMode,
    selfRegistration,
  }
}
