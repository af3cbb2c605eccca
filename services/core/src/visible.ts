import type { ProjectQuery } from '@haven/projects'
import { may } from './access.ts'
import type { Caller } from './caller.ts'

/**
 * The projects that are counted and searched for a caller: all for administrators, their own and the public ones for other people, and
 * for everything else, robots included, the public ones (as in Harbor).
 */
export async function visibleByMembership(caller: Caller): Promise<ProjectQuery['visible']> {
  if (caller.principal.kind !== 'user') return { ids: [], public: true }
  if (await may(caller, { resource: 'project', action: 'list', on: 'system' })) return 'all'
  return { ids: (await caller.authority()).projectIds(), public: true }
}

/** The projects that are listed for a caller. Administrators, and robots of all projects, see all; others theirs and the public ones. */
export async function visibleProjectsOf(caller: Caller): Promise<ProjectQuery['visible']> {
  if (await may(caller, { resource: 'project', action: 'list', on: 'system' })) return 'all'
  const authority = await caller.authority()
  const everywhere = [...authority.grantsOn(0)].some(
    (grant) => grant.effect === 'allow' && grant.node.kind === 'project',
  )
  return everywhere ? 'all' : { ids: authority.projectIds(), public: true }
}
