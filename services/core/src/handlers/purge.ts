import { problems } from '@haven/errors'
import { parseEventTypes } from '@haven/events'
import { PurgeAuditLogSchema } from '@haven/proto/jobs'
import { taskOf } from '@haven/queue'
import type { Handlers } from '../handler.ts'
import { systemJob } from './system-job.ts'

const VENDOR = 'PURGE_AUDIT_LOG'
/** What a run removed stays removed, so trying again is safe. */
const JOB = { type: VENDOR, attempts: 3 }
const MAX_RETENTION_HOURS = 240_000

const purge = systemJob({
  vendorType: VENDOR,
  noun: 'purge of the audit log',
  path: '/api/v2.0/system/purgeaudit',
  shown: ['audit_retention_hour', 'include_event_types', 'dry_run'],

  readParameters({ audit_retention_hour: hours, include_event_types: types, dry_run: dryRun = false }) {
    const refuse = (name: string, wanted: string) =>
      problems.badRequest({ message: `parameters.${name} must be ${wanted}` })
    if (typeof hours !== 'number' || !Number.isInteger(hours) || hours > MAX_RETENTION_HOURS || hours < -1) {
      throw refuse('audit_retention_hour', `a number of hours up to ${MAX_RETENTION_HOURS}`)
    }
    if (typeof types !== 'string') throw refuse('include_event_types', 'a text of event types, separated by commas')
    if (typeof dryRun !== 'boolean') throw refuse('dry_run', 'true or false')
    return { audit_retention_hour: hours, include_event_types: types, dry_run: dryRun }
  },

  taskOf: (asked) =>
    taskOf(PurgeAuditLogSchema, JOB, {
      retentionHours: asked.audit_retention_hour,
      eventTypes: parseEventTypes(asked.include_event_types),
      dryRun: asked.dry_run,
    }),
})

export const purgeHandlers: Handlers = {
  getPurgeHistory: purge.history,
  getPurgeJob: ({ path }, deps) => purge.get(deps, path.purge_id),
  stopPurge: ({ path }, deps) => purge.stop(deps, path.purge_id),
  getPurgeJobLog: ({ path }, deps) => purge.log(deps, path.purge_id),
  getPurgeSchedule: (_call, deps) => purge.schedule(deps),
  createPurgeSchedule: purge.createSchedule,
  updatePurgeSchedule: purge.updateSchedule,
}
