import { maskAuditUser } from '@haven/events'
import { MaskAuditLogSchema } from '@haven/proto/jobs'
import { defineJob } from '../job-deps.ts'

/** Takes the name of a deleted user out of the audit log. */
export default defineJob(MaskAuditLogSchema, {
  type: 'AUDIT_LOGS_GDPR_COMPLIANT',
  attempts: 3,
  concurrency: 1,
  async run({ params: { username, masked }, deps, log, signal, hold }) {
    // Not the name itself: it is what shall be forgotten.
    const entries = await maskAuditUser(deps.db, { username, masked, signal, hold })
    log.info(`${entries} entries of the audit log now name ${masked}`)
  },
})
