export { CRON_TYPES, type CronType } from './cron.ts'
export { defineJob, taskOf, type JobDefinition, type JobLog, type JobRun, type JobSpec } from './define-job.ts'
export * from './inspect.ts'
export { listEffects, recordEffect, type ItemEffect } from './item-effects.ts'
export { failedItems, listFailures, recordFailures, type ItemFailure } from './item-failures.ts'
export { LeaseLost, ShuttingDown, StopRequested, type LeaseTimes } from './lease.ts'
export { Queue, type QueueOptions } from './queue.ts'
export { Reconciler, type Reconciled, type ReconcilerOptions } from './reconciler.ts'
export {
  deleteSchedule,
  getSchedule,
  listSchedules,
  putSchedule,
  Scheduler,
  type Schedule,
  type ScheduledWork,
  type SchedulerOptions,
} from './scheduler.ts'
export {
  startExecution,
  type NewExecution,
  type NewTask,
  type QueuedTask,
  type StartedExecution,
} from './start-execution.ts'
export { startedUnder, startOnce, type Once } from './start-once.ts'
export { isFinal, type ExecutionStatus, type Json, type JsonObject, type TaskStatus, type Trigger } from './status.ts'
export { sweepExecutions } from './sweep-executions.ts'
export { Workers, type EndedAttempt, type WorkersOptions } from './worker.ts'
