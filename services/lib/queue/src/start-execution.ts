import { statement, type Sql } from '@haven/db'
import type { JsonObject, Trigger } from './status.ts'

export type NewTask = {
  jobType: string
  parameters: JsonObject
  /** How often it may be tried, deaths of the worker included. Default 1. */
  maxAttempts?: number
  /** Milliseconds from now before which it must not run. Default 0. */
  delayMs?: number
  extraAttrs?: JsonObject
}

export type NewExecution = {
  vendorType: string
  /** The policy or the like that it runs for. Default -1: none. */
  vendorId?: number
  trigger: Trigger
  parameters?: JsonObject
  extraAttrs?: JsonObject
  /** Name of who asked for it. */
  actor?: string
  tasks: readonly NewTask[]
}

/** A task as the queue needs it: where it goes and under which name. `attempt` is how many were made before. */
export type QueuedTask = { jobId: string; jobType: string; attempt: number; delayMs: number }

export type StartedExecution = { id: number; tasks: QueuedTask[] }

const insertExecution = statement<{ id: string }>(
  'jobs start execution',
  `insert into jobs.executions (vendor_type, vendor_id, trigger, parameters, extra_attrs, actor, status, ended_at)
   values ($1, $2, $3, $4::jsonb, $5::jsonb, $6, case when $7::int = 0 then 'Success' else 'Pending' end,
           case when $7::int = 0 then now() end)
   returning id`,
)
const insertTasks = statement<{ job_id: string; job_type: string; delay_ms: number }>(
  'jobs start tasks',
  `insert into jobs.tasks (execution_id, job_type, parameters, max_attempts, run_at, status, extra_attrs)
   select $1, job_type, parameters, max_attempts, now() + delay_ms * interval '1 millisecond',
          case when delay_ms > 0 then 'Scheduled' else 'Pending' end, extra_attrs
     from unnest($2::text[], $3::jsonb[], $4::int[], $5::float8[], $6::jsonb[])
          as t(job_type, parameters, max_attempts, delay_ms, extra_attrs)
   returning job_id, job_type, greatest(0, extract(epoch from run_at - now()) * 1000)::float8 as delay_ms`,
)

/**
 * Writes an execution and its tasks in the caller's transaction. After the commit hand the tasks to `Queue.kick`, which only makes
 * them start at once: without it the reconciler finds them within its interval.
 */
export async function startExecution(tx: Sql, execution: NewExecution): Promise<StartedExecution> {
  const { tasks } = execution
  const row = await tx.one(insertExecution, [
    execution.vendorType,
    execution.vendorId ?? -1,
    execution.trigger,
    JSON.stringify(execution.parameters ?? {}),
    JSON.stringify(execution.extraAttrs ?? {}),
    execution.actor ?? '',
    tasks.length,
  ])
  const rows = await tx.rows(insertTasks, [
    row!.id,
    tasks.map((task) => task.jobType),
    tasks.map((task) => JSON.stringify(task.parameters)),
    tasks.map((task) => task.maxAttempts ?? 1),
    tasks.map((task) => task.delayMs ?? 0),
    tasks.map((task) => JSON.stringify(task.extraAttrs ?? {})),
  ])
  return {
    id: Number(row!.id),
    tasks: rows.map((task) => ({ jobId: task.job_id, jobType: task.job_type, attempt: 0, delayMs: task.delay_ms })),
  }
}
