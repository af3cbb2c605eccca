import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import {
  getTaskByJobId,
  listAllTasks,
  listTasks,
  listWorkerPools,
  putSchedule,
  startExecution,
  taskLogText,
  type JsonObject,
  type NewTask,
  type Queue,
  type Task,
} from '@haven/queue'
import { named, readJson, sameSecret } from '@haven/runtime'
import type { Express, Request, RequestHandler } from 'express'
import type { Job } from '../job-deps.ts'
import { presentJob } from './job-stats.ts'

export type ApiContext = {
  db: Database
  queue: Queue
  jobs: readonly Job[]
  secret: string
  workers: number
  prefix: string
}

const SCHEME = 'Harbor-Secret '
const MAX_DELAY_SECONDS = 366 * 24 * 3600

/** The REST API of Harbor's job service (harbor-jobs-and-data.md §4.1), on the records. */
export function mountApi(app: Express, context: ApiContext): void {
  const { db, queue, workers, prefix } = context

  app.get('/api/v1/stats', async (_req, res) => {
    const pools = await listWorkerPools(db)
    res.json({
      worker_pools: pools.map((pool) => ({
        worker_pool_id: pool.id,
        started_at: Math.floor(pool.startedAt.getTime() / 1000),
        heartbeat_at: Math.floor(pool.heartbeatAt.getTime() / 1000),
        job_names: context.jobs.map((job) => job.type),
        concurrency: pool.concurrency,
        status: 'Healthy',
      })),
    })
  })
  app.use(requireSecret(context.secret))

  app.get('/api/v1/config', (_req, res) => {
    // Where Redis is stays here: whoever asks works on the records.
    res.json({ worker_pool: { backend: 'redis', workers, redis_pool_config: { namespace: prefix } } })
  })

  app.post('/api/v1/jobs', async (req, res) => {
    res.status(202).json(await submit(context, await readJson(req)))
  })

  app.get('/api/v1/jobs', async (req, res) => {
    const page = { page: positive(req, 'page', 1, 1e6), pageSize: positive(req, 'page_size', 25, 100) }
    const kind = queryOf(req, 'kind')
    const status = kind === 'Scheduled' ? (['Scheduled'] as const) : undefined
    const { items, total } = await listAllTasks(db, { ...(status && { status }) }, page)
    res.setHeader('Total-Count', total)
    const next = page.page * page.pageSize < total ? page.page + 1 : 0
    res.setHeader('Next-Cursor', next)
    res.json(items.map(presentJob))
  })

  app.get('/api/v1/jobs/:id', named('/api/v1/jobs/{id}'), async (req, res) => {
    res.json(presentJob(await find(db, req)))
  })

  app.post('/api/v1/jobs/:id', named('/api/v1/jobs/{id}'), async (req, res) => {
    const body = (await readJson(req)) as { action?: unknown } | undefined
    if (body?.action !== 'stop') throw problems.notImplemented({ operation: `action ${String(body?.action)} of a job` })
    await queue.stopExecution((await find(db, req)).executionId)
    res.status(204).end()
  })

  app.get('/api/v1/jobs/:id/log', named('/api/v1/jobs/{id}/log'), async (req, res) => {
    const { jobId } = await find(db, req)
    res.type('text/plain').send((await taskLogText(db, jobId)) ?? '')
  })

  app.get('/api/v1/jobs/:id/executions', named('/api/v1/jobs/{id}/executions'), async (req, res) => {
    const { executionId } = await find(db, req)
    const page = { page: positive(req, 'page', 1, 1e6), pageSize: positive(req, 'page_size', 25, 100) }
    const { items, total } = await listTasks(db, executionId, page)
    res.setHeader('Total-Count', total)
    res.json(items.map(presentJob))
  })
}

const requireSecret =
  (secret: string): RequestHandler =>
  (req, _res, next) => {
    const given = req.headers.authorization ?? ''
    if (!given.startsWith(SCHEME) || !sameSecret(given.slice(SCHEME.length), secret)) throw problems.unauthorized()
    next()
  }

