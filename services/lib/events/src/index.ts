export type { AuditLine } from './audit.ts'
export { ensureAuditPartitions } from './audit-partitions.ts'
export { auditEventTypes, parseEventTypes } from './event-types.ts'
export { AuditForwarder, checkForwardEndpoint, forgetUnsentAudit } from './forward-audit.ts'
export { foldAuditNames } from './audit-names.ts'
export { AuditDays, type AuditScope } from './audit-days.ts'
export { listAudit, type AuditDeps, type AuditEntry, type AuditQuery } from './list-audit.ts'
export { maskAuditUser } from './mask-audit.ts'
export { countPurgeableAudit, purgeAudit } from './purge-audit.ts'
export { auditPolicy, auditWriter, type AuditPolicy } from './write-audit.ts'
export {
  forgetDispatchedEvents,
  OutboxDispatcher,
  type DispatcherOptions,
  type EventHandler,
  type RecordedEvent,
} from './dispatcher.ts'
export { outboxLag } from './outbox-lag.ts'
export { EventTail } from './event-tail.ts'
export { emit, emitAll, type EventMessage, type EventSource, type Transaction } from './emit.ts'
export { emitPulls, type Pull } from './pulls.ts'
