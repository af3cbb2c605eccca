import { statement, type Database, type Prisma, type Sql } from '@haven/db'
import type { ExecutionStatus, JsonObject, TaskStatus, Trigger } from './status.ts'

export type Page = { page: number; pageSize: number }
export type Listed<Item> = { items: Item[]; total: number }

export type Execution = {
  id: number
  vendorType: string
  vendorId: number
  trigger: Trigger
  status: ExecutionStatus
  statusMessage: string
  parameters: JsonObject
  extraAttrs: JsonObject
  actor: string
  createdAt: Date
  startedAt: Date | null
  updatedAt: Date
  endedAt: Date | null
  stopRequestedAt: Date | null
}

export type Task = {
  id: number
  executionId: number
  jobId: string
  jobType: string
  parameters: JsonObject
  status: TaskStatus
  statusMessage: string
  attempt: number
  maxAttempts: number
  runAt: Date
  leaseOwner: string | null
  /** Where the next attempt goes on. */
  cursor: JsonObject | null
  progress: JsonObject | null
  extraAttrs: JsonObject
  createdAt: Date
  startedAt: Date | null
  updatedAt: Date
  endedAt: Date | null
}

export type ExecutionFilter = {
  vendorType?: string
  vendorId?: number
  status?: ExecutionStatus | readonly ExecutionStatus[]
  trigger?: Trigger
}

/** Executions, newest first. */
export async function listExecutions(
  { prisma }: Database,
  filter: ExecutionFilter,
  page: Page,
): Promise<Listed<Execution>> {
  const where: Prisma.ExecutionWhereInput = {
    ...(filter.vendorType !== undefined && { vendorType: filter.vendorType }),
    ...(filter.vendorId !== undefined && { vendorId: BigInt(filter.vendorId) }),
    ...(filter.status !== undefined && { status: { in: [filter.status].flat() } }),
    ...(filter.trigger !== undefined && { trigger: filter.trigger }),
  }
  const [rows, total] = await Promise.all([
    prisma.execution.findMany({ where, orderBy: { id: 'desc' }, ...window(page) }),
    prisma.execution.count({ where }),
  ])
  return { items: rows.map((row) => plain(row) as Execution), total }
}

export async function getExecution({ prisma }: Database, id: number): Promise<Execution | null> {
  const row = await prisma.execution.findUnique({ where: { id: BigInt(id) } })
  return row && (plain(row) as Execution)
}

/** Tasks of an execution, oldest first. */
export async function listTasks(
  { prisma }: Database,
  executionId: number,
  page: Page,
  filter: { status?: TaskStatus } = {},
): Promise<Listed<Task>> {
  const where: Prisma.TaskWhereInput = { executionId: BigInt(executionId), ...filter }
  const [rows, total] = await Promise.all([
    prisma.task.findMany({ where, orderBy: { id: 'asc' }, ...window(page) }),
    prisma.task.count({ where }),
  ])
  return { items: rows.map((row) => plain(row) as Task), total }
}

/** All tasks of these executions, which have few. */
export async function tasksOf({ prisma }: Database, executionIds: readonly number[]): Promise<Task[]> {
  const where = { executionId: { in: executionIds.map(BigInt) } }
  return (await prisma.task.findMany({ where, orderBy: { id: 'asc' } })).map((row) => plain(row) as Task)
}

/** Tasks of all executions, newest first. */
export async function listAllTasks(
  { prisma }: Database,
  filter: { jobType?: string; status?: TaskStatus | readonly TaskStatus[] },
  page: Page,
): Promise<Listed<Task>> {
  const where: Prisma.TaskWhereInput = {
    ...(filter.jobType !== undefined && { jobType: filter.jobType }),
    ...(filter.status !== undefined && { status: { in: [filter.status].flat() } }),
  }
  const [rows, total] = await Promise.all([
    prisma.task.findMany({ where, orderBy: { id: 'desc' }, ...window(page) }),
    prisma.task.count({ where }),
  ])
  return { items: rows.map((row) => plain(row) as Task), total }
}

