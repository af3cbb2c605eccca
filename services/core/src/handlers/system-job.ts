import { problems } from '@haven/errors'
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
  type CronType,
  type Execution,
  type JsonObject,
  type NewTask,
} from '@haven/queue'
import type { CoreContext } from '../context.ts'
import type { Call } from '../handler.ts'
import { created, ok, text, type Answer } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { parseQ } from '../lists/query.ts'
import { presentRun, presentSchedule } from '../present/system-job.ts'

/** A job on the whole installation, which administrators start or schedule and whose runs they look at. */
export type SystemJob<Parameters extends JsonObject> = {
  vendorType: string
  /** As in "… 7 not found". */
  noun: string
  /** Where its runs are. */
  path: string
  /** Parameters and results that a run shows. Nothing else leaves: its attributes may hold more. */
  shown: readonly string[]
  /** What may be said of a run; other keys are dropped. @throws badRequest that names the field. */
  readParameters(given: Record<string, unknown>): Parameters
  taskOf(parameters: Parameters): NewTask
}

type Asked = { schedule?: { type?: string; cron?: string }; parameters?: Record<string, unknown> }

/** What the API does with such a job: the seven operations that each of them has under its own names. */
export function systemJob<Parameters extends JsonObject>(job: SystemJob<Parameters>) {
  const { vendorType, shown } = job

  /** By id and by what it is: an execution of something else is none of these. */
  async function findRun({ db }: CoreContext, id: number): Promise<Execution> {
    const run = Number.isSafeInteger(id) && id > 0 ? await getExecution(db, id) : null
    if (run?.vendorType !== vendorType) throw problems.notFound({ message: `${job.noun} ${id} not found` })
    return run
  }

  async function startRun({ db, queue }: CoreContext, actor: string, parameters: Parameters): Promise<number> {
    const started = await db.transaction((tx) =>
      startExecution(tx, { vendorType, trigger: 'MANUAL', parameters, actor, tasks: [job.taskOf(parameters)] }),
    )
    await queue.kick(started.tasks)
    return started.id
  }

  /** Starts a run (its id is the answer), sets the schedule, or takes it away. @throws badRequest */
  async function apply(
    deps: CoreContext,
    actor: string,
    { schedule, parameters: given }: Asked,
  ): Promise<number | null> {
    const type = schedule?.type
    if (!type) throw problems.badRequest({ message: 'schedule.type is required' })
    // Wanted even to take the schedule away, as in Harbor.
    const parameters = job.readParameters(given ?? {})
    if (type === 'Manual') return startRun(deps, actor, parameters)
    if (type === 'None') {
      await deps.db.transaction((tx) => deleteSchedule(tx, vendorType))
      return null
    }
    if (type !== 'Custom' && !Object.hasOwn(CRON_TYPES, type)) {
      throw problems.badRequest({ message: `schedule.type ${type} cannot be set` })
    }
    const cronType = type as CronType
    const cron = schedule.cron || (cronType === 'Custom' ? '' : CRON_TYPES[cronType])
    await deps.db.transaction((tx) => putSchedule(tx, { vendorType, cron, cronType, parameters, actor }))
    return null
  }

  return {
    async history({ query, at }: Pick<Call<'getGCHistory'>, 'query' | 'at'>, { db }: CoreContext): Promise<Answer> {
      const { number, size } = pageOf(query)
      const status = parseQ(query.q).find((term) => term.field === 'job_status' || term.field === 'status')
      const filter = { vendorType, ...(status?.match === 'exact' && { status: status.value as Execution['status'] }) }
      const { items, total } = await listExecutions(db, filter, { page: number, pageSize: size })
      return listAnswer(
        at,
        query,
        total,
        items.map((run) => presentRun(run, shown)),
      )
    },

    async get(deps: CoreContext, id: number): Promise<Answer> {
      return ok(presentRun(await findRun(deps, id), shown))
    },

    async stop(deps: CoreContext, id: number): Promise<Answer> {
      const run = await findRun(deps, id)
      if (!isFinal(run.status)) await deps.queue.stopExecution(run.id)
      return ok()
    },

    async log(deps: CoreContext, id: number): Promise<Answer> {
      const run = await findRun(deps, id)
      return text((await executionLogText(deps.db, run.id)) ?? '', 'text/plain')
    },

    async schedule({ db }: CoreContext): Promise<Answer> {
      const schedule = await getSchedule(db.writes, vendorType)
      return ok(schedule ? presentSchedule(schedule, shown) : undefined)
    },

    async createSchedule(
      { body, caller }: { body: Asked; caller: { name: string } },
      deps: CoreContext,
    ): Promise<Answer> {
      return created(`${job.path}/${(await apply(deps, caller.name, body)) ?? 'schedule'}`)
    },

    async updateSchedule(
      { body, caller }: { body: Asked; caller: { name: string } },
      deps: CoreContext,
    ): Promise<Answer> {
      await apply(deps, caller.name, body)
      return ok()
    },
  }
}
