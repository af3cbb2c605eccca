import { problems } from '@haven/errors'
import { parseEventTypes } from '@haven/events'
import { PurgeAuditLogSchema } from '@haven/proto/jobs'
import {
  CRON_TYPES,
  deleteSchedule,
  executionLogText,
  getExecution,
  getSchedule,
  isFinal,
  listExecutions,
  putSchedule,
  startExecution,
  taskOf,
  type CronType,
  type Execution,
  type JsonObject,
} from '@haven/queue'
import type { Caller } from '../caller.ts'
import type { CoreContext } from '../context.ts'
import type { Handlers } from '../handler.ts'
import { created, ok, text } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ } from '../lists/query.ts'
import { presentPurge, presentPurgeSchedule } from '../present/purge.ts'

const VENDOR = 'PURGE_AUDIT_LOG'
/** What a run removed stays removed, so trying again is safe. */
const JOB = { type: VENDOR, attempts: 3 }
const MAX_RETENTION_HOURS = 240_000

export const purgeHandlers: Handlers = {
  async getPurgeHistory({ query, at }, { db }) {
    const { number, size } = pageOf(query)
    const status = parseQ(query.q).find((term) => term.field === 'job_status' || term.field === 'status')
    const filter = {
      vendorType: VENDOR,
      ...(status?.match === 'exact' && { status: status.value as Execution['status'] }),
    }
    const { items, total } = await listExecutions(db, filter, { page: number, pageSize: size })
    return listAnswer(at, query, total, items.map(presentPurge))
  },

  async getPurgeJob({ path }, deps) {
    return ok(presentPurge(await findRun(deps, path.purge_id)))
  },

  async stopPurge({ path }, deps) {
    const run = await findRun(deps, path.purge_id)
    if (!isFinal(run.status)) await deps.queue.stopExecution(run.id)
    return ok()
  },

  async getPurgeJobLog({ path }, deps) {
    const run = await findRun(deps, path.purge_id)
    return text((await executionLogText(deps.db, run.id)) ?? '', 'text/plain')
  },

  async getPurgeSchedule(_call, { db }) {
    const schedule = await getSchedule(db.writes, VENDOR)
    return ok(schedule ? presentPurgeSchedule(schedule) : undefined)
  },

  async createPurgeSchedule({ body, caller }, deps) {
    const runId = await applySchedule(deps, caller, body)
    return created(`/api/v2.0/system/purgeaudit/${runId ?? 'schedule'}`)
  },

  async updatePurgeSchedule({ body, caller }, deps) {
    await applySchedule(deps, caller, body)
    return ok()
  },
}

/** By id and by what it is: a replication's execution is no purge. */
async function findRun({ db }: CoreContext, id: number): Promise<Execution> {
  const run = Number.isSafeInteger(id) && id > 0 ? await getExecution(db, id) : null
  if (run?.vendorType !== VENDOR) throw problems.notFound({ message: `purge of the audit log ${id} not found` })
  return run
}

type Asked = { schedule?: { type?: string; cron?: string }; parameters?: Record<string, unknown> }

/** Starts a run (its id is the answer), sets the schedule, or takes it away. @throws badRequest */
async function applySchedule(
  deps: CoreContext,
  caller: Caller,
  { schedule, parameters }: Asked,
): Promise<number | null> {
  const type = schedule?.type
  if (!type) throw problems.badRequest({ message: 'schedule.type is required' })
  // Wanted even to take the schedule away, as in Harbor.
  const asked = readParameters(parameters ?? {})
  if (type === 'Manual') return startRun(deps, caller, asked)
  if (type === 'None') {
    await deps.db.transaction((tx) => deleteSchedule(tx, VENDOR))
    return null
  }
  if (type !== 'Custom' && !Object.hasOwn(CRON_TYPES, type)) {
    throw problems.badRequest({ message: `schedule.type ${type} cannot be set` })
  }
  const cronType = type as CronType
  const cron = schedule.cron || (cronType === 'Custom' ? '' : CRON_TYPES[cronType])
  await deps.db.transaction((tx) =>
    putSchedule(tx, { vendorType: VENDOR, cron, cronType, parameters: asked, actor: caller.name }),
  )
  return null
}

type Parameters = { audit_retention_hour: number; include_event_types: string; dry_run: boolean }

async function startRun({ db, queue }: CoreContext, caller: Caller, asked: Parameters): Promise<number> {
  const started = await db.transaction((tx) =>
    startExecution(tx, {
      vendorType: VENDOR,
      trigger: 'MANUAL',
      parameters: asked satisfies JsonObject,
      actor: caller.name,
      tasks: [
        taskOf(PurgeAuditLogSchema, JOB, {
          retentionHours: asked.audit_retention_hour,
          eventTypes: parseEventTypes(asked.include_event_types),
          dryRun: asked.dry_run,
        }),
      ],
    }),
  )
  await queue.kick(started.tasks)
  return started.id
}

/** What may be said of a run; other keys are dropped. @throws badRequest that names the field. */
function readParameters(given: Record<string, unknown>): Parameters {
  const { audit_retention_hour: hours, include_event_types: types, dry_run: dryRun = false } = given
  const refuse = (name: string, wanted: string) =>
    problems.badRequest({ message: `parameters.${name} must be ${wanted}` })
  if (typeof hours !== 'number' || !Number.isInteger(hours) || hours > MAX_RETENTION_HOURS || hours < -1) {
    throw refuse('audit_retention_hour', `a number of hours up to ${MAX_RETENTION_HOURS}`)
  }
  if (typeof types !== 'string') throw refuse('include_event_types', 'a text of event types, separated by commas')
  if (typeof dryRun !== 'boolean') throw refuse('dry_run', 'true or false')
  return { audit_retention_hour: hours, include_event_types: types, dry_run: dryRun }
}
