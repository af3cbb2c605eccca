import { AsyncLocalStorage } from 'node:async_hooks'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { openDatabase } from './database.ts'
import type { Sql } from './sql.ts'
import type { Tx } from './transaction.ts'
import { statement, statementOfRows, UNSYNCED, type Statement } from './statement.ts'
import type { SharedTransactions } from './shared-transactions.ts'

let database: TestDatabase
let shared: SharedTransactions

beforeAll(async () => {
  database = await testDatabase()
  shared = database.db.shared
  await database.db.prisma
    .$executeRaw`create table made (id int primary key, by bigint default pg_current_xact_id()::text::bigint)`
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})
beforeEach(async () => {
  await database.db.prisma.$executeRaw`truncate made`
})

const make = statement<{ by: string }>('make', 'insert into made (id) values ($1) returning by')
const makeAll = statementOfRows('make all', { id: 'int4' }, 'n', 'insert into made (id) select id from given')
const madeRows = statement<{ id: number; by: string }>('made', 'select id, by from made order by id')
const made = () => database.db.writes.rows(madeRows, [])
const ids = async () => (await made()).map(({ id }) => id)
/** How many transactions made the rows of `some`. */
const transactionsOf = async (...some: number[]) =>
  new Set((await made()).filter(({ id }) => some.includes(id)).map(({ by }) => by)).size

/** A transaction that is under way until `end`, so that what is asked meanwhile waits for the next; `ended` when it did. */
async function underWay(id = 0) {
  const begun = Promise.withResolvers<void>()
  const go = Promise.withResolvers<void>()
  const ended = shared.transaction([], async (tx) => {
    await tx.rows(make, [id])
    begun.resolve()
    await go.promise
  })
  await begun.promise
  return { end: () => go.resolve(), ended }
}

const making = (id: number, keys: string[] = []) =>
  shared.transaction(keys, async (tx) => {
    await tx.rows(make, [id])
    return id
  })

