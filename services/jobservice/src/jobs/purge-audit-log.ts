import { countPurgeableAudit, parseEventTypes, purgeAudit } from '@haven/events'
import { PurgeAuditLogSchema } from '@haven/proto/jobs'
import { defineJob } from '../job-deps.ts'

const HOUR_MS = 3_600_000

/** Removes entries of the audit log that are older than the retention. Without a retention it removes none. */
export default defineJob(PurgeAuditLogSchema, {
  type: 'PURGE_AUDIT_LOG',
  attempts: 3,
  concurrency: 1,
  scheduled: (parameters) => ({
    retentionHours: Number(parameters.audit_retention_hour),
    eventTypes: parseEventTypes(String(parameters.include_event_types)),
    dryRun: parameters.dry_run === true,
  }),
  async run({ params, deps, log, signal, hold }) {
    const { retentionHours, eventTypes, dryRun } = params
    log.info(`purge of the audit log${dryRun ? ' (dry run)' : ''} begins`)
    if (retentionHours <= 0) {
      log.warn(`the retention is ${retentionHours} hours: nothing is purged`)
      return
    }
    const before = new Date(Date.now() - retentionHours * HOUR_MS)
    log.info(`entries before ${before.toISOString()} of the types ${eventTypes.join(', ')}`)
    if (dryRun) {
      log.info(`would purge ${await countPurgeableAudit(deps.db, { before, eventTypes })} entries`)
      return
    }
    const purged = await purgeAudit(deps.db, {
      before,
      eventTypes,
      signal,
      hold,
      onPurged: ({ month, entries }) =>
        log.info(month === null ? `${entries} entries purged` : `the month ${month} purged: ${entries} entries`),
    })
    log.info(`${purged} entries purged in all`)
  },
})
