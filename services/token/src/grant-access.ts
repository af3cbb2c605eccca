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
 * nothing is left of is left out: unknown types, projects that do not exist and those he may not see look alike (A42).
 */
export async function grantAccess(
  lookUp: (name: string) => Promise<ProjectNode | null>,
  authority: Authority,
  scopes: readonly Scope[],
): Promise<Granted> {
  const access: Access[] = []
  const projects = new Map<string, number>()
  for (const { type, name, actions } of scopes) {
    if (type === 'registry' && name === 'catalog') {
      const asked = actions.includes('*') && allows(authority, { resource: 'catalog', action: 'read', on: 'system' })
      if (asked) access.push({ type, name, actions: ['*'] })
    } else if (type === 'repository') {
      const repository = parseRepositoryName(name)
      const parts = repository && splitProject(repository)
      const project = parts && (await lookUp(parts.project))
      if (!project) continue
      const on = { project, repository: parts.path }
      const granted = wanted(actions).filter((action) => allows(authority, { resource: 'repository', action, on }))
      if (granted.length === 0) continue
      access.push({ type, name, actions: granted })
      projects.set(parts.project, project.id)
    }
  }
  return { access, projects }
}

const allows = (authority: Authority, question: Question) => decide(authority, question).allowed

function wanted(actions: readonly string[]): string[] {
  const all = actions.includes('*')
  return [
    ...repositoryActions.filter((action) => all || actions.includes(action)),
    ...namedOnly.filter((action) => actions.includes(action)),
  ]
}
