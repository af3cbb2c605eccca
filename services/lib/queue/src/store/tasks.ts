import { statement } from '@haven/db'

export type ClaimedRow = {
  id: string
  execution_id: string
  job_id: string
  job_type: string
  parameters: unknown
  attempt: number
  max_attempts: number
  fence: number
  cursor: unknown
}

/** Makes claims of one job type wait for each other, so that its limit of running tasks holds across processes. */
export const lockJobType = statement(
  'jobs lock type',
  `select pg_advisory_xact_lock(hashtext('haven.jobs'), hashtext($1))`,
)

// Everything that refuses a claim is in the condition, so a task that another worker took in the meantime, that was stopped, or
// whose queue is paused is left as it is. Locks go task → execution, as everywhere here.
export const claim = statement<ClaimedRow>(
  'jobs claim',
  `with claimed as (
     update jobs.tasks t
        set status = 'Running', attempt = t.attempt + 1, fence = t.fence + 1, lease_owner = $2,
            lease_until = now() + $3 * interval '1 millisecond', started_at = now(), ended_at = null, updated_at = now()
      where t.job_id = $1 and t.status in ('Pending', 'Scheduled') and t.run_at <= now() + interval '50 milliseconds'
        and exists (select 1 from jobs.executions e where e.id = t.execution_id and e.stop_requested_at is null)
        and not exists (select 1 from jobs.queue_states s where s.job_type = t.job_type and s.paused)
        and ($4::int = 0 or (select count(*) from jobs.tasks r where r.job_type = t.job_type and r.status = 'Running') < $4::int)
      returning t.*),
   tried as (
     insert into jobs.task_attempts (task_id, attempt, worker) select id, attempt, $2 from claimed
     on conflict (task_id, attempt) do update set worker = excluded.worker, started_at = now(), ended_at = null, outcome = null),
   begun as (
     update jobs.executions e set status = 'Running', started_at = coalesce(e.started_at, now()), updated_at = now()
       from claimed where e.id = claimed.execution_id and e.status = 'Pending')
   select id, execution_id, job_id, job_type, parameters, attempt, max_attempts, fence, cursor from claimed`,
)

/** Why a claim was refused: final tasks are nobody's work any more, others may be tried later. */
export const refusal = statement<{ status: string; stopping: boolean; wait_ms: number }>(
  'jobs refusal',
  `select t.status, e.stop_requested_at is not null as stopping,
          greatest(0, extract(epoch from t.run_at - now()) * 1000)::float8 as wait_ms
     from jobs.tasks t join jobs.executions e on e.id = t.execution_id where t.job_id = $1`,
)

export const beat = statement<{ stopping: boolean }>(
  'jobs beat',
  `update jobs.tasks t set lease_until = now() + $3 * interval '1 millisecond', progress = coalesce($4::jsonb, t.progress),
          updated_at = now()
     from jobs.executions e
    where t.id = $1 and t.fence = $2 and t.status = 'Running' and e.id = t.execution_id
   returning e.stop_requested_at is not null as stopping`,
)

/**
 * Keeps the lease from being taken away until the caller's transaction ends. A key share lock: the reconciler (for update skip
 * locked) passes the row over, while signs of life go on.
 */
export const hold = statement<{ id: string }>(
  'jobs hold',
  `select id from jobs.tasks where id = $1 and fence = $2 and status = 'Running' for key share`,
)

export const saveCursor = statement<{ id: string }>(
  'jobs save cursor',
  `update jobs.tasks set cursor = $3::jsonb, updated_at = now() where id = $1 and fence = $2 and status = 'Running' returning id`,
)

/**
 * Ends the attempt. $3: the new status; a final one ends the task, Pending sends it round again after $5 milliseconds.
 * $6: attempts not to be counted. $7 and $8: outcome and error of the attempt.
 */
export const leave = statement<{ id: string }>(
  'jobs leave',
  `with ended as (
     update jobs.task_attempts a set ended_at = now(), outcome = $7, error = $8
       from jobs.tasks t where t.id = $1 and t.fence = $2 and a.task_id = t.id and a.attempt = t.attempt)
   update jobs.tasks t
      set status = $3, status_message = $4, lease_owner = null, lease_until = null, updated_at = now(),
          ended_at = case when $3 in ('Pending', 'Scheduled') then null else now() end,
          run_at = case when $3 in ('Pending', 'Scheduled') then now() + $5 * interval '1 millisecond' else t.run_at end,
          attempt = t.attempt - $6::int
    where t.id = $1 and t.fence = $2 and t.status = 'Running' returning t.id`,
)

export const mergeExecutionAttrs = statement(
  'jobs execution attrs',
  `update jobs.executions set extra_attrs = extra_attrs || $2::jsonb, updated_at = now() where id = $1`,
)

/** Tasks whose worker is gone: no sign of life for the whole lease. */
export const takeLost = statement<{
  id: string
  execution_id: string
  job_id: string
  job_type: string
  attempt: number
  max_attempts: number
  fence: number
  lease_owner: string | null
  stopping: boolean
}>(
  'jobs take lost',
  `select t.id, t.execution_id, t.job_id, t.job_type, t.attempt, t.max_attempts, t.fence, t.lease_owner,
          e.stop_requested_at is not null as stopping
     from jobs.tasks t join jobs.executions e on e.id = t.execution_id
    where t.status = 'Running' and t.lease_until < now() order by t.id limit 100 for update of t skip locked`,
)

export const waiting = statement<{ job_id: string; job_type: string; attempt: number; delay_ms: number }>(
  'jobs waiting',
  `select job_id, job_type, attempt, greatest(0, extract(epoch from run_at - now()) * 1000)::float8 as delay_ms
     from jobs.tasks where job_type = $1 and status in ('Pending', 'Scheduled') order by id`,
)

export const stoppingWithWaiting = statement<{ id: string }>(
  'jobs stopping with waiting',
  `select e.id from jobs.executions e
    where e.stop_requested_at is not null and e.status not in ('Stopped', 'Error', 'Success')
      and exists (select 1 from jobs.tasks t where t.execution_id = e.id and t.status in ('Pending', 'Scheduled'))`,
)
