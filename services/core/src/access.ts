import { problems } from '@haven/errors'
import { decide, grantedResource, type Question } from '@haven/identity'
import type { ProjectFacts } from '@haven/projects'
import type { Operation } from '@haven/proto'
import type { Caller } from './caller.ts'
import type { CoreContext } from './context.ts'

type Bound = { path: Record<string, unknown>; headers: Record<string, unknown> }

/**
 * Checks what the contract says about who may call an operation, before its handler runs. Answers the project that the path
 * names, when the permission is one on a project. `special` and `filtered` operations decide in their handlers.
 * @throws unauthorized for who did not sign in, else forbidden; projectNotFound for who might know.
 */
export async function permit(
  deps: CoreContext,
  caller: Caller,
  { permission }: Operation,
  bound: object,
): Promise<ProjectFacts | undefined> {
  const { path, headers } = bound as Bound
  switch (permission.scope) {
    case 'public':
    case 'filtered':
    case 'special':
      return undefined
    case 'authenticated':
      requireSignedIn(caller)
      return undefined
    case 'solution':
      if (caller.principal.kind !== 'service') {
        throw problems.unauthorized({ message: 'only internal service is allowed to call this API' })
      }
      return undefined
    case 'system':
      await requireSystem(caller, permission)
      return undefined
    case 'self-or-system':
      requireSignedIn(caller)
      if (caller.principal.kind === 'user' && caller.principal.id === path.user_id) return undefined
      await requireSystem(caller, permission)
      return undefined
    case 'project': {
      if (permission.signedIn) requireSignedIn(caller)
      const named = String(path.project_name_or_id ?? path.project_name)
      const byName = path.project_name_or_id === undefined || headers['X-Is-Resource-Name'] === true
      return requireProject(deps, caller, permission, await findProject(deps, named, byName), named)
    }
  }
}

/** Digits are an id unless the client says that they are a name. */
export function findProject({ directory }: CoreContext, named: string, byName: boolean): Promise<ProjectFacts | null> {
  if (byName || !/^\d+$/.test(named)) return directory.byName(named)
  return directory.byId(Number(named))
}

/** What is not there answers like what may not be seen, except to those who may see everything. */
export async function requireProject(
  _deps: CoreContext,
  caller: Caller,
  permission: { resource: string; action: string },
  project: ProjectFacts | null,
  named: string,
): Promise<ProjectFacts> {
  const resource = grantedResource('project', permission.resource)
  const { action } = permission
  const node = project ?? { id: 0, name: named, public: false, createdAt: new Date(0) }
  if (!(await may(caller, { resource, action, on: { project: node } }))) throw refusal(caller)
  if (!project) throw problems.projectNotFound({ project: named })
  return project
}

export const may = async (caller: Caller, question: Question): Promise<boolean> =>
  decide(await caller.authority(), question).allowed

/** Harbor names the user in a refusal on the system. */
export async function requireSystem(
  caller: Caller,
  { resource, action }: { resource: string; action: string },
): Promise<void> {
  if (!(await may(caller, { resource, action, on: 'system' }))) throw refusal(caller, caller.name)
}

export function requireSignedIn(caller: Caller): void {
  if (caller.principal.kind === 'anonymous') throw problems.unauthorized()
}

export const refusal = (caller: Caller, message?: string) =>
  caller.principal.kind === 'anonymous'
    ? problems.unauthorized()
    : problems.forbidden(message === undefined ? {} : { message })
