import type { DescMessage, JsonObject as ProtoJsonObject, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { create, fromJson, toJson } from '@bufbuild/protobuf'
import type { Sql } from '@haven/db'
import type { NewTask } from './start-execution.ts'
import type { Json, JsonObject } from './status.ts'

export type JobLog = Record<'debug' | 'info' | 'warn' | 'error', (line: string) => void>

/** What a job's `run` is given. */
export type JobRun<Params, Deps> = {
  params: Params
  deps: Deps
  /** Lines of the task's log, as the API shows it. Never fails and never waits. */
  log: JobLog
  /** Aborts when a stop was asked for, when the process is going down and when the lease was lost. Look at it between items. */
  signal: AbortSignal
  executionId: number
  jobId: string
  /** From 1. */
  attempt: number
  /** Shows how far the job is; written with the next sign of life. */
  progress(state: JsonObject): void
  /** Adds to what the execution says of itself (Harbor's extra_attrs). Throws LeaseLost. */
  attributes(attrs: JsonObject): Promise<void>
  /** What an earlier attempt saved, or null. */
  cursor: Json
  /** Where the next attempt shall go on, in `tx` together with the work it stands for. Throws LeaseLost. */
  saveCursor(cursor: Json, tx?: Sql): Promise<void>
  /** Call it in each transaction with an effect: throws LeaseLost, and so undoes the effect of a worker that was given up. */
  hold(tx: Sql): Promise<void>
  /** Ends this run: what waits of this type goes first, then a worker goes on from the saved cursor. It counts as no attempt. Never returns. */
  yieldTurn(): never
}

export type JobSpec<Schema extends DescMessage, Deps> = {
  /** Name of the queue, and job type in Harbor's API: `GARBAGE_COLLECTION`. */
  type: string
  /** How often a task may be tried, deaths of the worker included. */
  attempts: number
  /** Tasks of this type that run at the same time in the whole installation; 0 is no limit. */
  concurrency: number
  /** Before the second attempt; doubled before each further one, up to five minutes. Default 2000. */
  backoffMs?: number
  /** Parameters of a task that a schedule of this type starts, from the schedule's own. Without it schedules of the type are refused. */
  scheduled?(parameters: JsonObject): MessageInitShape<Schema>
  run(job: JobRun<MessageShape<Schema>, Deps>): Promise<void>
}

export type JobDefinition<Deps> = {
  readonly type: string
  readonly attempts: number
  readonly concurrency: number
  readonly backoffMs: number
  /** The task that a schedule starts; null for a job that has no schedules. */
  readonly scheduledTask: ((parameters: JsonObject) => NewTask) | null
  /** A task from parameters in their JSON form. Throws when they do not fit the message. */
  task(parameters: JsonObject): NewTask
  /** Runs with parameters as they are stored. Throws when they do not fit the message. */
  run(job: Omit<JobRun<never, Deps>, 'params'> & { params: unknown }): Promise<void>
}

/** Joins a message of @haven/proto/jobs to the code that carries it out. */
export function defineJob<Schema extends DescMessage, Deps>(
  schema: Schema,
  spec: JobSpec<Schema, Deps>,
): JobDefinition<Deps> {
  const { scheduled } = spec
  return {
    type: spec.type,
    attempts: spec.attempts,
    concurrency: spec.concurrency,
    backoffMs: spec.backoffMs ?? 2000,
    scheduledTask: scheduled ? (parameters) => taskOf(schema, spec, scheduled(parameters)) : null,
    task: (parameters) =>
      taskOf(schema, spec, fromJson(schema, parameters as ProtoJsonObject) as MessageInitShape<Schema>),
    run: (job) =>
      spec.run({ ...job, params: fromJson(schema, job.params as ProtoJsonObject, { ignoreUnknownFields: true }) }),
  }
}

/** A task of a job: its parameters as the message says. */
export function taskOf<Schema extends DescMessage>(
  schema: Schema,
  job: { type: string; attempts: number },
  params: MessageInitShape<Schema>,
): NewTask {
  const parameters = toJson(schema, create(schema, params)) as JsonObject
  return { jobType: job.type, maxAttempts: job.attempts, parameters }
}
