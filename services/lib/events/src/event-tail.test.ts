import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { ProjectCreatedSchema, UserCreatedSchema, type ProjectCreated } from '@haven/proto/events'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { emit, type EventSource } from './emit.ts'
import { EventTail } from './event-tail.ts'
import type { RecordedEvent } from './dispatcher.ts'

const ann: EventSource = { principal: { kind: 'user', id: 7, name: 'ann' } }

let database: TestDatabase
let nowMs = 0
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  await database.db.prisma.$executeRaw`truncate events.outbox restart identity`
  nowMs = 0
})

const holding: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const undo of holding.splice(0)) await undo()
})

const created = (name: string, tx = database.db.writes) =>
  emit(tx, ProjectCreatedSchema, ann, { project: { id: 1n, name } })
const names = (events: readonly RecordedEvent[] | null) =>
  events?.map(({ message }) => (message as ProjectCreated).project?.name)
const tailOf = async () => {
  const tail = new EventTail(database.db, [ProjectCreatedSchema.typeName], () => nowMs)
  await tail.open()
  return tail
}

/** A transaction that has taken its number and waits for a word to commit. */
async function held(name: string) {
  const took = Promise.withResolvers<void>()
  const word = Promise.withResolvers<'commit' | 'undo'>()
  const over = database.db
    .transaction(async (tx) => {
      // Without `last`, so that it is written now and not just before the commit.
      await created(name, { rows: tx.rows.bind(tx), one: tx.one.bind(tx) })
      took.resolve()
      if ((await word.promise) === 'undo') throw new Error('undone')
    })
    .catch((error: Error) => expect(error.message).toBe('undone'))
  await took.promise
  const finish = async (end: 'commit' | 'undo') => {
    word.resolve(end)
    await over
  }
  holding.push(() => finish('undo'))
  return finish
}

describe('EventTail', () => {
  it('gives what came since the last time, once, and only what is wanted', async () => {
    await created('before')
    const tail = await tailOf()
    expect(await tail.next()).toEqual([])
    await created('a')
    await emit(database.db.writes, UserCreatedSchema, ann, { user: { id: 2n, name: 'bob' } })
    await created('b')
    expect(names(await tail.next())).toEqual(['a', 'b'])
    expect(await tail.next()).toEqual([])
    expect(tail.position).toBe(tail.last)
  })

  it('finds what committed after a higher number, and stays before it until then', async () => {
    const tail = await tailOf()
    const end = await held('late')
    await created('early')
    expect(names(await tail.next())).toEqual(['early'])
    expect(tail.position).toBe(tail.last - 2n)
    await end('commit')
    expect(names(await tail.next())).toEqual(['late'])
    expect(tail.position).toBe(tail.last)
  })

  it('finds what was on its way when it began', async () => {
    const end = await held('on its way')
    await created('there')
    const tail = await tailOf()
    await end('commit')
    expect(names(await tail.next())).toEqual(['on its way'])
  })

  it('waits a minute for a number that was undone, and no longer', async () => {
    const tail = await tailOf()
    const end = await held('never')
    await created('a')
    await tail.next()
    await end('undo')
    await tail.next()
    expect(tail.position).toBeLessThan(tail.last)
    nowMs = 60_001
    await tail.next()
    expect(tail.position).toBe(tail.last)
  })

  it('tells what lies between two numbers, unless it is forgotten or too much', async () => {
    const tail = await tailOf()
    const from = tail.last
    for (const name of ['a', 'b', 'c']) await created(name)
    await tail.next()
    expect(names(await tail.between(tail.last - 3n, tail.last, 3))).toEqual(['a', 'b', 'c'])
    expect(names(await tail.between(tail.last - 2n, tail.last - 1n, 3))).toEqual(['b'])
    expect(await tail.between(tail.last - 3n, tail.last, 2)).toBeNull()
    expect(await tail.between(from - 5n, tail.last, 9)).toBeNull()
    await database.db.prisma.$executeRaw`truncate events.outbox`
    expect(await tail.between(tail.last - 1n, tail.last, 9)).toBeNull()
  })
})
