import { statement, type Database } from '@haven/db'
import { bullId, jobIdOf, type Queue } from './queue.ts'
import type { QueuedTask } from './start-execution.ts'
import { fold, stopWaiting } from './store/executions.ts'
import { isPaused } from './store/queue-states.ts'
import * as tasks from './store/tasks.ts'

export type ReconcilerOptions = {
  db: Database
  queue: Queue
  jobTypes: readonly string[]
  onFailure: (failure: Error) => void
  /** Default 30 000. */
  intervalMs?: number
}

export type Reconciled = { requeued: number; failed: number; added: number; removed: number }

const WAITING = ['wait', 'delayed', 'prioritized'] as const

const forgetWorkers = statement(
  'jobs forget workers',
  `delete from jobs.workers where heartbeat_at < now() - interval '60 seconds'`,
)
const stillWaiting = statement<{ job_id: string; attempt: number }>(
  'jobs still waiting',
  `select job_id, attempt from jobs.tasks where job_id = any($1::uuid[]) and status in ('Pending', 'Scheduled', 'Running')`,
)

/**
 * Makes Redis and the rows agree again: the rows are right. Any number may run, each of them at any time; it is what brings work
 * back after Redis was emptied, a worker died, or a process was killed between its commit and its kick.
 */
export class Reconciler implements AsyncDisposable {
  readonly #options: Required<ReconcilerOptions>
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #closed = false

  constructor(options: ReconcilerOptions) {
    this.#options = { intervalMs: 30_000, ...options }
  }

  start(): void {
    this.#running = this.#round()
  }

  async #round(): Promise<void> {
    try {
      await this.reconcile()
    } catch (cause) {
      this.#options.onFailure(new Error('reconciling the queues', { cause }))
    }
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      this.#running = this.#round()
    }, this.#options.intervalMs)
  }

  async reconcile(): Promise<Reconciled> {
    const { db, jobTypes } = this.#options
    const done: Reconciled = { requeued: 0, failed: 0, added: 0, removed: 0 }
    await this.#giveLostTasksBack(done)
    for (const { id } of await db.writes.rows(tasks.stoppingWithWaiting, [])) {
      await db.transaction(async (tx) => {
        await stopWaiting(tx, id)
        await fold(tx, id)
      })
    }
    await db.writes.rows(forgetWorkers, [])
    for (const jobType of jobTypes) await this.#compare(jobType, done)
    return done
  }

  /** A task whose worker died goes to another one, or ends when it had its attempts: a job that kills its process ends too. */
  async #giveLostTasksBack(done: Reconciled): Promise<void> {
    const lost = await this.#options.db.transaction(async (tx) => {
      const rows = await tx.rows(tasks.takeLost, [])
      for (const task of rows) {
        const again = !task.stopping && task.attempt < task.max_attempts
        const status = again ? 'Pending' : task.stopping ? 'Stopped' : 'Error'
        const message = status === 'Error' ? `the worker died in attempt ${task.attempt} of ${task.max_attempts}` : ''
        const lost = ['lost', `no sign of life from ${task.lease_owner}`]
        await tx.rows(tasks.leave, [task.id, task.fence, status, message, 0, 0, ...lost])
      }
      for (const executionId of new Set(rows.map((task) => task.execution_id))) await fold(tx, executionId)
      return rows
    })
    for (const task of lost) {
      if (!task.stopping && task.attempt < task.max_attempts) done.requeued++
      else done.failed++
    }
  }

  async #compare(jobType: string, done: Reconciled): Promise<void> {
    const { db, queue } = this.#options
    const bull = await queue.bull(jobType)
    const paused = (await db.writes.one(isPaused, [jobType]))?.paused ?? false
    if (paused !== (await bull.isPaused())) await (paused ? bull.pause() : bull.resume())

    // Redis first, then the rows: a task that was committed and added in between is then in both or missing in Redis only,
    // and adding what is there already changes nothing.
    const inRedis = new Set(await bull.getRanges([...WAITING, 'active']))
    const removable = await bull.getRanges([...WAITING])
    const rows = await db.writes.rows(tasks.waiting, [jobType])
    const waiting = rows.map<QueuedTask>((row) => ({
      jobId: row.job_id,
      jobType: row.job_type,
      attempt: row.attempt,
      delayMs: row.delay_ms,
    }))
    const missing = waiting.filter((task) => !inRedis.has(bullId(task)))
    await queue.add(missing)
    done.added += missing.length

    const known = new Set(waiting.map(bullId))
    const unknown = removable.filter((id) => !known.has(id))
    done.removed += await this.#remove(jobType, unknown)
  }

  /** Looked up once more by id: the list of waiting tasks may be older than a task that was claimed or added meanwhile. */
  async #remove(jobType: string, ids: readonly string[]): Promise<number> {
    if (ids.length === 0) return 0
    const { db, queue } = this.#options
    const uuids = ids.map(jobIdOf).filter((id) => UUID.test(id))
    const needed = new Set(
      (await db.writes.rows(stillWaiting, [uuids])).map((row) => bullId({ jobId: row.job_id, attempt: row.attempt })),
    )
    let removed = 0
    for (const id of ids) {
      if (needed.has(id)) continue
      removed += await (await queue.bull(jobType)).remove(id)
    }
    return removed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
