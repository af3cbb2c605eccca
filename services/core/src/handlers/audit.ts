import { problems } from '@haven/errors'
import { auditEventTypes, listAudit, type AuditScope } from '@haven/events'
import { decide } from '@haven/identity'
import { may } from '../access.ts'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Call, Handlers } from '../handler.ts'
import { ok, type Answer } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ, parseSort } from '../lists/query.ts'
import { presentAuditEntry } from '../present/audit.ts'

export const auditHandlers: Handlers = {
  async listAuditLogExts(call, deps) {
    requireAnyone(call.caller)
    return listed(call, deps, await scopeOf(call.caller))
  },

  listAuditLogEventTypes() {
    return ok(auditEventTypes.map((event_type) => ({ event_type })))
  },

  getLogExts(call, deps) {
    return listed(call, deps, { projects: [call.project.id] })
  },

  listAuditLogs({ caller, query, at }) {
    requireAnyone(caller)
    return legacy(query, at)
  },

  getLogs({ query, at }) {
    return legacy(query, at)
  },
}

type ListCall = Pick<Call<'listAuditLogExts'>, 'query' | 'at'>

async function listed(
  { query, at }: ListCall,
  { db, auditDays: days }: CoreContext,
  scope: AuditScope,
): Promise<Answer> {
  const { total, entries } = await listAudit(
    { db, days },
    {
      scope,
      conditions: parseQ(query.q),
      sort: parseSort(query.sort),
      page: pageOf(query),
    },
  )
  return listAnswer(at, query, total, entries.map(presentAuditEntry))
}

/** Harbor's log from before 2.13. It has no new lines since, and we never wrote one. */
function legacy(query: ListCall['query'], at: ListCall['at']): Answer {
  parseQ(query.q)
  return listAnswer(at, query, 0, [])
}

/** Harbor says nothing more to those who did not sign in. */
function requireAnyone(caller: Caller): void {
  if (caller.principal.kind === 'anonymous') throw problems.unauthorized({ message: '' })
}

const logList = { resource: 'log', action: 'list' }

/** The whole log for who may see that; others see the projects whose log they may list (threats.md A31). No statement a project. */
async function scopeOf(caller: Caller): Promise<AuditScope> {
  if (await may(caller, { resource: 'audit-log', action: 'list', on: 'system' })) return 'all'
  const authority = await caller.authority()
  // Whether a project is public has no say in who lists its log, so that its id is enough.
  const mayList = (id: number) => {
    const project = { id, name: '', public: false, createdAt: new Date(0) }
    return decide(authority, { ...logList, on: { project } }).allowed
  }
  const named = authority.projectIds()
  const noProject = 0
  return mayList(noProject)
    ? { everyProjectBut: named.filter((id) => !mayList(id)) }
    : { projects: named.filter(mayList) }
}
