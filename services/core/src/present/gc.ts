import type { HarborSchemas } from '@haven/proto'
import type { Execution, JsonObject, Schedule } from '@haven/queue'
import { time } from './time.ts'

export function presentGC(run: Execution): HarborSchemas['GCHistory'] {
  return {
    id: run.id,
    job_name: run.vendorType,
    job_kind: run.trigger,
    job_parameters: parametersOf({ ...run.parameters, ...run.extraAttrs }),
    // As the contract's words for a schedule have it: Manual, Schedule.
    schedule: { type: run.trigger === 'MANUAL' ? 'Manual' : 'Schedule' },
    job_status: run.status,
    deleted: false,
    creation_time: time(run.createdAt),
    update_time: time(run.updatedAt),
  }
}

export function presentGCSchedule(schedule: Schedule): HarborSchemas['GCHistory'] {
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

const shown = [
  'delete_untagged',
  'delete_tag',
  'dry_run',
  'workers',
  'time_window',
  'freed_space',
  'purged_blobs',
  'purged_manifests',
]

/** Only what is named here leaves: a run's attributes may hold more. */
const parametersOf = (given: JsonObject): string =>
  JSON.stringify(Object.fromEntries(shown.flatMap((name) => (given[name] === undefined ? [] : [[name, given[name]]]))))
