import type { HarborSchemas } from '@haven/proto'
import type { QueueFacts, Schedule, Task, WorkerPool } from '@haven/queue'
import { time } from './time.ts'

export const presentPool = (pool: WorkerPool): HarborSchemas['WorkerPool'] => ({
  pid: pool.pid,
  worker_pool_id: pool.id,
  start_at: time(pool.startedAt),
  heartbeat_at: time(pool.heartbeatAt),
  concurrency: pool.concurrency,
  host: pool.host,
})

/** One entry a slot: those that work, then those that wait. */
export function presentWorkers(pool: WorkerPool, running: readonly Task[]): HarborSchemas['Worker'][] {
  const slots = Math.max(pool.concurrency, running.length)
  return Array.from({ length: slots }, (_, slot) => {
    const task = running[slot]
    return {
      id: `${pool.id}-${slot}`,
      pool_id: pool.id,
      ...(task && {
        job_name: task.jobType,
        job_id: task.jobId,
        start_at: time(task.startedAt),
        checkin_at: time(task.updatedAt),
      }),
    }
  })
}

export const presentQueue = (queue: QueueFacts): HarborSchemas['JobQueue'] => ({
  job_type: queue.jobType,
  ...(queue.count > 0 && { count: queue.count }),
  ...(queue.latencySeconds > 0 && { latency: queue.latencySeconds }),
  paused: queue.paused,
})

export const presentSchedule = (schedule: Schedule): HarborSchemas['ScheduleTask'] => ({
  id: schedule.id,
  vendor_type: schedule.vendorType,
  vendor_id: schedule.vendorId,
  cron: schedule.cron,
  update_time: time(schedule.updatedAt),
})
