import { problems } from '@haven/errors'
import {
  executionsWaiting,
  getTaskByJobId,
  listQueues,
  listRunningTasks,
  listSchedules,
  listWorkerPools,
  taskLogText,
} from '@haven/queue'
import type { Handlers } from '../handler.ts'
import { ok, text } from '../http/answer.ts'
import { listAnswer, pageOf } from '../lists/page.ts'
import { presentPool, presentQueue, presentSchedule, presentWorkers } from '../present/jobs.ts'

const ALL = 'all'
/** Not a queue of jobs: what starts scheduled ones. It can be held like one. */
const SCHEDULER = 'SCHEDULER'

export const jobserviceHandlers: Handlers = {
  async getWorkerPools(_call, { db }) {
    return ok((await listWorkerPools(db)).map(presentPool))
  },

  async getWorkers({ path }, { db }) {
    const [pools, running] = await Promise.all([listWorkerPools(db), listRunningTasks(db)])
    const asked = pools.filter((pool) => path.pool_id === ALL || pool.id === path.pool_id)
    return ok(
      asked.flatMap((pool) =>
        presentWorkers(
          pool,
          running.filter((task) => task.leaseOwner === pool.id),
        ),
      ),
    )
  },

  /** A job that is unknown or over is left alone. */
  async stopRunningJob({ path }, { db, queue }) {
    const task = path.job_id === ALL ? null : await getTaskByJobId(db, path.job_id)
    const tasks = path.job_id === ALL ? await listRunningTasks(db) : task ? [task] : []
    for (const executionId of new Set(tasks.map((one) => one.executionId))) await queue.stopExecution(executionId)
    return ok()
  },

  async actionGetJobLog({ path }, { db }) {
    const log = await taskLogText(db, path.job_id)
    if (log === null) throw problems.notFound({ resource: 'job', id: path.job_id })
    return text(log, 'text/plain')
  },

  async listJobQueues(_call, { db, facts }) {
    return ok((await listQueues(db.writes, facts.jobTypes)).map(presentQueue))
  },

  /** A type that nobody knows is ignored, as Harbor does. */
  async actionPendingJobs({ path, body }, { db, queue, facts }) {
    const asked = path.job_type.toUpperCase()
    const types = path.job_type.toLowerCase() === ALL ? facts.jobTypes : known(facts.jobTypes, asked)
    for (const type of types) {
      if (body.action === 'pause') await queue.pause(type)
      else if (body.action === 'resume') await queue.resume(type)
      else if (body.action === 'stop') {
        for (const executionId of await executionsWaiting(db.writes, type)) await queue.stopExecution(executionId)
      } else throw problems.badRequest({ message: 'action must be stop, pause or resume' })
    }
    return ok()
  },
}

export const scheduleHandlers: Handlers = {
  async listSchedules({ query, at }, { db }) {
    const { number, size } = pageOf(query)
    const { items, total } = await listSchedules(db.writes, { page: number, pageSize: size })
    return listAnswer(at, query, total, items.map(presentSchedule))
  },

  async getSchedulePaused({ path }, { db }) {
    if (path.job_type.toLowerCase() !== ALL) throw problems.badRequest({ message: "job_type can only be 'all'" })
    const [scheduler] = await listQueues(db.writes, [SCHEDULER])
    return ok({ paused: scheduler?.paused ?? false })
  },
}

const known = (jobTypes: readonly string[], asked: string): string[] =>
  [...jobTypes, SCHEDULER].filter((type) => type === asked)
