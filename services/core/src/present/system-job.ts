import type { HarborSchemas } from '@haven/proto'
import type { Execution, JsonObject, Schedule } from '@haven/queue'
import { time } from './time.ts'

type History = HarborSchemas['GCHistory'] & HarborSchemas['ExecHistory']

/** A run, with those of its parameters and results that are named. */
export const presentRun = (run: Execution, shown: readonly string[]): History => ({
  id: run.id,
  job_name: run.vendorType,
  job_kind: run.trigger,
  job_parameters: pick({ ...run.parameters, ...run.extraAttrs }, shown),
  // As the contract's words for a schedule have it: Manual, Schedule.
  schedule: { type: run.trigger === 'MANUAL' ? 'Manual' : 'Schedule' },
  job_status: run.status,
  deleted: false,
  creation_time: time(run.createdAt),
  update_time: time(run.updatedAt),
})

export const presentSchedule = (schedule: Schedule, shown: readonly string[]): History => ({
  id: schedule.id,
  job_name: schedule.vendorType,
  job_kind: schedule.cron,
  job_parameters: pick(schedule.parameters, shown),
  schedule: {
    type: schedule.cronType,
    cron: schedule.cron,
    next_scheduled_time: time(schedule.nextRunAt),
  },
  deleted: false,
  creation_time: time(schedule.createdAt),
  update_time: time(schedule.updatedAt),
})

const pick = (given: JsonObject, names: readonly string[]): string =>
  JSON.stringify(Object.fromEntries(names.flatMap((name) => (given[name] === undefined ? [] : [[name, given[name]]]))))
