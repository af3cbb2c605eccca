import type { Database } from '@haven/db'
import { cause } from '@haven/telemetry'
import type { Queue as BullQueue, ConnectionOptions } from 'bullmq'
import { Redis } from 'ioredis'
import type { QueuedTask } from './start-execution.ts'
import { fold, requestStopOf, stopWaiting } from './store/executions.ts'
import { setPaused } from './store/queue-states.ts'

export type QueueOptions = {
  db: Database
  redisUrl: string
  /** Keeps installations apart that share a Redis. */
  prefix: string
  /** Told when Redis did not take something. Nothing is lost by it: the rows are there, the reconciler adds what is missing. */
  onFailure: (failure: Error) => void
}

/** An API call waits for Redis this long at most; after that the reconciler does what it could not. */
const KICK_MS = 2000
const ADD_PAGE = 1000

/** BullMQ's name for one attempt of a task. It ignores an id that it still has, so each attempt has its own. */
export const bullId = (task: Pick<QueuedTask, 'jobId' | 'attempt'>): string => `${task.jobId}.${task.attempt}`
/** The task that a BullMQ job stands for. */
export const jobIdOf = (id: string): string => id.slice(0, id.lastIndexOf('.'))

/** The producer's side: hands committed tasks to BullMQ, which only carries their ids, and the request and trace that they go on from. */
export class Queue implements AsyncDisposable {
  readonly db: Database
  readonly #redis: Redis
  readonly #prefix: string
  readonly #onFailure: (failure: Error) => void
  readonly #queues = new Map<string, BullQueue>()

  constructor({ db, redisUrl, prefix, onFailure }: QueueOptions) {
    this.db = db
    this.#prefix = prefix
    this.#onFailure = onFailure
    // Finite: a call of the API fails soon instead of hanging while Redis is away (reliability.md §4, 13).
    this.#redis = new Redis(redisUrl, { maxRetriesPerRequest: 1, connectTimeout: KICK_MS, commandTimeout: 5000 })
    this.#redis.on('error', onFailure)
  }

  /** Starts committed tasks now. Never rejects: what Redis does not take is added by the reconciler. */
  async kick(tasks: readonly QueuedTask[]): Promise<void> {
    try {
      await within(KICK_MS, this.add(tasks))
    } catch (cause) {
      this.#onFailure(new Error(`handing ${tasks.length} tasks to Redis`, { cause }))
    }
  }

  /** Adds tasks; those that BullMQ has already stay as they are. */
  async add(tasks: readonly QueuedTask[]): Promise<void> {
    const data = cause()
    for (const [jobType, ofType] of Map.groupBy(tasks, (task) => task.jobType)) {
      for (let from = 0; from < ofType.length; from += ADD_PAGE) {
        const bull = await this.bull(jobType)
        await bull.addBulk(
          ofType.slice(from, from + ADD_PAGE).map((task) => ({
            name: jobType,
            data,
            // Postgres keeps the history and counts the attempts.
            opts: { jobId: bullId(task), delay: Math.ceil(task.delayMs), removeOnComplete: true, removeOnFail: true },
          })),
        )
      }
    }
  }

  async bull(jobType: string): Promise<BullQueue> {
    // By the first who has a task: it takes 6 MiB and a tenth of a second, of which a process that serves pulls has no use.
    const { Queue: Bull } = await import('./bull.ts')
    let queue = this.#queues.get(jobType)
    if (!queue) {
      const connection = this.#redis as unknown as ConnectionOptions
      queue = new Bull(jobType, { connection, prefix: this.#prefix })
      queue.on('error', this.#onFailure)
      this.#queues.set(jobType, queue)
    }
    return queue
  }

  /**
   * Asks an execution to stop. Tasks that wait end at once; one that runs hears of it within seconds and ends as Stopped.
   * Returns false when there is no such execution or it is over.
   */
  async stopExecution(executionId: number): Promise<boolean> {
    const stopped = await this.db.transaction(async (tx) => {
      const waiting = await stopWaiting(tx, executionId)
      return (await requestStopOf(tx, executionId)) ? waiting : null
    })
    if (!stopped) return false
    // Again, now that no worker may claim: a task whose attempt failed in between is waiting once more.
    const late = await this.db.transaction(async (tx) => {
      const waiting = await stopWaiting(tx, executionId)
      await fold(tx, String(executionId))
      return waiting
    })
    await this.#forget(
      [...stopped, ...late].map((row) => ({ jobId: row.job_id, jobType: row.job_type, attempt: row.attempt })),
    )
    return true
  }

  /** Takes stopped tasks out of Redis, a page at a time. What stays does no harm: its claim is refused. */
  async #forget(tasks: { jobId: string; jobType: string; attempt: number }[]): Promise<void> {
    const all = (async () => {
      for (let from = 0; from < tasks.length; from += 100) {
        await Promise.all(
          tasks.slice(from, from + 100).map(async (task) => (await this.bull(task.jobType)).remove(bullId(task))),
        )
      }
    })()
    await within(KICK_MS, all).catch((cause: unknown) =>
      this.#onFailure(new Error('taking stopped tasks out of Redis', { cause })),
    )
  }

  /** Workers take no more tasks of this type until `resume`; those that run go on. Also holds the SCHEDULER. */
  async pause(jobType: string): Promise<void> {
    await this.#setPaused(jobType, true)
  }

  async resume(jobType: string): Promise<void> {
    await this.#setPaused(jobType, false)
  }

  async #setPaused(jobType: string, paused: boolean): Promise<void> {
    await this.db.writes.rows(setPaused, [jobType, paused])
    const told = this.bull(jobType).then((queue) => (paused ? queue.pause() : queue.resume()))
    await within(KICK_MS, told).catch((cause: unknown) => this.#onFailure(new Error(`pausing ${jobType}`, { cause })))
  }

  /** Rejects when Redis does not answer in time. */
  async check(): Promise<void> {
    await within(KICK_MS, this.#redis.ping())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([...this.#queues.values()].map((queue) => queue.close()))
    this.#redis.disconnect()
  }
}

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
    work.catch(() => undefined) // when it fails after the time was over, the caller has its answer
  }
}
