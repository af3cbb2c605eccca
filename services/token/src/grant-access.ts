import { decide, type Access, type Authority, type ProjectNode, type Question } from '@haven/identity'
import { parseRepositoryName, splitProject, type Scope } from '@haven/oci'

export type Granted = {
  readonly access: readonly Access[]
  /** Ids of the projects of `access`, by the names that were asked for: a token is worth nothing for a later namesake. */
  readonly projects: ReadonlyMap<string, number>
}

const repositoryActions = ['pull', 'push', 'delete'] as const
/** Never part of `*`: it passes the gates on vulnerable content (harbor-rbac.md §9). */
const namedOnly = ['scanner-pull'] as const

/**
 * Reduces what was asked for to what the caller may do (threats.md A32, A33); Harbor gives everything that he may do. What
 * nothing is left of stays with no actions, as in Harbor, so that nobody is sent for it again: unknown types, projects that do not
 * exist and those he may not see look alike (A42).
 */
export async function grantAccess(
  lookUp: (name: string) => Promise<ProjectNode | null>,
  authority: Authority,
  scopes: readonly Scope[],
): Promise<Granted> {
  const access: Access[] = []
  const projects = new Map<string, number>()
  for (const scope of scopes) {
    const { type, name } = scope
    const project = type === 'repository' ? await projectOf(lookUp, name) : null
    const granted = project
      ? ofRepository(authority, scope, project)
      : type === 'registry'
        ? ofRegistry(authority, scope)
        : []
    access.push({ type, name, actions: granted })
    if (project && granted.length > 0) projects.set(project.asked, project.node.id)
  }
  return { access, projects }
}

type Found = { asked: string; path: string; node: ProjectNode }

async function projectOf(lookUp: (name: string) => Promise<ProjectNode | null>, name: string): Promise<Found | null> {
  const repository = parseRepositoryName(name)
  const parts = repository && splitProject(repository)
  const node = parts && (await lookUp(parts.project))
  return node && { asked: parts.project, path: parts.path, node }
}

const ofRepository = (authority: Authority, { actions }: Scope, { node: project, path: repository }: Found): string[] =>
  wanted(actions).filter((action) => allows(authority, { resource: 'repository', action, on: { project, repository } }))

function ofRegistry(authority: Authority, { name, actions }: Scope): string[] {
  if (name === 'catalog' && actions.includes('*')) {
    return allows(authority, { resource: 'catalog', action: 'read', on: 'system' }) ? ['*'] : []
  }
  // The right to mount from whatever its owner may pull: what that is, the registry asks at the time.
  if (name === 'mount' && actions.includes('pull')) return authority.principal.kind === 'anonymous' ? [] : ['pull']
  return []
}

const allows = (authority: Authority, question: Question) => decide(authority, question).allowed

function wanted(actions: readonly string[]): string[] {
  const all = actions.includes('*')
  return [
    ...repositoryActions.filter((action) => all || actions.includes(action)),
    ...namedOnly.filter((action) => actions.includes(action)),
  ]
}
