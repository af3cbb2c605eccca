import { problems } from '@haven/errors'
import { GarbageCollectionSchema } from '@haven/proto/jobs'
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
import { presentGC, presentGCSchedule } from '../present/gc.ts'

const VENDOR = 'GARBAGE_COLLECTION'
/** A run whose worker died goes on where it was, so trying again is safe (architecture.md, "GC while serving"). */
const JOB = { type: VENDOR, attempts: 3 }
const MAX_WORKERS = 10

export const gcHandlers: Handlers = {
  async getGCHistory({ query, at }, { db }) {
    const { number, size } = pageOf(query)
    const status = parseQ(query.q).find((term) => term.field === 'job_status' || term.field === 'status')
    const filter = {
      vendorType: VENDOR,
      ...(status?.match === 'exact' && { status: status.value as Execution['status'] }),
    }
    const { items, total } = await listExecutions(db, filter, { page: number, pageSize: size })
    return listAnswer(at, query, total, items.map(presentGC))
  },

  async getGC({ path }, deps) {
    return ok(presentGC(await findRun(deps, path.gc_id)))
  },

  async stopGC({ path }, deps) {
    const run = await findRun(deps, path.gc_id)
    if (!isFinal(run.status)) await deps.queue.stopExecution(run.id)
    return ok()
  },

  async getGCLog({ path }, deps) {
    const run = await findRun(deps, path.gc_id)
    return text((await executionLogText(deps.db, run.id)) ?? '', 'text/plain')
  },

  async getGCSchedule(_call, { db }) {
    const schedule = await getSchedule(db.writes, VENDOR)
    return ok(schedule ? presentGCSchedule(schedule) : undefined)
  },

  async createGCSchedule({ body, caller }, deps) {
    const runId = await applySchedule(deps, caller, body)
    return created(`/api/v2.0/system/gc/${runId ?? 'schedule'}`)
  },

  async updateGCSchedule({ body, caller }, deps) {
    await applySchedule(deps, caller, body)
    return ok()
  },
}

/** By id and by what it is: a replication's execution is no run of garbage collection. */
async function findRun({ db }: CoreContext, id: number): Promise<Execution> {
  const run = Number.isSafeInteger(id) && id > 0 ? await getExecution(db, id) : null
  if (run?.vendorType !== VENDOR) throw problems.notFound({ message: `garbage collection ${id} not found` })
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

async function startRun({ db, queue }: CoreContext, caller: Caller, parameters: JsonObject): Promise<number> {
  const started = await db.transaction((tx) =>
    startExecution(tx, {
      vendorType: VENDOR,
      trigger: 'MANUAL',
      parameters,
      actor: caller.name,
      tasks: [
        taskOf(GarbageCollectionSchema, JOB, {
          deleteUntagged: parameters.delete_untagged === true,
          deleteTag: parameters.delete_tag === true,
          dryRun: parameters.dry_run === true,
          workers: Number(parameters.workers),
        }),
      ],
    }),
  )
  await queue.kick(started.tasks)
  return started.id
}

/** What may be said of a run; other keys are dropped. @throws badRequest that names the field. */
function readParameters(given: Record<string, unknown>): JsonObject {
  const flag = (name: string): boolean => {
    const value = given[name] ?? false
    if (typeof value !== 'boolean') throw problems.badRequest({ message: `parameters.${name} must be true or false` })
    return value
  }
  const workers = given.workers ?? 1
  if (typeof workers !== 'number' || !Number.isInteger(workers) || workers < 1 || workers > MAX_WORKERS) {
    throw problems.badRequest({ message: `parameters.workers must be a number from 1 to ${MAX_WORKERS}` })
  }
  return {
    delete_untagged: flag('delete_untagged'),
    delete_tag: flag('delete_tag'),
    dry_run: flag('dry_run'),
    workers,
  }
}
