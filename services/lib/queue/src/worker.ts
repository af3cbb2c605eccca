import { hostname } from 'node:os'
import { randomUUID } from 'node:crypto'
import { problems } from '@haven/errors'
import { statement, type Database } from '@haven/db'
import { causedBy, inSpan, type Cause } from '@haven/telemetry'
import type { Job, Worker as BullWorker } from 'bullmq'
import { Redis } from 'ioredis'
import type { JobDefinition } from './define-job.ts'
import { Lease, LeaseLost, ShuttingDown, StopRequested, TurnOver, type LeaseTimes, type Outcome } from './lease.ts'
import { jobIdOf, type Queue } from './queue.ts'
import { TaskLog } from './task-log.ts'

/** An attempt that is over. */
export type EndedAttempt = {
  jobType: string
  jobId: string
  attempt: number
  /** `error` also when it will be tried again; `released`: given back by a process that stops. */
  outcome: Outcome['kind']
  seconds: number
  /** The request that caused it, if one did. */
  request: string | undefined
}

export type WorkersOptions<Deps> = {
  db: Database
  redisUrl: string
  prefix: string
  queue: Queue
  jobs: readonly JobDefinition<Deps>[]
  deps: Deps
  onFailure: (failure: Error) => void
  onEnded?: (attempt: EndedAttempt) => void
  /** Tasks of one type that run at the same time in this process. Default 10. */
  poolSize?: number
  times?: LeaseTimes
  /** Chooses within [0, 1): spreads retries. */
  random?: () => number
}

const LEASE: LeaseTimes = { leaseMs: 60_000, beatMs: 2_000 }
/** BullMQ's default. */
const BULL_LOCK_MS = 30_000
const SIGN_OF_LIFE_MS = 10_000
const MAX_BACKOFF_MS = 5 * 60_000

const signOfLife = statement(
  'jobs worker alive',
  `insert into jobs.workers (id, host, pid, concurrency) values ($1, $2, $3, $4)
   on conflict (id) do update set heartbeat_at = now()`,
)
const signOff = statement('jobs worker gone', 'delete from jobs.workers where id = $1')

/** What BullMQ wants to be thrown after a job was moved. */
const delayed = async () => new (await import('./bull.ts')).DelayedError()

/** Takes tasks from BullMQ, one queue a job type, and runs each under a lease. One row in jobs.workers tells of all of them. */
export class Workers<Deps> implements AsyncDisposable {
  readonly id = randomUUID()
  readonly #options: WorkersOptions<Deps> & { poolSize: number; times: LeaseTimes; random: () => number }
  readonly #redis: Redis
  readonly #workers: BullWorker[] = []
  readonly #leases = new Set<Lease>()
  #timer: NodeJS.Timeout | undefined
  #alive: Promise<void> = Promise.resolve()

  constructor(options: WorkersOptions<Deps>) {
    this.#options = { poolSize: 10, times: LEASE, random: Math.random, ...options }
    this.#redis = new Redis(options.redisUrl, { maxRetriesPerRequest: null, lazyConnect: true })
    this.#redis.on('error', options.onFailure)
  }