/** @returns null for an unknown id and for one that is no UUID */
export async function getTaskByJobId({ prisma }: Database, jobId: string): Promise<Task | null> {
  if (!UUID.test(jobId)) return null
  const row = await prisma.task.findUnique({ where: { jobId } })
  return row && (plain(row) as Task)
}

export type TaskCounts = Record<TaskStatus, number> & { total: number }

/** How many tasks of each status the executions have (Harbor's Metrics). */
export async function countTasks(
  { prisma }: Database,
  executionIds: readonly number[],
): Promise<Map<number, TaskCounts>> {
  const groups = await prisma.task.groupBy({
    by: ['executionId', 'status'],
    where: { executionId: { in: executionIds.map(BigInt) } },
    _count: true,
  })
  const counts = new Map(
    executionIds.map((id) => [
      id,
      { Pending: 0, Scheduled: 0, Running: 0, Stopped: 0, Error: 0, Success: 0, total: 0 } satisfies TaskCounts,
    ]),
  )
  for (const group of groups) {
    const of = counts.get(Number(group.executionId))!
    of[group.status as TaskStatus] = group._count
    of.total += group._count
  }
  return counts
}

const logLines = statement<{ id: string; logged_at: Date; level: string; line: string }>(
  'jobs log lines',
  `select l.id, l.logged_at, l.level, l.line from jobs.task_log l
    where l.task_id = any($1::bigint[]) and l.id > $2 order by l.id limit $3`,
)
const tasksOfExecution = statement<{ id: string }>(
  'jobs log tasks of execution',
  'select id from jobs.tasks where execution_id = $1 order by id',
)

/** A job's log as text, `<time> [<LEVEL>] <line>`; null for an unknown job. */
export async function taskLogText(db: Database, jobId: string): Promise<string | null> {
  const task = await getTaskByJobId(db, jobId)
  return task && logText(db, [String(task.id)])
}

/** The logs of all tasks of an execution as one text; null when it has no task. */
export async function executionLogText(db: Database, executionId: number): Promise<string | null> {
  const tasks = await db.writes.rows(tasksOfExecution, [executionId])
  return tasks.length === 0
    ? null
    : logText(
        db,
        tasks.map((task) => task.id),
      )
}

const LOG_PAGE = 5000

async function logText(db: Database, taskIds: readonly string[]): Promise<string> {
  const lines: string[] = []
  for (let after = '0'; ;) {
    const rows = await db.writes.rows(logLines, [taskIds, after, LOG_PAGE])
    for (const row of rows) lines.push(`${row.logged_at.toISOString()} [${row.level}] ${row.line}\n`)
    if (rows.length < LOG_PAGE) return lines.join('')
    after = rows.at(-1)!.id
  }
}

export type QueueFacts = {
  jobType: string
  /** Tasks that wait. */
  count: number
  /** Age of the oldest one that could run. */
  latencySeconds: number
  paused: boolean
}

const queueFacts = statement<{ job_type: string; count: number; latency: number; paused: boolean }>(
  'jobs queues',
  `select n.job_type, count(t.id)::int as count,
          coalesce(extract(epoch from now() - min(t.run_at) filter (where t.run_at <= now())), 0)::int as latency,
          coalesce(bool_or(s.paused), false) as paused
     from unnest($1::text[]) with ordinality as n(job_type, place)
     left join jobs.tasks t on t.job_type = n.job_type and t.status in ('Pending', 'Scheduled')
     left join jobs.queue_states s on s.job_type = n.job_type
    group by n.job_type, n.place order by n.place`,
)

/** State of the queues of `jobTypes`, in their order. */
export async function listQueues(sql: Sql, jobTypes: readonly string[]): Promise<QueueFacts[]> {
  const rows = await sql.rows(queueFacts, [jobTypes])
  return rows.map((row) => ({
    jobType: row.job_type,
    count: row.count,
    latencySeconds: row.latency,
    paused: row.paused,
  }))
}