describe('SharedTransactions', () => {
  it('makes durable in one transaction what arrives while another is under way', async () => {
    const first = await underWay()
    const works = [making(1), making(2, ['two']), shared.one(make, [3]), making(4)]
    first.end()
    const [one, two, three, four] = await Promise.all(works)
    await first.ended
    expect([one, two, four]).toEqual([1, 2, 4])
    expect(three).toEqual({ by: (await made()).find(({ id }) => id === 3)!.by })
    expect(await ids()).toEqual([0, 1, 2, 3, 4])
    expect(await transactionsOf(1, 2, 3, 4)).toBe(1)
    expect(await transactionsOf(0, 1)).toBe(2)
  })

  it('keeps nobody behind one that waits', async () => {
    const first = await underWay()
    expect(await making(1)).toBe(1)
    expect(await Promise.all([making(2), making(3)])).toEqual([2, 3])
    expect(await ids()).toEqual([1, 2, 3])
    first.end()
    await first.ended
    expect(await ids()).toEqual([0, 1, 2, 3])
  })

  it('does each alone, once, when one of them fails', async () => {
    const first = await underWay()
    const works = [
      making(1),
      shared.transaction([], async (tx) => {
        await tx.rows(make, [2])
        throw new Error('changed my mind')
      }),
      making(3),
      making(0),
    ]
    first.end()
    const [one, two, three, again] = await Promise.allSettled(works)
    expect([one, three]).toMatchObject([{ value: 1 }, { value: 3 }])
    expect(two).toMatchObject({ reason: { message: 'changed my mind' } })
    expect(again).toMatchObject({ reason: { code: '23505' } })
    expect(await ids()).toEqual([0, 1, 3])
    expect(await transactionsOf(1, 3)).toBe(2)
  })

  it('never puts two with the same key into one, and does not let the second wait', async () => {
    const first = await underWay()
    const works = [making(1, ['a', 'b']), making(2, ['b', 'c']), making(3, ['c'])]
    expect(await works[1]).toBe(2)
    first.end()
    await Promise.all(works)
    expect(await transactionsOf(1, 2)).toBe(2)
    expect(await transactionsOf(1, 3)).toBe(1)
    // The keys are free again.
    const second = await underWay(10)
    const more = [making(11, ['a']), making(12, ['b']), making(13, ['c'])]
    second.end()
    await Promise.all(more)
    expect(await transactionsOf(11, 12, 13)).toBe(1)
  })

  it('does again, alone, what must keep others out', async () => {
    const first = await underWay()
    const lonely = async (tx: Tx) => {
      await tx.rows(make, [2])
      tx.alone()
      return 2
    }
    const works = [making(1), shared.transaction([], lonely), making(3)]
    first.end()
    expect(await Promise.all(works)).toEqual([1, 2, 3])
    expect(await ids()).toEqual([0, 1, 2, 3])
    expect(await transactionsOf(1, 2, 3)).toBe(3)
  })

  it('asks once for all who ask the same in one turn, in the order of its rows, and gives each what is theirs', async () => {
    const tenfold = statementOfRows<{ id: number; tenfold: number }>(
      'make in order',
      { id: 'int4' },
      'id desc',
      `, done as (insert into made (id) select id from given returning id)
       select n::int as n, given.id, given.id * 10 as tenfold from given join done using (id) where given.id <> 3`,
    )
    const first = await underWay()
    const works = [
      shared.one(tenfold, [1]),
      shared.transaction([], async (tx) => {
        const asked = tx.one(tenfold, [2])
        // Asked behind it, and so done behind it.
        const seen = await tx.rows(madeRows, [])
        return { ...(await asked), seen: seen.some(({ id }) => id === 2) }
      }),
      shared.one(tenfold, [3]),
      shared.rows(tenfold, [4]),
    ]
    first.end()
    expect(await Promise.all(works)).toMatchObject([
      { id: 1, tenfold: 10 },
      { id: 2, tenfold: 20, seen: true },
      null,
      [{ id: 4, tenfold: 40 }],
    ])
    await first.ended
    const order = statement<{ id: number; command: string }>(
      'made in order',
      'select id, cmin::text as command from made where id > 2 order by ctid',
    )
    const together = await database.db.writes.rows(order, [])
    expect(together.map(({ id }) => id)).toEqual([4, 3])
    expect(new Set(together.map(({ command }) => command)).size).toBe(1)
  })

  it('does each alone when what they asked together fails', async () => {
    const first = await underWay()
    const ask = async (tx: Tx, id: number) => tx.rows(makeAll, [id])
    const works = [1, 2, 0, 3].map((id) => shared.transaction([], (tx) => ask(tx, id)))
    first.end()
    const ended = await Promise.allSettled(works)
    expect(ended.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled'])
    expect(await ids()).toEqual([0, 1, 2, 3])
    expect(await transactionsOf(1, 2, 3)).toBe(3)
  })

  it('writes what all of them said for the end in one statement, and does each alone when that fails', async () => {
    const last = (id: number) => shared.transaction([], async (tx) => tx.last(makeAll, [id]))
    const first = await underWay()
    const works = [last(1), last(2), making(3)]
    first.end()
    await Promise.all(works)
    expect(await transactionsOf(1, 2, 3)).toBe(1)
    const second = await underWay(10)
    const more = [last(11), last(1), making(12)]
    second.end()
    expect((await Promise.allSettled(more)).map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await ids()).toEqual([0, 1, 2, 3, 10, 11, 12])
  })

  it('loses nothing and does nothing twice when its connection is cut before the commit (F13)', async () => {
    const pid = statement<{ pid: number }>('own pid', 'select pg_backend_pid() as pid')
    const terminate = statement('terminate', 'select pg_terminate_backend($1, 1000)')
    const first = await underWay()
    let cut = false
    const works = [
      making(1),
      shared.transaction([], async (tx) => {
        const { pid: backend } = (await tx.one(pid, []))!
        if (!cut) await database.db.reads.rows(terminate, [backend])
        cut = true
        await tx.rows(make, [2])
        return 2
      }),
      making(3),
    ]
    first.end()
    expect(await Promise.all(works)).toEqual([1, 2, 3])
    expect(await ids()).toEqual([0, 1, 2, 3])
  })

  it('runs each work where it was asked for', async () => {
    const asker = new AsyncLocalStorage<number>()
    const first = await underWay()
    const works = [1, 2, 3].map((n) =>
      asker.run(n, () =>
        shared.transaction([], async (tx) => {
          await tx.rows(make, [n])
          return asker.getStore()
        }),
      ),
    )
    first.end()
    expect(await Promise.all(works)).toEqual([1, 2, 3])
    expect(await transactionsOf(1, 2, 3)).toBe(1)
  })

  it('waits for the disk, but for what may be lost with the last moment', async () => {
    // Servers of tests do not wait otherwise.
    await using own = await testDatabase()
    const { url } = own
    const name = new URL(url).pathname.slice(1)
    await own.db.writes.rows(statement('wait', `alter database "${name}" set synchronous_commit = on`), [])
    await using db = openDatabase({ url, applicationName: 'test' })
    await db.writes.rows(
      statement('table', 'create table made (id int primary key, by xid8 default pg_current_xact_id())'),
      [],
    )
    type Made = { id: number; by: string; waits: string }
    const told = (name: string, answer: string) =>
      statementOfRows<Made>(
        name,
        { id: 'int4' },
        'n',
        `, done as (insert into made (id) select id from given returning id, by::text)
         select n::int as n, done.*, ${answer} as waits from given join done using (id)`,
      )
    const unsynced = told('make unsynced', UNSYNCED)
    const synced = told('make synced', `current_setting('synchronous_commit')`)
    const ask = (sql: Sql, of: Statement<Made>, ...some: number[]) =>
      Promise.allSettled(some.map((id) => sql.one(of, [id])))
    const made = (id: number, waits: string) => ({ status: 'fulfilled', value: { id, waits } })
    expect(await ask(db.unsynced, unsynced, 1)).toMatchObject([made(1, 'off')])
    const together = await ask(db.unsynced, unsynced, 2, 3)
    expect(together).toMatchObject([made(2, 'off'), made(3, 'off')])
    expect(new Set(together.map((each) => each.status === 'fulfilled' && each.value?.by)).size).toBe(1)
    // Others do not share with it, and nothing is left behind on any connection.
    const mixed = Promise.all([ask(db.unsynced, unsynced, 4), ask(db.shared, synced, 5, 6)])
    expect(await mixed).toMatchObject([[made(4, 'off')], [made(5, 'on'), made(6, 'on')]])
    const others = [7, 8, 9, 10, 11, 12, 13, 14]
    expect(await ask(db.writes, synced, ...others)).toMatchObject(others.map((id) => made(id, 'on')))
    expect(await db.writes.one(statement('count made', 'select count(*)::int from made'), [])).toEqual({ count: 14 })
  })
})
