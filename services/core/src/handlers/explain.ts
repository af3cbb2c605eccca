import { explainDigest, projectsHolding } from '@haven/artifacts/gc'
import { problems } from '@haven/errors'
import {
  anonymous,
  decide,
  explainDecision,
  findRobotByName,
  findUserByName,
  grantedResource,
  isKnownPermission,
  type Authority,
  type Principal,
  type Question,
} from '@haven/identity'
import type { ProjectFacts } from '@haven/projects'
import { may, refusal, requireProject, requireSignedIn } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'
import { presentDigest, type MaySee } from '../present/explain.ts'

export const explainHandlers: Handlers = {
  /** What the caller may not see answers like what never was. */
  async explainDigest({ path, caller }, deps) {
    const found = { db: deps.db, projects: deps.directory }
    if (await may(caller, { resource: 'garbage-collection', action: 'read', on: 'system' })) {
      const explained = await explainDigest(found, path.digest)
      if (explained.reasons.length === 0) throw neverHere(path.digest)
      return ok(presentDigest(explained, 'everything'))
    }
    const authority = await caller.authority()
    const projects = await projectsOf(deps, await projectsHolding(deps, path.digest, authority.projectIds()))
    const explained = await explainDigest(found, path.digest, { projectIds: projects.map(({ id }) => id) })
    const named = explained.reasons.flatMap((reason) => ('repository' in reason ? [reason.repository ?? ''] : []))
    const removedFrom = await projectsNamed(deps, new Set(named.map(projectName)))
    const shown = presentDigest(explained, maySee(authority, [...projects, ...removedFrom]))
    if (shown.keptBy.length === 0 && shown.removals.length === 0) {
      throw caller.principal.kind === 'anonymous' ? problems.unauthorized() : neverHere(path.digest)
    }
    return ok(shown)
  },

  async explainPermission({ query, caller }, deps) {
    requireSignedIn(caller)
    const project =
      query.project === undefined
        ? null
        : await requireProject(
            deps,
            caller,
            { resource: 'project', action: 'read' },
            await deps.directory.byName(query.project),
            query.project,
          )
    if (!project && query.repository !== undefined) {
      throw problems.badRequest({ message: 'repository is below a project: name that too' })
    }
    const question: Question = {
      resource: grantedResource(project ? 'project' : 'system', query.resource),
      action: query.action,
      on: project ? { project, ...(query.repository !== undefined && { repository: query.repository }) } : 'system',
    }
    if (!isKnownPermission(question)) {
      const where = project ? 'in a project' : 'on the system'
      throw problems.badRequest({ message: `${query.resource}:${query.action} is no permission ${where}` })
    }
    return ok(explainDecision(await authorityOf(deps, caller, query.principal, project), question))
  },
}

const neverHere = (digest: string) => problems.notFound({ message: `nothing with the digest ${digest} was ever here` })

const projectName = (repository: string) => repository.slice(0, Math.max(0, repository.indexOf('/')))

async function projectsOf({ directory }: CoreContext, ids: readonly number[]): Promise<ProjectFacts[]> {
  const found = await Promise.all(ids.map((id) => directory.byId(id)))
  return found.filter((project) => project !== null)
}

async function projectsNamed({ directory }: CoreContext, names: ReadonlySet<string>): Promise<ProjectFacts[]> {
  const found = await Promise.all([...names].map((name) => directory.byName(name)))
  return found.filter((project) => project !== null)
}

/** Pull makes visible. What was removed before a project of that name was made belonged to another one (threats.md A38). */
function maySee(authority: Authority, projects: readonly ProjectFacts[]): MaySee {
  const byName = new Map(projects.map((project) => [project.name, project]))
  return (repository, removedAt) => {
    const project = byName.get(projectName(repository))
    if (!project || (removedAt && removedAt < project.createdAt)) return false
    const on = { project, repository: repository.slice(project.name.length + 1) }
    return decide(authority, { resource: 'repository', action: 'pull', on }).allowed
  }
}

/** The authority of the principal that is asked about. @throws forbidden, notFound, badRequest */
async function authorityOf(
  deps: CoreContext,
  caller: Caller,
  named: string | undefined,
  project: ProjectFacts | null,
): Promise<Authority> {
  if (named === undefined) return caller.authority()
  if (named === 'anonymous') return deps.authorities.of(anonymous)
  const [, kind, name = ''] = /^(user|robot|group):(.+)$/s.exec(named) ?? []
  if (kind === undefined) {
    throw problems.badRequest({ message: 'principal is user:<name>, robot:<full name>, group:<name> or anonymous' })
  }
  if (caller.principal.kind === kind && caller.name === name) return caller.authority()
  const ofSystem = await may(caller, { resource: 'user', action: 'read', on: 'system' })
  const ofProject = project && (await may(caller, { resource: 'member', action: 'update', on: { project } }))
  if (!ofSystem && !ofProject) throw refusal(caller)
  const unknown = () => problems.notFound({ message: `${kind} ${name} not found` })
  if (kind === 'group') {
    const group = await deps.authorities.ofGroup(name)
    if (!group) throw unknown()
    return group
  }
  const principal = await find(deps, kind, name)
  // An administrator of a project knows the robots of his project and no others.
  const known = principal && (ofSystem || principal.kind !== 'robot' || principal.projectId === project?.id)
  if (!known) throw unknown()
  return deps.authorities.of(principal)
}

async function find(deps: CoreContext, kind: string, name: string): Promise<Principal | null> {
  if (kind === 'robot') return findRobotByName(deps.signIn, name)
  const user = await findUserByName(deps, name)
  return user && { kind: 'user', id: user.id, name: user.username }
}