async function find(db: Database, req: Request): Promise<Task> {
  const id = String(req.params.id)
  if (id.includes('..') || id.includes('/')) throw problems.badRequest({ message: `invalid job id: ${id}` })
  const task = await getTaskByJobId(db, id)
  if (!task) throw problems.notFound({ resource: 'job', id })
  return task
}

type Submission = { job: Job; task: NewTask; unique: boolean; cron: string | null; parameters: JsonObject }

async function submit({ db, queue, jobs }: ApiContext, body: unknown): Promise<object> {
  const { job, task, unique, cron, parameters } = readSubmission(jobs, body)
  if (cron !== null) {
    if (!job.scheduledTask) throw problems.badRequest({ message: `${job.type} cannot be scheduled` })
    const schedule = await putSchedule(db.writes, { vendorType: job.type, cron, cronType: 'Custom', parameters })
    return { job: { id: String(schedule.id), name: job.type, kind: 'Periodic', cron_spec: cron, status: 'Scheduled' } }
  }
  if (unique) {
    const open = await listAllTasks(
      db,
      { jobType: job.type, status: ['Pending', 'Scheduled', 'Running'] },
      { page: 1, pageSize: 100 },
    )
    if (open.items.some((each) => sameJson(each.parameters, task.parameters))) {
      throw problems.conflict({ resource: 'job', name: job.type })
    }
  }
  const started = await db.transaction((tx) =>
    startExecution(tx, { vendorType: job.type, trigger: 'MANUAL', parameters, actor: 'core', tasks: [task] }),
  )
  await queue.kick(started.tasks)
  return presentJob((await getTaskByJobId(db, started.tasks[0]!.jobId))!)
}

/** @throws problems.badRequest that says what is wrong */
function readSubmission(jobs: readonly Job[], body: unknown): Submission {
  const bad = (message: string, cause?: unknown) =>
    problems.badRequest({ message }, cause === undefined ? {} : { cause })
  const { job: asked } = (body ?? {}) as { job?: Record<string, unknown> }
  if (typeof asked !== 'object' || asked === null) throw bad('job is required')
  const { name, parameters = {}, metadata } = asked
  const job = jobs.find((each) => each.type === name)
  if (!job) throw bad(`job with name ${JSON.stringify(name)} is unknown`)
  if (asked.status_hook) throw bad('status hooks are not called: the status of a job is read from this API')
  const { kind, schedule_delay: delay, cron_spec: cron, unique } = (metadata ?? {}) as Record<string, unknown>
  if (kind !== 'Generic' && kind !== 'Scheduled' && kind !== 'Periodic')
    throw bad('metadata.kind must be Generic, Scheduled or Periodic')
  if (kind === 'Scheduled' && !(typeof delay === 'number' && delay > 0 && delay <= MAX_DELAY_SECONDS)) {
    throw bad('metadata.schedule_delay must be a number of seconds greater than 0')
  }
  if (kind === 'Periodic' && typeof cron !== 'string') throw bad('metadata.cron_spec is required')
  let task: NewTask
  try {
    task = job.task(parameters as JsonObject)
  } catch (cause) {
    throw bad(`parameters do not fit ${job.type}: ${(cause as Error).message}`, cause)
  }
  return {
    job,
    task: kind === 'Scheduled' ? { ...task, delayMs: Number(delay) * 1000 } : task,
    unique: unique === true,
    cron: kind === 'Periodic' ? String(cron) : null,
    parameters: parameters as JsonObject,
  }
}

const sorted = (value: JsonObject) => JSON.stringify(value, Object.keys(value).sort())
const sameJson = (a: JsonObject, b: JsonObject) => sorted(a) === sorted(b)

function queryOf(req: Request, name: string): string | undefined {
  const value = req.query[name]
  return typeof value === 'string' ? value : undefined
}

function positive(req: Request, name: string, fallback: number, most: number): number {
  const text = queryOf(req, name)
  if (text === undefined) return fallback
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1)
    throw problems.badRequest({ message: `${name} must be a whole number from 1` })
  return Math.min(value, most)
}
