import { Problem } from '@haven/errors'
import { emit } from '@haven/events'
import type { Operation, OperationId } from '@haven/proto'
import { ChangeRefusedSchema } from '@haven/proto/events'
import { findProject } from './access.ts'
import type { Caller } from './caller.ts'
import type { CoreContext } from './context.ts'

type Told = { operation: 'create' | 'update' | 'delete'; resourceType: 'user' | 'member' | 'project' | 'configuration' }

/** Changes whose refusal the audit log tells of, as Harbor's does (harbor-jobs-and-data.md §19). */
const told: Partial<Record<OperationId, Told>> = {
  updateConfigurations: { operation: 'update', resourceType: 'configuration' },
  createUser: { operation: 'create', resourceType: 'user' },
  updateUserProfile: { operation: 'update', resourceType: 'user' },
  setUserSysAdmin: { operation: 'update', resourceType: 'user' },
  updateUserPassword: { operation: 'update', resourceType: 'user' },
  deleteUser: { operation: 'delete', resourceType: 'user' },
  createProject: { operation: 'create', resourceType: 'project' },
  updateProject: { operation: 'update', resourceType: 'project' },
  deleteProject: { operation: 'delete', resourceType: 'project' },
  createProjectMember: { operation: 'create', resourceType: 'member' },
  updateProjectMember: { operation: 'update', resourceType: 'member' },
  deleteProjectMember: { operation: 'delete', resourceType: 'member' },
}

/** Values of the path by name; what is no name or id of ours is only shown, never looked up. */
type Path = Readonly<Record<string, unknown>>

const MAX_NAME = 255

/**
 * Has the audit log say that somebody who is signed in was refused a change. Nothing of the request's body is kept: it may hold
 * passwords. Failures that are not the caller's are none of the log's business.
 */
export async function tellOfRefusal(
  deps: CoreContext,
  caller: Caller,
  { operationId }: Operation,
  path: Path,
  error: unknown,
): Promise<void> {
  const change = told[operationId]
  const refused = error instanceof Problem && error.status >= 400 && error.status < 500
  if (!change || !refused || caller.principal.kind === 'anonymous') return
  try {
    const named = path.project_name_or_id
    const project = typeof named === 'string' && named !== '' ? await findProject(deps, named, false) : null
    const resource = String(path.user_id ?? path.mid ?? named ?? '').slice(0, MAX_NAME)
    await emit(deps.db.writes, ChangeRefusedSchema, caller.source, {
      ...change,
      resource,
      status: error.status,
      ...(project && { project: { id: BigInt(project.id), name: project.name } }),
    })
  } catch (cause) {
    // The caller is told why he was refused all the same.
    deps.log.warn({ err: cause }, 'a refusal is missing in the audit log')
  }
}
