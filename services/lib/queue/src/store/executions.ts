import { statement, type Sql } from '@haven/db'

const lock = statement('jobs lock execution', 'select id from jobs.executions where id = $1 for update')
// In the words of the partial index tasks_open_idx. Until the last task is over this is all there is to know.
const foldOpen = statement<{ status: string }>(
  'jobs fold open execution',
  `update jobs.executions e
      set status = case when e.stop_requested_at is not null then 'Stopping'
                        when e.started_at is not null then 'Running' else 'Pending' end,
          ended_at = null, updated_at = now()
    where e.id = $1 and exists (select from jobs.tasks where execution_id = $1 and status in ('Pending', 'Scheduled', 'Running'))
   returning e.status`,
)
const foldTasks = statement<{ status: string }>(
  'jobs fold ended execution',
  `with tasks as (
     select count(*) filter (where status = 'Error') as failed,
            count(*) filter (where status = 'Stopped') as stopped,
            max(ended_at) as ended_at,
            min(started_at) as started_at,
            (array_agg(status_message order by id) filter (where status = 'Error' and status_message <> ''))[1] as message
       from jobs.tasks where execution_id = $1)
   update jobs.executions e
      set status = case when tasks.failed > 0 then 'Error'
                        when tasks.stopped > 0 then 'Stopped' else 'Success' end,
          status_message = coalesce(tasks.message, e.status_message),
          started_at = coalesce(e.started_at, tasks.started_at),
          ended_at = coalesce(tasks.ended_at, now()),
          updated_at = now()
     from tasks where e.id = $1
   returning e.status`,
)

/**
 * Derives an execution's status from its tasks. Call it after the task was changed, in the same transaction: the execution's row is
 * locked before the tasks are counted, so the last of two tasks that end at once sees both.
 */
export async function fold(tx: Sql, executionId: string): Promise<void> {
  await tx.rows(lock, [executionId])
  if (!(await tx.one(foldOpen, [executionId]))) await tx.rows(foldTasks, [executionId])
}

const stopOpenTasks = statement<{ job_id: string; job_type: string; attempt: number }>(
  'jobs stop open tasks',
  `update jobs.tasks set status = 'Stopped', ended_at = now(), updated_at = now()
    where execution_id = $1 and status in ('Pending', 'Scheduled') returning job_id, job_type, attempt`,
)
const requestStop = statement<{ id: string }>(
  'jobs request stop',
  `update jobs.executions set stop_requested_at = coalesce(stop_requested_at, now()), updated_at = now()
    where id = $1 and status in ('Pending', 'Running', 'Stopping') returning id`,
)

export const requestStopOf = (tx: Sql, executionId: number) => tx.one(requestStop, [executionId])
/** Tasks that no worker holds end here; those that run hear of it at their next sign of life. */
export const stopWaiting = (tx: Sql, executionId: number | string) => tx.rows(stopOpenTasks, [executionId])