export type TaskLoad = {
  /** Every type that ever had a task. */
  queues: { jobType: string; waiting: number; latencySeconds: number }[]
  /** Tasks that run now, by who runs them. */
  running: { jobType: string; pool: string; tasks: number }[]
  /** Tasks that wait for their time. */
  scheduled: number
}

// A look-up in the index for each type, instead of a scan of all tasks.
const taskQueues = statement<TaskLoad['queues'][number]>(
  'jobs task queues',
  `with recursive types as (
     (select job_type from jobs.tasks order by job_type limit 1)
     union all
     select (select t.job_type from jobs.tasks t where t.job_type > types.job_type order by t.job_type limit 1)
       from types where types.job_type is not null)
   select n.job_type as "jobType", count(t.id)::int as waiting,
          coalesce(extract(epoch from now() - min(t.run_at) filter (where t.run_at <= now())), 0)::float8 as "latencySeconds"
     from types n left join jobs.tasks t on t.job_type = n.job_type and t.status in ('Pending', 'Scheduled')
    where n.job_type is not null group by n.job_type order by n.job_type`,
)
const tasksRunning = statement<TaskLoad['running'][number]>(
  'jobs tasks running',
  `select job_type as "jobType", coalesce(lease_owner, '') as pool, count(*)::int as tasks
     from jobs.tasks where status = 'Running' group by 1, 2 order by 1, 2`,
)
const tasksScheduled = statement<{ scheduled: number }>(
  'jobs tasks scheduled',
  `select count(*)::int as scheduled from jobs.tasks where status = 'Scheduled'`,
)

/** What the queues hold, whoever asks: unlike `listQueues` it needs to know no job. */
export async function taskLoad(sql: Sql): Promise<TaskLoad> {
  const [queues, running, scheduled] = await Promise.all([
    sql.rows(taskQueues, []),
    sql.rows(tasksRunning, []),
    sql.one(tasksScheduled, []),
  ])
  return { queues, running, scheduled: scheduled!.scheduled }
}

const waitingExecutions = statement<{ id: string }>(
  'jobs waiting executions',
  `select distinct execution_id as id from jobs.tasks where job_type = $1 and status in ('Pending', 'Scheduled')`,
)

/** Executions that have tasks of this type waiting; stopping them empties the queue. */
export async function executionsWaiting(sql: Sql, jobType: string): Promise<number[]> {
  return (await sql.rows(waitingExecutions, [jobType])).map((row) => Number(row.id))
}

export type WorkerPool = {
  id: string
  host: string
  pid: number
  concurrency: number
  startedAt: Date
  heartbeatAt: Date
}

/** Processes that gave a sign of life within the last minute. */
export async function listWorkerPools({ prisma }: Database): Promise<WorkerPool[]> {
  return prisma.$queryRaw<WorkerPool[]>`
    select id, host, pid, concurrency, started_at as "startedAt", heartbeat_at as "heartbeatAt"
      from jobs.workers where heartbeat_at > now() - interval '60 seconds' order by started_at, id`
}

/** Tasks that run now, of one worker pool or of all. */
export async function listRunningTasks({ prisma }: Database, poolId?: string): Promise<Task[]> {
  const where = { status: 'Running', ...(poolId !== undefined && { leaseOwner: poolId }) }
  const rows = await prisma.task.findMany({ where, orderBy: { id: 'asc' } })
  return rows.map((row) => plain(row) as Task)
}

const window = ({ page, pageSize }: Page) => ({ skip: (page - 1) * pageSize, take: pageSize })

type Numbers<Row> = { [Key in keyof Row]: Row[Key] extends bigint ? number : Row[Key] }

/** A row with numbers for its 64-bit ids, which stay far below 2^53. */
function plain<Row extends object>(row: Row): Numbers<Row> {
  return Object.fromEntries(
    Object.entries(row).map(([key, value]: [string, unknown]) => [
      key,
      typeof value === 'bigint' ? Number(value) : value,
    ]),
  ) as Numbers<Row>
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
