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
