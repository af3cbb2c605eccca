import { statement, type Sql } from '@haven/db'

const lag = statement<{ events: number; oldestSeconds: number }>(
  'events lag',
  `select count(*)::int as events, coalesce(extract(epoch from now() - min(occurred_at)), 0)::float8 as "oldestSeconds"
     from events.outbox where dispatched_at is null`,
)
const unsent = statement<{ lines: number }>('audit unsent', 'select count(*)::int as lines from events.audit_forwards')

/** Events that no handler has taken yet, how long the oldest waits, and lines of the audit log that their receiver has not. */
export async function outboxLag(
  sql: Sql,
): Promise<{ events: number; oldestSeconds: number; unsentAuditLines: number }> {
  const [waiting, forwards] = await Promise.all([sql.one(lag, []), sql.one(unsent, [])])
  return { ...waiting!, unsentAuditLines: forwards!.lines }
}
