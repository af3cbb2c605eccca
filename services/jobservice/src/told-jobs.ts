import { hostname } from 'node:os'
import type { EndedAttempt } from '@haven/queue'
import type { Logger, Metrics } from '@haven/runtime'
import { Counter, Gauge, Summary } from 'prom-client'

const MINUTE_SECONDS = 60

/** Counts attempts under Harbor's names (harbor-features.md W) and leaves a line of each in the log. */
export function toldJobs(metrics: Metrics, log: Logger, workers: number): (ended: EndedAttempt) => void {
  const registers = [metrics.registry]
  const labelNames = ['type', 'status'] as const
  const total = new Counter({
    name: 'harbor_jobservice_task_total',
    help: 'Attempts of jobs that ended.',
    labelNames,
    registers,
  })
  const time = new Summary({
    name: 'harbor_jobservice_task_process_time_seconds',
    help: 'How long attempts of jobs took, the last ten minutes for the quantiles.',
    labelNames,
    percentiles: [0.5, 0.9, 0.99],
    maxAgeSeconds: 10 * MINUTE_SECONDS,
    ageBuckets: 5,
    registers,
  })
  new Gauge({
    name: 'harbor_jobservice_info',
    help: 'This worker pool.',
    labelNames: ['node', 'pool', 'workers'] as const,
    registers,
  })
    .labels({ node: hostname(), pool: 'haven', workers: String(workers) })
    .set(1)
  return ({ jobType, jobId, attempt, outcome, seconds, request }) => {
    const labels = { type: jobType, status: outcome }
    total.inc(labels)
    time.observe(labels, seconds)
    const line = { job: jobId, type: jobType, attempt, outcome, ms: Math.round(seconds * 1000) }
    log.info(request === undefined ? line : { request, ...line }, 'a job ended')
  }
}
