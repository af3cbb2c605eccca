import { randomUUIDv7 } from 'node:crypto'
import { create, toJson, type DescMessage, type Message, type MessageInitShape } from '@bufbuild/protobuf'
import { timestampNow } from '@bufbuild/protobuf/wkt'
import { ofAll, statementOfRows, type Db, type Prisma, type Sql, type Tx } from '@haven/db'
import { ActorKind, EventHeaderSchema, type EventHeader } from '@haven/proto/events'
import { tracing } from '@haven/telemetry'

/** A transaction of either kind. Prisma's client itself will do where the change is a statement that cannot fail alone. */
export type Transaction = Sql | Tx | Pick<Db, 'outboxEvent'>

/** A message of @haven/proto/events: everything with a header. */
export type EventMessage = Message & { header?: EventHeader }
type EventSchema = DescMessage

/** Who caused an event and by which request. `principal` has the shape of @haven/identity's Principal. */
export type EventSource = {
  principal:
    | { kind: 'anonymous' }
    | { kind: 'user' | 'robot'; id: number; name: string }
    | { kind: 'service'; name: string }
  requestId?: string | undefined
  /** Address of the client, without port. */
  address?: string | undefined
}

const insertEvents = statementOfRows(
  'events emit',
  { type: 'text', payload: 'jsonb', project_id: 'int4' },
  'n',
  'insert into events.outbox (type, payload, project_id) select type, payload, project_id from given order by n',
)

/**
 * Records an event in the transaction of the change it tells of: both commit or neither does; it is written just before the commit. Readers hear of it about a second
 * after the commit. `facts` are the message's fields without its header: `emit(tx, TagDeletedSchema, source, { tag, … })`.
 */
export async function emit<Schema extends EventSchema>(
  tx: Transaction,
  schema: Schema,
  source: EventSource,
  facts: MessageInitShape<Schema>,
): Promise<void> {
  const message = create(schema, { ...facts, header: headerOf(source) })
  const payload = toJson(schema, message)
  const projectId = projectOf(message)
  if ('rows' in tx) await write(tx, [[schema.typeName, JSON.stringify(payload), projectId]])
  else {
    const data = { type: schema.typeName, payload: payload as Prisma.InputJsonObject, projectId }
    await tx.outboxEvent.create({ data })
  }
}

/** Records many events of one kind in one statement, as `emit` does one. */
export async function emitAll<Schema extends EventSchema>(
  tx: Sql,
  schema: Schema,
  events: readonly { source: EventSource; facts: MessageInitShape<Schema> }[],
): Promise<void> {
  if (events.length === 0) return
  const messages = events.map(({ source, facts }) => create(schema, { ...facts, header: headerOf(source) }))
  await write(
    tx,
    messages.map((message) => [schema.typeName, JSON.stringify(toJson(schema, message)), projectOf(message)]),
  )
}

/** In a transaction of the pool with its commit: all of them in one statement, in their order. */
async function write(tx: Sql | Tx, events: readonly (readonly unknown[])[]): Promise<void> {
  if ('last' in tx) for (const event of events) tx.last(insertEvents, event)
  else await tx.rows(...ofAll(insertEvents, events))
}

export function headerOf({ principal, requestId, address }: EventSource): EventHeader {
  return create(EventHeaderSchema, {
    id: randomUUIDv7(),
    occurredAt: timestampNow(),
    actor: actorOf(principal),
    requestId: requestId ?? '',
    sourceAddress: address ?? '',
    traceparent: tracing()?.carrier().traceparent ?? '',
  })
}

export const actorOf = (principal: EventSource['principal']) => ({
  kind: actorKinds[principal.kind],
  id: BigInt('id' in principal ? principal.id : 0),
  name: principal.kind === 'anonymous' ? 'anonymous' : principal.name,
})

const actorKinds = {
  anonymous: ActorKind.ANONYMOUS,
  user: ActorKind.USER,
  robot: ActorKind.ROBOT,
  service: ActorKind.SYSTEM,
}

type AboutProject = { id: bigint }

/** The project that an event is about, wherever its message keeps it. */
function projectOf(message: unknown): number | null {
  const { project, repository, membership } = message as {
    project?: AboutProject
    repository?: { project?: AboutProject }
    membership?: { project?: AboutProject }
  }
  const id = (project ?? repository?.project ?? membership?.project)?.id
  return id === undefined ? null : Number(id)
}
