import { createRegistry, fromJson, isMessage, type JsonValue } from '@bufbuild/protobuf'
import { statement, type Database, type Sql } from '@haven/db'
import * as contract from '@haven/proto/events'
import { tracing } from '@haven/telemetry'
import type { EventMessage } from './emit.ts'
import { scatter } from './pulls.ts'

/** An event as it was read from the outbox. `id` is its place in the order of emission; pulls that were gathered share one. */
export type RecordedEvent = {
  id: bigint
  /** Full name of the message's type. */
  type: string
  projectId: number | null
  occurredAt: Date
  message: EventMessage
}

/**
 * What happens because of events. Runs in the transaction that marks them dispatched, so its own rows are written exactly once;
 * it must not reach outside the database (queue a row, let a job do the rest).
 */
export type EventHandler = (tx: Sql, events: readonly RecordedEvent[]) => Promise<void>

export type DispatcherOptions = {
  db: Database
  handlers: readonly EventHandler[]
  /** Told of an event that a handler could not take. It is tried again later, the others go on. */
  onFailure: (failure: Error) => void
  /** Events in one transaction. Default 200. */
  batchSize?: number
  /** How often the outbox is looked at when it was empty. Default 1000. */
  intervalMs?: number
}

/** `payload` null: not wanted. */
export type EventRow = {
  id: string
  type: string
  payload: JsonValue | null
  project_id: number | null
  occurred_at: Date
}

const takeEvents = statement<EventRow>(
  'events take',
  `select id, type, payload, project_id, occurred_at from events.outbox
    where dispatched_at is null and id <> all($2::bigint[])
    order by id limit $1 for update skip locked`,
)
const markDispatched = statement(
  'events mark',
  'update events.outbox set dispatched_at = now() where id = any($1::bigint[])',
)
const forgetDispatched = statement<{ id: string }>(
  'events forget',
  `delete from events.outbox where id in (
     select id from events.outbox where dispatched_at < now() - $1 * interval '1 hour' order by id limit $2) returning id`,
)

const types = createRegistry(
  ...Object.values(contract).flatMap((value) =>
    typeof value === 'object' && 'kind' in value && value.kind === 'message' ? [value] : [],
  ),
)

const RETRY_MS = 30_000

/**
 * Moves events from the outbox to the handlers. Any number may run: each takes what no other holds. What a killed one had in
 * hand was never committed and is taken again.
 */
export class OutboxDispatcher implements AsyncDisposable {
  readonly #options: Required<DispatcherOptions>
  /** Events that a handler refused, and when they are tried again. */
  readonly #refused = new Map<bigint, number>()
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #closed = false

  constructor(options: DispatcherOptions) {
    this.#options = { batchSize: 200, intervalMs: 1000, ...options }
  }

  start(): void {
    this.#running = this.#round()
  }

  /** Dispatches what is there now. Returns how many events that were. */
  async drain(): Promise<number> {
    let total = 0
    while (!this.#closed) {
      const taken = await this.#batch(this.#options.batchSize)
      total += taken
      if (taken < this.#options.batchSize) break
    }
    return total
  }

  async #round(): Promise<void> {
    try {
      await this.drain()
    } catch (cause) {
      this.#options.onFailure(new Error('dispatching events', { cause }))
    }
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      this.#running = this.#round()
    }, this.#options.intervalMs)
  }

  async #batch(size: number): Promise<number> {
    try {
      return await this.#dispatch(size)
    } catch (cause) {
      if (size > 1) return this.#oneByOne(size)
      throw cause
    }
  }

  /** After a failure: finds the event that a handler cannot take, sets it aside and lets the others by. */
  async #oneByOne(size: number): Promise<number> {
    let taken = 0
    for (; taken < size && !this.#closed; taken++) {
      if ((await this.#dispatch(1, true)) === 0) break
    }
    return taken
  }

  async #dispatch(size: number, setAside = false): Promise<number> {
    const now = performance.now()
    for (const [id, retryAt] of this.#refused) if (retryAt <= now) this.#refused.delete(id)
    let ids: bigint[] = []
    try {
      await this.#options.db.transaction(async (tx) => {
        const rows = await tx.rows(takeEvents, [size, [...this.#refused.keys()]])
        ids = rows.map((row) => BigInt(row.id))
        if (rows.length === 0) return
        const events = rows.flatMap(recordedEvents)
        await traced(events, async () => {
          for (const handler of this.#options.handlers) await handler(tx, events)
        })
        await tx.rows(markDispatched, [ids])
      })
    } catch (cause) {
      const [id] = ids
      if (!setAside || id === undefined) throw cause
      this.#refused.set(id, performance.now() + RETRY_MS)
      this.#options.onFailure(new Error(`dispatching event ${id}`, { cause }))
    }
    return ids.length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }
}

/** Handlers take many events at once: each event has a span of its own in the trace that it comes from, for as long as they take. */
async function traced(events: readonly RecordedEvent[], handle: () => Promise<void>): Promise<void> {
  const spans = events.flatMap(({ type, message: { header } }) => {
    if (!header?.traceparent) return []
    const name = `event ${type.slice(type.lastIndexOf('.') + 1)}`
    const attributes = { 'haven.request': header.requestId }
    return tracing()?.open({ name, kind: 'consumer', from: header, attributes }) ?? []
  })
  try {
    await handle()
  } finally {
    for (const span of spans) span.end()
  }
}

/**
 * The events of a row: one, or the pulls that were gathered in it. An event of a type that this version does not know (a newer one wrote it)
 * is nothing to anybody here.
 */
export function recordedEvents(row: EventRow): RecordedEvent[] {
  const schema = types.getMessage(row.type)
  if (!schema || row.payload === null) return []
  const message = fromJson(schema, row.payload, { ignoreUnknownFields: true }) as EventMessage
  const [id, occurredAt] = [BigInt(row.id), row.occurred_at]
  if (!isMessage(message, contract.PullsGatheredSchema)) {
    return [{ id, type: row.type, projectId: row.project_id, occurredAt, message }]
  }
  const type = contract.ArtifactPulledSchema.typeName
  return scatter(message).map((pull) => {
    const project = pull.repository?.project
    return { id, type, projectId: project ? Number(project.id) : null, occurredAt, message: pull as EventMessage }
  })
}

/** Deletes events that were dispatched more than `hours` ago, `limit` at most. Returns how many. */
export async function forgetDispatchedEvents(db: Database, hours: number, limit = 5000): Promise<number> {
  return (await db.writes.rows(forgetDispatched, [hours, limit])).length
}
