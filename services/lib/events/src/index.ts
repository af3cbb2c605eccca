export { auditLine, writeAudit, type AuditLine } from './audit.ts'
export { ensureAuditPartitions } from './audit-partitions.ts'
export {
  forgetDispatchedEvents,
  OutboxDispatcher,
  type DispatcherOptions,
  type EventHandler,
  type RecordedEvent,
} from './dispatcher.ts'
export { emit, type EventMessage, type EventSource, type Transaction } from './emit.ts'
