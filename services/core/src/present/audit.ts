import type { HarborSchemas } from '@haven/proto'
import type { AuditEntry } from '@haven/events'
import { time } from './time.ts'

export const presentAuditEntry = (entry: AuditEntry): HarborSchemas['AuditLogExt'] => ({
  id: entry.id,
  username: entry.actor,
  resource: entry.resource,
  resource_type: entry.resourceType,
  operation: entry.operation,
  operation_description: entry.description,
  operation_result: entry.success,
  op_time: time(entry.occurredAt),
})
