import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { statement } from '@haven/db'
import {
  ArtifactPulledSchema,
  ArtifactPushedSchema,
  Door,
  MemberAddedSchema,
  MemberKind,
  ProjectCreatedSchema,
  TagMovedSchema,
  UserSignedInSchema,
  type ArtifactPulled,
} from '@haven/proto/events'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { ensureAuditPartitions, forgetDispatchedEvents } from './index.ts'
import { auditWriter } from './write-audit.ts'
import { OutboxDispatcher, type EventHandler, type RecordedEvent } from './dispatcher.ts'
import { emit, type EventSource } from './emit.ts'
import { EventTail } from './event-tail.ts'
import { emitPulls, type Pull } from './pulls.ts'

const ann: EventSource = { principal: { kind: 'user', id: 7, name: 'ann' }, requestId: 'r-1', address: '192.0.2.1' }
const project = { id: 3n, name: 'library' }
const repository = { id: 9n, name: 'library/app', project }
const digest = `sha256:${'a'.repeat(64)}`

const writeAudit = auditWriter(async () => ({ disabled: new Set(), forward: false, skipDatabase: false }))

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await database.db.prisma.$executeRaw`truncate events.outbox, events.audit_entries`
})

const outbox = () => database.db.prisma.outboxEvent.findMany({ orderBy: { id: 'asc' } })
const audit = () => database.db.prisma.auditEntry.findMany({ orderBy: { id: 'asc' } })
const dispatcher = (
  handlers: EventHandler[],
  onFailure = (error: Error): void => {
    throw error
  },
) => new OutboxDispatcher({ db: database.db, handlers, onFailure, batchSize: 10 })
const created = (name: string) => emit(database.db.writes, ProjectCreatedSchema, ann, { project: { id: 1n, name } })

