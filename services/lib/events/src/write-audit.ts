import { statement } from '@haven/db'
import { auditLine, type AuditLine } from './audit.ts'
import type { EventHandler, RecordedEvent } from './dispatcher.ts'
import { parseEventTypes } from './event-types.ts'

/** Where lines of the audit log go, and which do not. */
export type AuditPolicy = {
  /** `pull_artifact` and the like: nothing is written of these. */
  disabled: ReadonlySet<string>
  /** Lines also go to the syslog receiver. */
  forward: boolean
  /** Lines go to the receiver only. */
  skipDatabase: boolean
}

/** From the settings of these names. Without a receiver the database is never skipped: a line must go somewhere. */
export function auditPolicy(settings: {
  readonly disabled_audit_log_event_types: string
  readonly pull_audit_log_disable: boolean
  readonly audit_log_forward_endpoint: string
  readonly skip_audit_log_database: boolean
}): AuditPolicy {
  const disabled = new Set(parseEventTypes(settings.disabled_audit_log_event_types))
  if (settings.pull_audit_log_disable) disabled.add('pull_artifact')
  const forward = settings.audit_log_forward_endpoint !== ''
  return { disabled, forward, skipDatabase: forward && settings.skip_audit_log_database }
}

const insertEntries = statement(
  'audit insert',
  `insert into events.audit_entries (occurred_at, event_id, project_id, operation, resource_type, resource, actor, description,
                                     success, source_address, request_id)
   select * from unnest($1::timestamptz[], $2::bigint[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                        $9::boolean[], $10::text[], $11::text[])`,
)
const insertForwards = statement(
  'audit forward',
  'insert into events.audit_forwards (entry) select * from unnest($1::jsonb[])',
)

/** A line on its way to the receiver. */
export type ForwardedEntry = {
  at: string
  operator: string
  operation: string
  resourceType: string
  resource: string
  description: string
  success: boolean
  address: string
  requestId: string
}

type Entry = { event: RecordedEvent; line: AuditLine }

/**
 * Writes one line an event, in the transaction that marks the events dispatched: never twice, never lost. What is forwarded is written
 * beside it, for `AuditForwarder`.
 */
export const auditWriter =
  (policy: () => Promise<AuditPolicy>): EventHandler =>
  async (tx, events) => {
    const lines = events.flatMap((event) => {
      const line = auditLine(event)
      return line ? [{ event, line }] : []
    })
    if (lines.length === 0) return
    const { disabled, forward, skipDatabase } = await policy()
    const entries = lines.filter(({ line }) => !disabled.has(`${line.operation}_${line.resourceType}`))
    if (entries.length === 0) return
    if (!skipDatabase) await tx.rows(insertEntries, columnsOf(entries))
    if (forward) await tx.rows(insertForwards, [entries.map((entry) => JSON.stringify(forwarded(entry)))])
  }

function columnsOf(entries: readonly Entry[]): unknown[][] {
  const column = (value: (entry: Entry) => unknown) => entries.map(value)
  return [
    column(({ event }) => event.occurredAt),
    column(({ event }) => event.id),
    column(({ event }) => event.projectId),
    column(({ line }) => line.operation),
    column(({ line }) => line.resourceType),
    column(({ line }) => line.resource),
    column(({ event }) => event.message.header?.actor?.name ?? ''),
    column(({ line }) => line.description),
    column(({ line }) => line.success ?? true),
    column(({ event }) => event.message.header?.sourceAddress || null),
    column(({ event }) => event.message.header?.requestId || null),
  ]
}

const forwarded = ({ event, line }: Entry): ForwardedEntry => ({
  at: event.occurredAt.toISOString(),
  operator: event.message.header?.actor?.name ?? '',
  operation: line.operation,
  resourceType: line.resourceType,
  resource: line.resource,
  description: line.description,
  success: line.success ?? true,
  address: event.message.header?.sourceAddress ?? '',
  requestId: event.message.header?.requestId ?? '',
})
