import { statement } from '@haven/db'

export const setPaused = statement(
  'jobs set paused',
  `insert into jobs.queue_states (job_type, paused, updated_at) values ($1, $2, now())
   on conflict (job_type) do update set paused = excluded.paused, updated_at = now()`,
)
export const isPaused = statement<{ paused: boolean }>(
  'jobs is paused',
  'select paused from jobs.queue_states where job_type = $1',
)
