import { statement, type Db, type Prisma, type Sql } from '@haven/db'
import type { Event } from './event.ts'

const insertEvent = statement(
  'events emit',
  'insert into events.outbox (type, payload, project_id) values ($1, $2::jsonb, $3)',
)

/** A transaction of either kind that is open. Prisma's client itself is accepted for changes that are one statement. */
export type Transaction = Sql | Pick<Db, 'outboxEvent'>

/**
 * Records `event` in the transaction of the change it tells of: both commit or neither does. Who reads it hears of it within
 * about a second after the commit, at least once.
 */
export async function emit(tx: Transaction, event: Event): Promise<void> {
  const payload = { header: event.header, ...event.payload }
  if ('rows' in tx) {
    await tx.rows(insertEvent, [event.type, JSON.stringify(payload), event.projectId ?? null])
  } else {
    await tx.outboxEvent.create({
      data: { type: event.type, payload: payload as Prisma.InputJsonObject, projectId: event.projectId ?? null },
    })
  }
}
