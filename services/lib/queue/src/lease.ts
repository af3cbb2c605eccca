import type { Database, Sql } from '@haven/db'
import { fold } from './store/executions.ts'
import * as tasks from './store/tasks.ts'
import type { Json, JsonObject } from './status.ts'

/** The task belongs to another worker now, or to nobody: whatever this one was about to write must not be written. */
export class LeaseLost extends Error {
  constructor(jobId: string) {
    super(`the lease of job ${jobId} was lost`)
  }
}

/** Reason of an aborted signal: somebody asked the execution to stop. */
export class StopRequested extends Error {
  constructor() {
    super('stop requested')
  }
}

/** Reason of an aborted signal: the process is going down; the task goes to another worker. */
export class ShuttingDown extends Error {
  constructor() {
    super('the worker is going down')
  }
}

/** A job's own word that others go first now. */
export class TurnOver extends Error {
  constructor() {
    super('the turn is over')
  }
}

export type LeaseTimes = {
  /** After this long without a sign of life the task is given to another worker. */
  leaseMs: number
  /** Between two signs of life; also how soon a stop request is heard. */
  beatMs: number
}

export type Outcome =
  | { kind: 'success' }
  | { kind: 'stopped' }
  | { kind: 'error'; message: string; retryInMs: number | null }
  /** Given back, because we go down or because others come first: that is no failed attempt. */
  | { kind: 'released'; turnOver: boolean }

/** A task that this worker holds. Every write carries its fence: after the lease went to another worker each throws LeaseLost. */
export class Lease {
  readonly task: tasks.ClaimedRow
  readonly #db: Database
  readonly #times: LeaseTimes
  readonly #abort = new AbortController()
  #progress: JsonObject | null = null
  #timer: NodeJS.Timeout | undefined
  #beating: Promise<void> = Promise.resolve()

  private constructor(db: Database, task: tasks.ClaimedRow, times: LeaseTimes) {
    this.#db = db
    this.task = task
    this.#times = times
    this.#scheduleBeat()
  }

  /** Takes the task, or says why not: `gone` for good, else after how many milliseconds to ask again. */
  static async claim(
    db: Database,
    jobId: string,
    options: { owner: string; jobType: string; concurrency: number; times: LeaseTimes },
  ): Promise<Lease | 'gone' | { againInMs: number }> {
    const { owner, jobType, concurrency, times } = options
    const row = await db.transaction(async (tx) => {
      if (concurrency > 0) await tx.rows(tasks.lockJobType, [jobType])
      return tx.one(tasks.claim, [jobId, owner, times.leaseMs, concurrency])
    })
    if (row) return new Lease(db, row, times)
    const refusal = await db.writes.one(tasks.refusal, [jobId])
    if (!refusal || refusal.stopping || (refusal.status !== 'Pending' && refusal.status !== 'Scheduled')) return 'gone'
    return { againInMs: Math.max(refusal.wait_ms, AGAIN_MS) }
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  abort(reason: Error): void {
    this.#abort.abort(reason)
  }

  progress(state: JsonObject): void {
    this.#progress = state
  }

  async hold(tx: Sql): Promise<void> {
    this.#require(await tx.one(tasks.hold, [this.task.id, this.task.fence]))
  }

  async saveCursor(cursor: Json, tx: Sql = this.#db.writes): Promise<void> {
    this.#require(await tx.one(tasks.saveCursor, [this.task.id, this.task.fence, JSON.stringify(cursor)]))
  }

  async attributes(attrs: JsonObject): Promise<void> {
    await this.#db.transaction(async (tx) => {
      await this.hold(tx)
      await tx.rows(tasks.mergeExecutionAttrs, [this.task.execution_id, JSON.stringify(attrs)])
    })
  }

  /** A sign of life with the newest progress. Rejects with LeaseLost, and aborts the signal then. */
  async beat(): Promise<void> {
    const progress = this.#progress
    this.#progress = null
    const row = await this.#db.writes.one(tasks.beat, [
      this.task.id,
      this.task.fence,
      this.#times.leaseMs,
      progress && JSON.stringify(progress),
    ])
    if (this.#require(row).stopping) this.abort(new StopRequested())
  }

  #scheduleBeat() {
    this.#timer = setTimeout(() => {
      this.#beating = this.beat()
        .catch((error: unknown) => {
          // Only a lost lease ends the work here. When Postgres is away the next beat tries again, and the fence judges the result.
          if (error instanceof LeaseLost) this.abort(error)
        })
        .finally(() => {
          if (this.#timer) this.#scheduleBeat()
        })
    }, this.#times.beatMs)
  }

  /** Ends the attempt: task, attempt and execution in one transaction. @throws LeaseLost when it was not ours any more. */
  async leave(outcome: Outcome): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    await this.#beating
    const { id, fence, execution_id } = this.task
    const again = outcome.kind === 'released' || (outcome.kind === 'error' && outcome.retryInMs !== null)
    const status = again ? 'Pending' : FINAL[outcome.kind]
    const message = outcome.kind === 'error' ? outcome.message : ''
    const delayMs = outcome.kind === 'error' ? (outcome.retryInMs ?? 0) : 0
    const progress = this.#progress && JSON.stringify(this.#progress)
    await this.#db.transaction(async (tx) => {
      if (progress) this.#require(await tx.one(tasks.beat, [id, fence, this.#times.leaseMs, progress]))
      const uncounted = outcome.kind === 'released' ? 1 : 0
      const ended = [OUTCOMES[outcome.kind], message || null]
      this.#require(await tx.one(tasks.leave, [id, fence, status, message, delayMs, uncounted, ...ended]))
      await fold(tx, execution_id)
    })
  }

  #require<Row>(row: Row | null): Row {
    if (row === null) throw new LeaseLost(this.task.job_id)
    return row
  }
}

/** While a queue is paused or its limit of running tasks is reached. */
const AGAIN_MS = 1000
const FINAL = { released: 'Pending', success: 'Success', stopped: 'Stopped', error: 'Error' }
const OUTCOMES = { success: 'success', stopped: 'stopped', error: 'error', released: 'lost' }
