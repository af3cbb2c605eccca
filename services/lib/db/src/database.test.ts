import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { isUnavailable } from '@haven/errors'
import { freshDatabaseUrl, statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import { TcpProxy } from '@haven/testkit/tcp-proxy'
import pg from 'pg'
import { isUniqueViolation, openDatabase } from './database.ts'
import type { Tx } from './transaction.ts'
import { ofAll, statement, statementOfRows } from './statement.ts'
import { migrate, migrations, missingMigrations, NewerSchema } from './migrate.ts'

describe('migrate', () => {
  it('is applied once by replicas that start together, and finds nothing the next time', async () => {
    const url = freshDatabaseUrl()
    const applied = await Promise.all([migrate(url), migrate(url), migrate(url)])
    expect(applied.flat().sort()).toEqual(migrations().map((m) => m.name))
    expect(await migrate(url)).toEqual([])
  })

  it('refuses a database that a newer version has used, and changes nothing', async () => {
    const url = freshDatabaseUrl()
    await migrate(url, [
      ...migrations(),
      { name: '29990101000000_later', sql: 'create table later (id int)', checksum: 'x' },
    ])
    await expect(migrate(url)).rejects.toThrow(NewerSchema)
    await expect(missingMigrations(url)).rejects.toThrow('29990101000000_later')
  })

  it('rolls a failing migration back whole and names it', async () => {
    const url = freshDatabaseUrl()
    const bad = { name: '29990101000000_bad', sql: 'create table half (id int); select nonsense', checksum: 'x' }
    await expect(migrate(url, [...migrations(), bad])).rejects.toThrow('29990101000000_bad')
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    const { rows } = await client.query(`select to_regclass('public.half') as half`)
    await client.end()
    expect(rows).toEqual([{ half: null }])
  })
})

describe('Database', () => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await testDatabase()
    await database.db.writes.rows(statement('make', 'create table counters (id int primary key, n int not null)'), [])
  })
  afterAll(async () => {
    await database[Symbol.asyncDispose]()
  })

  it('answers pipelined reads each with its own result', async () => {
    const double = statement<{ n: number }>('double', 'select $1::int * 2 as n')
    const answers = await Promise.all([1, 2, 3, 4].map((n) => database.db.reads.one(double, [n])))
    expect(answers.map((row) => row?.n)).toEqual([2, 4, 6, 8])
  })

  it('has no statement compiled, by whichever way it is asked', async () => {
    const show = statement<{ jit: string }>('show jit', 'show jit')
    const { reads, writes, prisma } = database.db
    const shown = await Promise.all([reads.one(show, []), writes.one(show, []), prisma.$queryRaw<object[]>`show jit`])
    expect(shown.flat()).toEqual([{ jit: 'off' }, { jit: 'off' }, { jit: 'off' }])
  })

  it('answers those who ask the same at once together, never with what was read before they asked', async () => {
    const sql = statement<{ n: number }>('make shared', 'create table shared (id int primary key, n int not null)')
    await database.db.writes.rows(sql, [])
    await database.db.writes.rows(statement('fill shared', 'insert into shared values (1, 0)'), [])
    const slow = statement<{ n: number }>(
      'slow shared',
      'select n, pg_sleep(0.05)::text as slept from shared where id = $1',
    )
    const add = statement('add shared', 'update shared set n = n + 1 where id = 1')
    const read = () => database.db.reads.one(slow, [1])
    const first = read()
    await database.db.writes.rows(add, [])
    const [early, ...late] = await Promise.all([first, read(), read(), read()])
    expect(late.map((row) => row?.n)).toEqual([1, 1, 1])
    expect(new Set(late).size).toBe(1)
    expect(new Set(late).has(early)).toBe(false)
    expect(await database.db.reads.one(slow, [2])).toBeNull()
  })

  it('asks once for all who ask the same in one turn, and in one write for all that is asked', async () => {
    await database.db.prisma.$executeRaw`create sequence asked`
    const next = statement<{ n: number }>('next shared', `select nextval('asked')::int as n`)
    const echo = statement<{ n: number }>('echo shared', 'select $1::int as n')
    const { reads } = database.db
    const [same, others] = await Promise.all([
      Promise.all(Array.from({ length: 5 }, () => reads.one(next, []))),
      Promise.all(Array.from({ length: 5 }, (_, n) => reads.one(echo, [n]))),
    ])
    expect(same.map((row) => row!.n)).toEqual([1, 1, 1, 1, 1])
    expect(others).toEqual([0, 1, 2, 3, 4].map((n) => ({ n })))
    expect(await reads.one(next, [])).toEqual({ n: 2 })
  })

  it('fails only those who shared a read that failed', async () => {
    const divide = statement<{ n: number }>('divide', 'select 10 / $1::int as n')
    const outcomes = await Promise.allSettled([0, 0, 0, 5].map((by) => database.db.reads.one(divide, [by])))
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected', 'fulfilled'])
    expect(await database.db.reads.one(divide, [2])).toEqual({ n: 5 })
  })

  it('asks in one execution for all rows that are wanted in one turn, and gives each its own', async () => {
    const { reads } = database.db
    const some = statementOfRows<{ of: number; by: string }>(
      'some rows',
      { of: 'int4' },
      null,
      `select n::int as n, of, pg_current_snapshot()::text || clock_timestamp() as by
         from given, generate_series(1, of) offset 0`,
    )
    const asked = await statementsOf(async () => {
      const answers = await Promise.all([2, 0, 1, 2].map((of) => reads.rows(some, [of])))
      expect(answers.map((rows) => rows.map(({ of }) => of))).toEqual([[2, 2], [], [1], [2, 2]])
      expect(answers[3]).toBe(answers[0])
    })
    expect(asked).toEqual([some.text])
    const many = await statementsOf(() => Promise.all(Array.from({ length: 100 }, (_, of) => reads.rows(some, [of]))))
    expect(many).toHaveLength(4)
  })

  it('tells only whoever asked of a row that cannot be read, and all of what has nothing to do with rows', async () => {
    const { reads, prisma } = database.db
    const divide = statementOfRows<{ is: number }>(
      'divide rows',
      { by: 'int4' },
      null,
      'select n::int as n, 10 / by as is from given',
    )
    const outcomes = await Promise.allSettled([1, 0, 5, 0].map((by) => reads.one(divide, [by])))
    expect(outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value!.is : 'refused'))).toEqual([
      10,
      'refused',
      2,
      'refused',
    ])

    await prisma.$executeRaw`create table kept (id int primary key)`
    const kept = statementOfRows(
      'kept rows',
      { id: 'int4' },
      null,
      'select n::int as n, k.id from given join kept k using (id)',
    )
    await Promise.all([1, 2, 3].map((id) => reads.one(kept, [id])))
    await prisma.$executeRaw`drop table kept`
    const again = await statementsOf(async () => {
      const refused = await Promise.allSettled([1, 2, 3].map((id) => reads.one(kept, [id])))
      expect(refused.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    })
    expect(again).toHaveLength(1)
  })

  it('goes on reading when its pipelined connection is cut: who waits on it never notices (F13)', async () => {
    const ownPid = statement<{ pid: number }>('pid', 'select pg_backend_pid() as pid')
    const pid = await database.db.reads.one(ownPid, [])
    const slow = statement<{ n: number }>('slow reads', 'select $1::int as n, pg_sleep(0.3)::text as slept')
    const waiting = [1, 2, 3].map((n) => database.db.reads.one(slow, [n]))
    await database.db.writes.rows(statement('cut', 'select pg_terminate_backend($1::int, 1000)'), [pid!.pid])
    expect((await Promise.all(waiting)).map((row) => row?.n)).toEqual([1, 2, 3])
    expect((await database.db.reads.one(ownPid, []))!.pid).not.toBe(pid!.pid)
  })

  it('answers who asked behind a read that waits for a lock, without waiting for it (F15)', async () => {
    const held = new pg.Client({ connectionString: database.url })
    await held.connect()
    await held.query('begin; lock table counters in access exclusive mode')
    let locked = true
    const blocked = database.db.reads
      .one(statement('blocked', 'select n from counters where id = -1'), [])
      .finally(() => (locked = false))
    const one = statement<{ n: number }>('behind', 'select $1::int as n')
    const behind = await Promise.all([1, 2, 3].map((n) => database.db.reads.one(one, [n])))
    expect({ behind: behind.map((row) => row?.n), locked }).toEqual({ behind: [1, 2, 3], locked: true })
    expect({ later: await database.db.reads.one(one, [4]), locked }).toEqual({ later: { n: 4 }, locked: true })
    await held.query('rollback')
    await held.end()
    expect(await blocked).toBeNull()
  })

  it('asks once more what is read apart when that connection is cut as well (F13)', async () => {
    const held = new pg.Client({ connectionString: database.url })
    await held.connect()
    await held.query('begin; lock table counters in access exclusive mode')
    const blocked = database.db.reads.one(statement('blocked apart', 'select n from counters where id = -1'), [])
    const slow = statement<{ n: number }>('slow apart', 'select $1::int as n, pg_sleep(0.5)::text as slept')
    const cut = statement<{ cut: boolean }>(
      'cut apart',
      `select pg_terminate_backend(pid, 1000) as cut from pg_stat_activity
        where state = 'active' and query like '%pg_sleep(0.5)%' and pid <> pg_backend_pid()`,
    )
    const apart = database.db.reads.one(slow, [7])
    while (!(await database.db.writes.one(cut, []))?.cut) continue
    expect((await apart)?.n).toBe(7)
    await held.query('rollback')
    await held.end()
    expect(await blocked).toBeNull()
  })

  it('reads when its pipelined connection is cut while it is made (F13)', async () => {
    await using network = await TcpProxy.start(database.url)
    let cuts = 1
    network.onSent = () => (cuts-- > 0 ? 'cut the answer' : 'pass')
    await using db = openDatabase({ url: network.before(database.url), applicationName: 'cut', poolSize: 2 })
    expect(await db.reads.one(statement('once more', 'select 1 as n'), [])).toEqual({ n: 1 })
    expect(cuts).toBeLessThan(0)
  })

  it('gives up a server that is silent, and only then (F14)', async () => {
    await using network = await TcpProxy.start(database.url)
    await using db = openDatabase({ url: network.before(database.url), applicationName: 'silence', poolSize: 2 })
    const one = statement<{ n: number }>('one', 'select 1 as n')
    const patient = statement<{ n: number }>('patient', 'select 1 as n, pg_sleep(4)::text as slept')
    const asks = [
      () => db.reads.one(one, []),
      () => db.writes.one(one, []),
      () => db.transaction((tx) => tx.one(one, [])),
    ]
    for (const ask of asks) expect(await ask()).toEqual({ n: 1 })
    // Longer than silence may last, and answered all the same.
    expect(await db.writes.one(patient, [])).toMatchObject({ n: 1 })
    network.mode = 'black hole'
    const outcomes = await Promise.allSettled(asks.map((ask) => ask()))
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
    expect(outcomes.map((outcome) => isUnavailable((outcome as PromiseRejectedResult).reason))).toEqual([
      true,
      true,
      true,
    ])
    network.mode = 'pass'
    for (const ask of asks) expect(await ask()).toEqual({ n: 1 })
  }, 30_000)

  it('does not take a server for silent because nobody listened to it', async () => {
    await using network = await TcpProxy.start(database.url)
    await using db = openDatabase({ url: network.before(database.url), applicationName: 'busy', poolSize: 2 })
    const long = statement<{ n: number }>('long', 'select 1 as n, pg_sleep(3)::text as slept')
    await db.writes.rows(statement('one', 'select 1 as n'), [])
    // The loop stands still while it asks by another connection whether anybody is there, until the limit for that is over. Both answers wait then.
    let held = 0
    network.onSent = (bytes) => {
      if (bytes.includes('application_name') && held++ === 0) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_500)
      }
      return 'pass'
    }
    const asked = db.writes.one(long, [])
    expect(await asked).toMatchObject({ n: 1 })
    expect(held).toBe(1)
  }, 30_000)

  it('says that it is busy when a transaction of Prisma waits too long for a connection, or goes on for too long', async () => {
    await using db = openDatabase({ url: database.url, applicationName: 'busy', poolSize: 1 })
    const failureOf = (failing: Promise<unknown>) => failing.then(String, (error: unknown) => error)
    let free = () => {}
    const busy = new Promise<void>((resolve) => (free = resolve))
    const first = db.prisma.$transaction(() => busy)
    const second = await failureOf(db.prisma.$transaction((tx) => tx.$queryRaw`select 1`, { maxWait: 100 }))
    free()
    await first
    const slow = await failureOf(
      db.prisma.$transaction((tx) => tx.$queryRaw`select pg_sleep(0.2)::text`.then(() => tx.$queryRaw`select 1`), {
        timeout: 100,
      }),
    )
    expect([second, slow].map((error) => [String(error), isUnavailable(error)])).toEqual([
      [expect.stringContaining('Unable to start a transaction'), true],
      [expect.stringContaining('expired transaction'), true],
    ])
  })

  it('rolls back a transaction whose work throws', async () => {
    const insert = statement('insert counter', 'insert into counters values ($1, 0)')
    await expect(
      database.db.transaction(async (tx) => {
        await tx.rows(insert, [1])
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await database.db.writes.rows(statement('all', 'select * from counters'), [])).toEqual([])
  })

  it('fails a transaction of which a statement failed, asked at the end or not waited for', async () => {
    const insert = statement('insert counter', 'insert into counters values ($1, 0)')
    const insertAll = statementOfRows(
      'insert counters',
      { id: 'int4' },
      'n',
      'insert into counters select id, 0 from given',
    )
    await database.db.writes.rows(insert, [30])
    const atTheEnd = database.db.transaction(async (tx) => {
      await tx.rows(insert, [31])
      tx.last(insertAll, [32])
      tx.last(insertAll, [30])
    })
    expect(isUniqueViolation(await atTheEnd.catch((error: unknown) => error))).toBe(true)
    const swallowed = database.db.transaction(async (tx) => {
      await tx.rows(insert, [30]).catch(() => undefined)
    })
    await expect(swallowed).rejects.toThrow('rolled back')
    const together = database.db.transaction((tx) => Promise.all([tx.rows(insert, [31]), tx.rows(insert, [30])]))
    expect(isUniqueViolation(await together.catch((error: unknown) => error))).toBe(true)
    await database.db.transaction(async (tx) => {
      tx.last(insertAll, [33])
      tx.last(insertAll, [34])
    })
    const some = statement<{ id: number }>('some', 'select id from counters where id between 30 and 39 order by id')
    expect(await database.db.writes.rows(some, [])).toEqual([{ id: 30 }, { id: 33 }, { id: 34 }])
  })

  it('asks behind the commit what everybody sees then, and does not fail for it', async () => {
    const insert = statement('insert counter', 'insert into counters values ($1, 0)')
    const mine = statement<{ mine: boolean }>(
      'seen behind',
      'select pg_current_xact_id_if_assigned() is null and exists (select from counters where id = $1) as mine',
    )
    const ask = async (tx: Tx, id: number) => {
      await tx.rows(insert, [id])
      return { mine: tx.behind(mine, [id]), wrong: tx.behind(statement('wrong', 'select 1 / $1::int'), [0]) }
    }
    const { mine: seen, wrong } = await database.db.transaction((tx) => ask(tx, 50))
    expect(await seen).toEqual([{ mine: true }])
    await expect(wrong).rejects.toThrow('division by zero')
    let answered = false
    const failing = database.db.transaction(async (tx) => {
      const { mine: never } = await ask(tx, 51)
      void never.then(() => (answered = true))
      throw new Error('no')
    })
    await expect(failing).rejects.toThrow('no')
    expect(await database.db.writes.rows(mine, [51])).toEqual([{ mine: false }])
    expect(answered).toBe(false)
  })

  it('asks nothing of the connection of a transaction that has ended, which is another’s by then', async () => {
    const insert = statement('insert counter', 'insert into counters values ($1, 0)')
    const late = Promise.withResolvers<unknown>()
    const failing = database.db.transaction(async (tx) => {
      const slow = async () => {
        await tx.rows(insert, [40])
        await new Promise((resolve) => setTimeout(resolve, 50))
        await tx.rows(insert, [41])
      }
      slow().catch(late.resolve)
      await tx.rows(insert, [40])
    })
    await expect(failing).rejects.toThrow('duplicate')
    expect(await late.promise).toMatchObject({ message: expect.stringContaining('ended') })
    const some = statement<{ id: number }>('forties', 'select id from counters where id between 40 and 49')
    expect(await database.db.writes.rows(some, [])).toEqual([])
  })

  it('repeats a transaction that lost a deadlock', async () => {
    const add = statement(
      'add',
      'insert into counters values ($1, 1) on conflict (id) do update set n = counters.n + 1',
    )
    await database.db.writes.rows(add, [10])
    await database.db.writes.rows(add, [11])
    let meet: () => void
    const bothHaveOne = new Promise<void>((resolve) => (meet = resolve))
    let waiting = 0
    const inOrder = (first: number, second: number) =>
      database.db.transaction(async (tx) => {
        await tx.rows(add, [first])
        if (++waiting === 2) meet()
        await bothHaveOne
        await tx.rows(add, [second])
      })
    await Promise.all([inOrder(10, 11), inOrder(11, 10)])
    const rows = await database.db.writes.rows<{ n: number }>(
      statement('both', 'select n from counters where id in (10, 11)'),
      [],
    )
    expect(rows).toEqual([{ n: 3 }, { n: 3 }])
  })

  it('fails a transaction whose connection breaks between two statements, and nothing else', async () => {
    const pid = statement<{ pid: number }>('own pid', 'select pg_backend_pid() as pid')
    const terminate = statement('terminate', 'select pg_terminate_backend($1, 1000)')
    const broken = database.db.transaction(async (tx) => {
      const { pid: backend } = (await tx.one(pid, []))!
      await database.db.reads.rows(terminate, [backend])
      // Nobody is asking the connection anything when it goes.
      await new Promise((resolve) => setTimeout(resolve, 100))
      await tx.rows(pid, [])
    })
    await expect(broken).rejects.toThrow(/connection/)
    await database.db.transaction(async (tx) => {
      expect(await tx.rows(pid, [])).toHaveLength(1)
    })
  })

  it('recognises a unique violation from pg and from Prisma', async () => {
    const insert = statement('insert counter', 'insert into counters values ($1, 0)')
    const twice = async () => {
      await database.db.writes.rows(insert, [20])
      await database.db.writes.rows(insert, [20])
    }
    expect(isUniqueViolation(await twice().catch((error: unknown) => error))).toBe(true)
    const user = { data: { username: 'ann', usernameKey: 'ann' } }
    await database.db.prisma.user.create(user)
    expect(isUniqueViolation(await database.db.prisma.user.create(user).catch((error: unknown) => error))).toBe(true)
  })

  it('announces which table a commit changed', async () => {
    const heard: string[] = []
    const changed = new Promise<void>((resolve, reject) => {
      database.db.announcements.on((table) => {
        heard.push(table)
        if (table === 'lost') {
          database.db.prisma.project.create({ data: { name: 'p', nameKey: 'p', ownerId: 1 } }).catch(reject)
        } else resolve()
      })
    })
    await changed
    expect(heard).toEqual(['lost', 'projects.projects'])
  })

  it('gives a statement of rows every value as it is', async () => {
    const columns = { a: 'int4', b: 'int8', c: 'float8', d: 'text', e: 'bytea', f: 'jsonb' } as const
    const echo = statementOfRows('echo', columns, 'n', 'select n::int as n, a, b, c, d, e, f from given')
    const odd = 'a "quoted", {braced} \\ NULL ü 字 𝄞\n'
    const rows = [
      [-7, '9007199254740993', 0.1, odd, Buffer.from([0, 1, 255, 92]), JSON.stringify({ odd })],
      [null, null, null, null, null, null],
      [2 ** 31 - 1, -1n, -1e300, '', Buffer.alloc(0), 'null'],
    ]
    const asked = await database.db.writes.rows(...ofAll(echo, rows))
    expect(asked).toEqual([
      { n: 1, a: -7, b: '9007199254740993', c: 0.1, d: odd, e: Buffer.from([0, 1, 255, 92]), f: { odd } },
      { n: 2, a: null, b: null, c: null, d: null, e: null, f: null },
      { n: 3, a: 2 ** 31 - 1, b: '-1', c: -1e300, d: '', e: Buffer.alloc(0), f: null },
    ])
    expect(await database.db.reads.one(echo, rows[0]!)).toEqual(asked[0])
  })
})