  async start(): Promise<void> {
    const { jobs, poolSize, prefix, times, onFailure } = this.#options
    // What a worker took and had not claimed when it died is held by BullMQ's lock only: that ends no later than a lease.
    const lockMs = Math.min(times.leaseMs, BULL_LOCK_MS)
    const { Worker: Bull } = await import('./bull.ts')
    for (const job of jobs) {
      const worker = new Bull(job.type, (taken, token) => this.#process(job, taken, token), {
        connection: this.#redis,
        prefix,
        concurrency: job.concurrency > 0 ? Math.min(job.concurrency, poolSize) : poolSize,
        // A job whose lock ran out is delivered again and then refused by its lease, as often as that happens.
        maxStalledCount: 1000,
        lockDuration: lockMs,
        stalledInterval: lockMs,
        drainDelay: 5,
      })
      worker.on('error', onFailure)
      this.#workers.push(worker)
    }
    await this.#beat()
    await Promise.all(this.#workers.map((worker) => worker.waitUntilReady())).catch((cause: Error) => {
      throw problems.redisUnreachable({ reason: cause.message }, { cause })
    })
  }

  async #beat(): Promise<void> {
    const { db, poolSize, onFailure } = this.#options
    try {
      await db.writes.rows(signOfLife, [this.id, hostname(), process.pid, poolSize])
    } catch (cause) {
      onFailure(new Error('telling that this worker lives', { cause }))
    }
    this.#timer = setTimeout(() => {
      this.#alive = this.#beat()
    }, SIGN_OF_LIFE_MS)
  }

  #process(definition: JobDefinition<Deps>, taken: Job, token: string | undefined): Promise<void> {
    const from = (taken.data ?? {}) as Cause
    const attributes = { 'haven.job': jobIdOf(taken.id!), 'haven.request': from.request }
    const work = () =>
      inSpan({ name: `job ${definition.type}`, kind: 'consumer', from, attributes }, () =>
        this.#claimed(definition, taken, token, from.request),
      )
    return from.request === undefined ? work() : causedBy(from.request, work)
  }

  async #claimed(
    definition: JobDefinition<Deps>,
    taken: Job,
    token: string | undefined,
    request: string | undefined,
  ): Promise<void> {
    const { db, times } = this.#options
    const lease = await Lease.claim(db, jobIdOf(taken.id!), {
      owner: this.id,
      jobType: definition.type,
      concurrency: definition.concurrency,
      times,
    })
    if (lease === 'gone') return
    if (!(lease instanceof Lease)) {
      await taken.moveToDelayed(Date.now() + lease.againInMs, token)
      throw await delayed()
    }
    this.#leases.add(lease)
    let turnOver = false
    try {
      turnOver = await this.#run(definition, lease, request)
    } finally {
      this.#leases.delete(lease)
    }
    if (!turnOver) return
    // Behind those that wait now.
    await taken.moveToDelayed(Date.now(), token)
    throw await delayed()
  }

  /** True when it has not ended and others go first. */
  async #run(definition: JobDefinition<Deps>, lease: Lease, request: string | undefined): Promise<boolean> {
    const { db, deps, queue, onFailure, onEnded } = this.#options
    const { task } = lease
    await using log = new TaskLog(db, task.id)
    const startedAt = performance.now()
    const outcome = await this.#attempt(definition, lease, log, deps)
    const seconds = (performance.now() - startedAt) / 1000
    const { job_type: jobType, job_id: jobId, attempt } = task
    onEnded?.({ jobType, jobId, attempt, outcome: outcome.kind, seconds, request })
    if (outcome.kind === 'error') log.error(outcome.message)
    await log.flush()
    try {
      await lease.leave(outcome)
    } catch (error) {
      if (!(error instanceof LeaseLost)) throw error
      onFailure(error) // a zombie: the task is another worker's, and so is its result
      return false
    }
    if (outcome.kind === 'error' && outcome.retryInMs !== null) {
      const again = { jobId: task.job_id, jobType: task.job_type, attempt: task.attempt, delayMs: outcome.retryInMs }
      await queue.kick([again])
    }
    return outcome.kind === 'released' && outcome.turnOver
  }

  async #attempt(definition: JobDefinition<Deps>, lease: Lease, log: TaskLog, deps: Deps): Promise<Outcome> {
    const { task, signal } = lease
    try {
      await definition.run({
        params: task.parameters,
        deps,
        log,
        signal,
        executionId: Number(task.execution_id),
        jobId: task.job_id,
        attempt: task.attempt,
        cursor: task.cursor as never,
        progress: (state) => lease.progress(state),
        attributes: (attrs) => lease.attributes(attrs),
        saveCursor: (cursor, tx) => lease.saveCursor(cursor, tx),
        hold: (tx) => lease.hold(tx),
        yieldTurn() {
          throw new TurnOver()
        },
      })
    } catch (error) {
      if (!signal.aborted && error instanceof TurnOver) return { kind: 'released', turnOver: true }
      if (!signal.aborted) return this.#failed(definition, lease, error)
      if (error !== signal.reason) log.debug(`ended by: ${messageOf(error)}`)
      return interrupted(signal)
    }
    return signal.aborted && signal.reason instanceof StopRequested ? { kind: 'stopped' } : { kind: 'success' }
  }

  #failed(definition: JobDefinition<Deps>, { task }: Lease, error: unknown): Outcome {
    const backoff = Math.min(definition.backoffMs * 2 ** (task.attempt - 1), MAX_BACKOFF_MS)
    const retryInMs = task.attempt < task.max_attempts ? backoff * (0.5 + this.#options.random() / 2) : null
    return { kind: 'error', message: messageOf(error), retryInMs }
  }

  /**
   * Takes no more tasks, gives those that run `graceMs` to end by themselves, then asks them to stop: what is unfinished goes back
   * and another worker takes it. Ends within `graceMs` and five seconds more, whatever the jobs do.
   */
  async drain(graceMs: number): Promise<void> {
    clearTimeout(this.#timer)
    await this.#alive
    const closing = Promise.all(this.#workers.map((worker) => worker.close()))
    await Promise.race([closing, after(graceMs)])
    for (const lease of this.#leases) lease.abort(new ShuttingDown())
    await Promise.race([closing, after(5000)])
    clearTimeout(this.#timer)
    await this.#options.db.writes.rows(signOff, [this.id]).catch(this.#options.onFailure)
    this.#redis.disconnect()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain(0)
  }
}

const interrupted = (signal: AbortSignal): Outcome =>
  signal.reason instanceof StopRequested ? { kind: 'stopped' } : { kind: 'released', turnOver: false }

/** The whole chain of causes in one line: it is what an administrator sees of a failed job. */
function messageOf(error: unknown): string {
  const chain: string[] = []
  for (let e = error; e !== undefined && e !== null && chain.length < 5; e = (e as Error).cause) {
    chain.push(e instanceof Error ? e.message || e.name : typeof e === 'string' ? e : JSON.stringify(e))
  }
  return chain.join(': ')
}

const after = (ms: number) =>
  new Promise<void>((resolve) => {
    setTimeout(resolve, ms).unref()
  })
