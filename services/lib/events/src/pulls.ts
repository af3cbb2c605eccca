import { randomUUIDv7 } from 'node:crypto'
import { create, toJson } from '@bufbuild/protobuf'
import { statement, type Sql } from '@haven/db'
import {
  ArtifactPulledSchema,
  EventHeaderSchema,
  PullsGatheredSchema,
  type ArtifactPulled,
  type PullsGathered,
} from '@haven/proto/events'
import { actorOf, headerOf, type EventSource } from './emit.ts'

/** Pulls of the same by the same. */
export type Pull = {
  source: EventSource
  repository: { id: bigint; name: string; project: { id: bigint; name: string } }
  artifact: { id: bigint; digest: string; mediaType: string }
  /** That it was asked for by; empty for a digest. */
  tag: string
  pulls: number
}

/** In one row of the outbox. Its readers take hundreds of rows at once. */
const MAX_TOGETHER = 50

// One text: of an array each quotation mark would be escaped, which are a third of what is written.
const insertPulls = statement(
  'events emit pulls',
  'insert into events.outbox (type, payload) select $1, row from jsonb_array_elements($2::jsonb) row',
)

/** Who tells of what others did. */
const ours: EventSource = { principal: { kind: 'service', name: 'registry' } }

/**
 * Records pulls, many in a row of the outbox: one for each, with its indexes and its mark, costs as much as all else that is written of a pull.
 * Readers of events get an ArtifactPulled for each, in this order.
 */
export async function emitPulls(sql: Sql, pulls: readonly Pull[]): Promise<void> {
  if (pulls.length === 0) return
  const rows = Array.from({ length: Math.ceil(pulls.length / MAX_TOGETHER) }, (_, row) => {
    const facts = gather(pulls.slice(row * MAX_TOGETHER, (row + 1) * MAX_TOGETHER))
    return toJson(PullsGatheredSchema, create(PullsGatheredSchema, { ...facts, header: headerOf(ours) }))
  })
  await sql.rows(insertPulls, [PullsGatheredSchema.typeName, JSON.stringify(rows)])
}

function gather(pulls: readonly Pull[]) {
  const pullers = new Places(({ source: { principal, address = '' } }: Pull) => ({
    actor: actorOf(principal),
    sourceAddress: address,
  }))
  const repositories = new Places(({ repository }: Pull) => repository)
  return {
    pulls: pulls.map((pull) => ({
      id: randomUUIDv7(),
      requestId: pull.source.requestId ?? '',
      puller: pullers.of(pull, keyOf(pull.source)),
      repository: repositories.of(pull, `${pull.repository.id} ${pull.repository.name}`),
      artifact: pull.artifact,
      tag: pull.tag,
      pulls: pull.pulls,
    })),
    pullers: pullers.all,
    repositories: repositories.all,
  }
}

const keyOf = ({ principal, address }: EventSource) =>
  `${principal.kind} ${'id' in principal ? principal.id : ''} ${'name' in principal ? principal.name : ''} ${address}`

/** Tells what is said more than once by its place in a list. */
class Places<From, Told> {
  readonly all: Told[] = []
  readonly #places = new Map<string, number>()
  readonly #tell: (from: From) => Told

  constructor(tell: (from: From) => Told) {
    this.#tell = tell
  }

  of(from: From, key: string): number {
    const known = this.#places.get(key)
    if (known !== undefined) return known
    const place = this.all.push(this.#tell(from)) - 1
    this.#places.set(key, place)
    return place
  }
}

/** What `emitPulls` wrote into a row, one by one. */
export const scatter = ({ header, pullers, repositories, pulls }: PullsGathered): ArtifactPulled[] =>
  pulls.map(({ id, requestId, puller, repository, artifact, tag, pulls: times }) => {
    const by = pullers[puller]
    return create(ArtifactPulledSchema, {
      header: create(EventHeaderSchema, {
        id,
        occurredAt: header?.occurredAt,
        actor: by?.actor,
        requestId,
        sourceAddress: by?.sourceAddress ?? '',
      }),
      repository: repositories[repository],
      artifact,
      tag,
      pulls: times,
    })
  })
