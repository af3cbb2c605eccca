import type { HarborSchemas } from '@haven/proto'
import type { Execution, JsonObject, Schedule } from '@haven/queue'
import { time } from './time.ts'

export function presentPurge(run: Execution): HarborSchemas['ExecHistory'] {
  return {
    id: run.id,
    job_name: run.vendorType,
    job_kind: run.trigger,
    job_parameters: parametersOf(run.parameters),
    // As the contract's words for a schedule have it: Manual, Schedule.
    schedule: { type: run.trigger === 'MANUAL' ? 'Manual' : 'Schedule' },
    job_status: run.status,
    deleted: false,
    creation_time: time(run.createdAt),
    update_time: time(run.updatedAt),
  }
}

export function presentPurgeSchedule(schedule: Schedule): HarborSchemas['ExecHistory'] {
  return {
    id: schedule.id,
    job_name: schedule.vendorType,
    job_kind: schedule.cron,
    job_parameters: parametersOf(schedule.parameters),
    schedule: {
      type: schedule.cronType,
      cron: schedule.cron,
      next_scheduled_time: time(schedule.nextRunAt),
    },
    deleted: false,
    creation_time: time(schedule.createdAt),
    update_time: time(schedule.updatedAt),
  }
}

const shown = ['audit_retention_hour', 'include_event_types', 'dry_run']

const parametersOf = (given: JsonObject): string =>
  JSON.stringify(Object.fromEntries(shown.flatMap((name) => (given[name] === undefined ? [] : [[name, given[name]]]))))