describe('emit', () => {
  it('records the event with the change, through either kind of transaction, or not at all', async () => {
    await database.db.transaction((tx) => emit(tx, ProjectCreatedSchema, ann, { project }))
    await database.db.prisma.$transaction((tx) =>
      emit(tx, ArtifactPushedSchema, ann, { repository, artifact: { digest }, tag: '1' }),
    )
    await expect(
      database.db.transaction(async (tx) => {
        await emit(tx, ProjectCreatedSchema, ann, { project })
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await outbox()).toMatchObject([
      {
        type: 'haven.events.v1.ProjectCreated',
        projectId: 3,
        payload: {
          project: { id: '3', name: 'library' },
          header: {
            actor: { kind: 'ACTOR_KIND_USER', id: '7', name: 'ann' },
            requestId: 'r-1',
            sourceAddress: '192.0.2.1',
          },
        },
      },
      { type: 'haven.events.v1.ArtifactPushed', projectId: 3, dispatchedAt: null },
    ])
  })
})

describe('emitPulls', () => {
  const people: EventSource[] = [
    ann,
    { principal: { kind: 'anonymous' }, requestId: 'r-2', address: '192.0.2.2' },
    { principal: { kind: 'robot', id: 7, name: 'ann' } },
  ]
  const pulls: Pull[] = Array.from({ length: 120 }, (_, n) => ({
    source: people[n % 3]!,
    repository: n % 2 === 0 ? repository : { id: 10n, name: 'other/app', project: { id: 4n, name: 'other' } },
    artifact: { id: BigInt(n), digest, mediaType: 'application/vnd.oci.image.manifest.v1+json' },
    tag: n === 0 ? '' : `t${n}`,
    pulls: n + 1,
  }))
  const seen = (events: readonly RecordedEvent[]) =>
    events.map(({ type, projectId, message }) => {
      const { header, repository: of, artifact, tag, pulls: times } = message as ArtifactPulled
      const by = `${header?.actor?.kind} ${header?.actor?.id} ${header?.actor?.name} ${header?.sourceAddress} ${header?.requestId}`
      return [type, projectId, by, of?.name, of?.project?.name, artifact?.id, artifact?.digest, tag, times].join(' ')
    })
  const wanted = pulls.map((pull, n) =>
    [
      ArtifactPulledSchema.typeName,
      pull.repository.project.id,
      ['2 7 ann 192.0.2.1 r-1', '1 0 anonymous 192.0.2.2 r-2', '3 7 ann  '][n % 3],
      pull.repository.name,
      pull.repository.project.name,
      n,
      digest,
      pull.tag,
      pull.pulls,
    ].join(' '),
  )

  it('tells of each in its order, to those who handle events and to those who follow them, in few rows', async () => {
    const tail = new EventTail(database.db, [ArtifactPulledSchema.typeName])
    const other = new EventTail(database.db, [ArtifactPushedSchema.typeName])
    await tail.open()
    await other.open()
    await emitPulls(database.db.writes, [])
    await emitPulls(database.db.writes, pulls)
    expect((await outbox()).length).toBe(3)
    expect(seen(await tail.next())).toEqual(wanted)
    expect(await other.next()).toEqual([])
    const events: RecordedEvent[] = []
    expect(await dispatcher([async (_, some) => void events.push(...some)]).drain()).toBe(3)
    expect(seen(events)).toEqual(wanted)
    expect(new Set(events.map(({ message }) => message.header?.id)).size).toBe(120)
  })

  it('gives each a line of the audit log', async () => {
    await emitPulls(database.db.writes, pulls)
    await dispatcher([writeAudit]).drain()
    const lines = await audit()
    expect(lines.length).toBe(120)
    expect(lines.slice(0, 2)).toMatchObject([
      {
        projectId: 3,
        operation: 'pull',
        resourceType: 'artifact',
        resource: `library/app@${digest}`,
        actor: 'ann',
        sourceAddress: '192.0.2.1',
        requestId: 'r-1',
      },
      {
        projectId: 4,
        resource: 'other/app:t1',
        description: 'pull artifact other/app:t1 (2 times)',
        actor: 'anonymous',
      },
    ])
  })
})

describe('OutboxDispatcher', () => {
  it('writes the audit log once, however many dispatchers run and however often', async () => {
    await Promise.all(Array.from({ length: 50 }, (_, n) => created(`p${n}`)))
    const dispatchers = [1, 2, 3].map(() => dispatcher([writeAudit]))
    const taken = await Promise.all(dispatchers.map((each) => each.drain()))
    // One that skipped what another had locked may have seen nothing; the rest is there for the next round.
    const rest = await dispatcher([writeAudit]).drain()
    expect(taken.reduce((sum, n) => sum + n, rest)).toBe(50)
    expect(new Set((await audit()).map((entry) => entry.resource)).size).toBe(50)
    expect(await audit()).toHaveLength(50)
  })

  it('takes again what a dispatcher that died had in hand', async () => {
    await created('p')
    const dying = dispatcher([writeAudit, () => Promise.reject(new Error('killed'))], () => undefined)
    await dying.drain()
    expect(await audit()).toEqual([])
    expect(await dispatcher([writeAudit]).drain()).toBe(1)
    expect(await audit()).toHaveLength(1)
  })

  it('sets an event aside that a handler cannot take, and lets the others by', async () => {
    for (const name of ['a', 'poison', 'b', 'c']) await created(name)
    const failures: string[] = []
    const seen: string[] = []
    const handler: EventHandler = async (_tx, events) => {
      const names = events.map(({ message }) => (message as unknown as { project: { name: string } }).project.name)
      if (names.includes('poison')) throw new Error('cannot take it')
      seen.push(...names)
    }
    await dispatcher([handler], (error) => failures.push(error.message)).drain()
    expect(seen).toEqual(['a', 'b', 'c'])
    expect(failures).toEqual([expect.stringMatching(/^dispatching event \d+$/)])
    expect((await outbox()).filter((event) => event.dispatchedAt === null)).toHaveLength(1)
  })

  it('passes over an event of a newer version', async () => {
    await database.db.prisma.outboxEvent.create({ data: { type: 'haven.events.v9.Unheard', payload: {} } })
    await created('p')
    expect(await dispatcher([writeAudit]).drain()).toBe(2)
    expect(await audit()).toHaveLength(1)
  })

  it('goes on by itself until it is disposed of', async () => {
    let heard: (count: number) => void
    const hearing = new Promise<number>((resolve) => (heard = resolve))
    await using running = new OutboxDispatcher({
      db: database.db,
      handlers: [async (_tx, events) => heard(events.length)],
      onFailure: (error) => {
        throw error
      },
      intervalMs: 5,
    })
    running.start()
    await created('later')
    expect(await hearing).toBe(1)
  })

  it('forgets what was dispatched long ago, and only that', async () => {
    await created('old')
    await created('fresh')
    await created('waiting')
    await database.db.prisma
      .$executeRaw`update events.outbox set dispatched_at = now() - interval '49 hours' where payload->'project'->>'name' = 'old'`
    await database.db.prisma
      .$executeRaw`update events.outbox set dispatched_at = now() where payload->'project'->>'name' = 'fresh'`
    expect(await forgetDispatchedEvents(database.db, 48)).toBe(1)
    expect(await outbox()).toHaveLength(2)
  })
})

describe('the audit log', () => {
  it('tells who did what to which resource', async () => {
    const tx = database.db.writes
    await emit(tx, ArtifactPushedSchema, ann, { repository, artifact: { digest }, tag: '1.0' })
    await emit(tx, ArtifactPushedSchema, ann, { repository, artifact: { digest } })
    await emit(tx, TagMovedSchema, ann, { repository, tag: '1.0', to: digest, door: Door.REGISTRY })
    await emit(tx, TagMovedSchema, ann, { repository, tag: '2.0', to: digest, door: Door.API })
    await emit(tx, MemberAddedSchema, ann, {
      membership: { project, kind: MemberKind.USER, memberName: 'bob', roleId: 2 },
    })
    await emit(
      tx,
      UserSignedInSchema,
      { principal: { kind: 'anonymous' } },
      { user: { name: 'eve' }, succeeded: false },
    )
    await dispatcher([writeAudit]).drain()
    const lines = (await audit()).map((e) => [
      e.actor,
      `${e.operation}_${e.resourceType}`,
      e.resource,
      e.description,
      e.success,
    ])
    expect(lines).toEqual([
      ['ann', 'create_artifact', 'library/app:1.0', 'push artifact library/app:1.0', true],
      ['ann', 'create_artifact', `library/app@${digest}`, `push artifact library/app@${digest}`, true],
      ['ann', 'create_tag', 'library/app:2.0', 'create tag library/app:2.0', true],
      ['ann', 'create_member', 'user:bob', 'create user member bob in project library', true],
      ['anonymous', 'login_user', 'eve', 'login', false],
    ])
    expect((await audit())[0]).toMatchObject({ projectId: 3, sourceAddress: '192.0.2.1', requestId: 'r-1' })
  })

  it('is kept in partitions by month, made ahead, to which the default partition yields its rows', async () => {
    await created('before')
    await dispatcher([writeAudit]).drain()
    const [made, again] = await Promise.all([ensureAuditPartitions(database.db), ensureAuditPartitions(database.db)])
    expect([...made, ...again]).toHaveLength(3)
    await created('after')
    await dispatcher([writeAudit]).drain()
    const places = await database.db.writes.rows<{ place: string }>(
      statement('places', `select tableoid::regclass::text as place from events.audit_entries`),
      [],
    )
    expect(new Set(places.map(({ place }) => place))).toEqual(new Set([`events.${[...made, ...again].sort()[0]}`]))
    expect(places).toHaveLength(2)
  })
})
