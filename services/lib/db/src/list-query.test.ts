import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { openDatabase, type Database } from './database.ts'
import { Prisma } from './gen/prisma/client.ts'
import { listKept, listKeys, listRows, type KeptListing } from './list-query.ts'
import { testDatabase, type TestDatabase } from '@haven/testkit'

let database: TestDatabase
let other: Database

beforeAll(async () => {
  database = await testDatabase()
  other = openDatabase({ url: database.url, applicationName: 'other' })
})
afterAll(async () => {
  await other[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

const byName = [Prisma.sql`g.name`, Prisma.sql`g.id`].map((column) => ({ column, descending: false }))
const groups = (number: number, size: number, changes: Partial<KeptListing> = {}): KeptListing => ({
  columns: Prisma.sql`g.id, g.name`,
  from: Prisma.sql`identity.groups g`,
  where: [Prisma.sql`g.provider = ${'http'}`],
  order: byName,
  page: { number, size },
  tables: ['identity.groups'],
  ...changes,
})
const group = (name: string) => ({ data: { name, provider: 'http', externalId: name } })
const names = async (db: Database, listing: KeptListing) =>
  (await listKept<{ name: string }>(db, listing)).rows.map(({ name }) => name)

describe('a list that is remembered', () => {
  it('has the pages that it has when it is found anew, in every order, near and far', async () => {
    const { db } = database
    await db.prisma.$executeRaw`
      insert into identity.groups (name, provider, external_id)
      select left(md5(n::text), 12), case n % 7 when 0 then 'oidc' else 'http' end, n::text from generate_series(1, 1500) n`
    const descending = byName.map(({ column }) => ({ column, descending: true }))
    for (const order of [byName, descending]) {
      for (const number of [1, 2, 60, 64, 65, 66, 1_000]) {
        const anew = await listRows<object>(db.prisma, groups(number, 20, { order }))
        for (let time = 0; time < 3; time++) {
          expect(await listKept<object>(db, groups(number, 20, { order }))).toEqual(anew)
        }
      }
    }
    const some = { where: [Prisma.sql`g.provider = ${'oidc'} and g.id > ${7n}`] }
    expect((await listKept(db, groups(9, 20, some))).rows).toHaveLength(20)
    expect((await listKept(db, groups(9, 20))).rows).not.toEqual((await listKept(db, groups(9, 20, some))).rows)
    expect(await listKeys(db, groups(1, 1, { where: [Prisma.sql`false`] }))).toEqual(new Int32Array(0))
  })

  it('is read whole, too, where it is too long to be remembered', async () => {
    const id = Prisma.sql`n.id`
    const from = Prisma.sql`generate_series(1, 500001) n (id)`
    const order = [{ column: id, descending: false }]
    const keys = await listKeys(database.db, { from, where: [Prisma.sql`true`], order, tables: ['identity.groups'] })
    expect([keys.length, keys[0], keys.at(-1)]).toEqual([500_001, 1, 500_001])
  })

  it('shows each change at once, whoever made it', async () => {
    const { db } = database
    const first = groups(1, 3)
    for (let time = 0; time < 3; time++) await names(db, first)
    const { id } = await other.prisma.group.create(group('!a'))
    expect((await names(db, first))[0]).toBe('!a')
    for (let time = 0; time < 3; time++) await names(db, first)
    await other.prisma.group.update({ where: { id }, data: { name: '!b' } })
    expect((await names(db, first))[0]).toBe('!b')
    for (let time = 0; time < 3; time++) await names(db, first)
    await other.prisma.group.delete({ where: { id } })
    expect((await names(db, first))[0]).not.toBe('!b')
  })

  it('R8: shows a change that began before others and ended after them, and not before it ended', async () => {
    const { db } = database
    const first = groups(1, 2)
    let end!: () => void
    let began!: () => void
    const ended = new Promise<void>((resolve) => (end = resolve))
    const started = new Promise<void>((resolve) => (began = resolve))
    const slow = other.prisma.$transaction(async (tx) => {
      await tx.group.create(group('!1'))
      began()
      await ended
    })
    await started
    await other.prisma.group.create(group('!2'))
    for (let time = 0; time < 3; time++) expect((await names(db, first))[0]).toBe('!2')
    end()
    await slow
    expect(await names(db, first)).toEqual(['!1', '!2'])
  })

  it('costs a line for each change, of which few are kept, and nobody waits for another', async () => {
    await Promise.all(Array.from({ length: 60 }, (_, n) => other.prisma.group.create(group(`!many-${n}`))))
    const lines = await other.prisma.listChange.count({ where: { listed: 'identity.groups' } })
    expect(lines).toBeGreaterThan(0)
    expect(lines).toBeLessThan(40)
    expect((await names(database.db, groups(1, 100))).filter((name) => name.startsWith('!many'))).toHaveLength(60)
  })

  it('is found in turn where that takes long, a few at a time, whether or not the one before failed', async () => {
    const { lists } = database.db
    const ends = Array.from({ length: 5 }, () => Promise.withResolvers<void>())
    let running = 0
    const found = ends.map(({ promise }, n) =>
      lists.inTurn(() => {
        running++
        return promise.then(() => n).finally(() => running--)
      }),
    )
    await new Promise(setImmediate)
    expect(running).toBe(3)
    ends[0]!.reject(new Error('too long'))
    await expect(found[0]).rejects.toThrow('too long')
    await new Promise(setImmediate)
    expect(running).toBe(3)
    for (const { resolve } of ends) resolve()
    expect(await Promise.all(found.slice(1))).toEqual([1, 2, 3, 4])
  })

  it('is read by the keys of the page, however dear it was to find', async () => {
    const { db } = database
    const far = groups(30, 20, { where: [Prisma.sql`g.name ilike '%a%' and g.provider = 'http'`] })
    await listKept(db, far)
    const asked: Prisma.Sql[] = []
    const prisma = {
      $queryRaw: (strings: TemplateStringsArray, ...values: unknown[]) => {
        const sql = Prisma.sql(strings, ...values)
        asked.push(sql)
        return db.prisma.$queryRaw(sql)
      },
    } as Pick<Database['prisma'], '$queryRaw'>
    expect((await listKept({ prisma, lists: db.lists }, far)).rows).toHaveLength(20)
    expect(asked.map(({ sql }) => /ilike|offset|count/.test(sql))).toEqual([false])
  })
})
