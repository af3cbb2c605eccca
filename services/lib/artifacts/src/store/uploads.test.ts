import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Sql } from '@haven/db'
import { digestOf } from '@haven/oci'
import { rowsRead, testDatabase, type TestDatabase } from '@haven/testkit'
import { recordBlob } from './blobs.ts'
import { claimUpload, insertUpload, recordUpload, type UploadOwner } from './uploads.ts'

let database: TestDatabase
const many = { perPrincipal: 1000, perProject: 10_000 }

beforeAll(async () => {
  database = await testDatabase()
  await database.db.prisma.$executeRaw`
    insert into artifacts.uploads (id, project_id, path, principal, store, key)
    select gen_random_uuid(), 9, 'old', 'user:9', 'memory', 'old' || n from generate_series(1, 3000) n`
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const owner = (principal: string, projectId = 1): UploadOwner => ({
  id: randomUUID(),
  projectId,
  path: 'app',
  principal,
})
const open = (of: UploadOwner, limits = many, sql: Sql = database.db.shared) =>
  insertUpload(sql, of, { store: 'memory', key: of.id, digestAlgorithm: 'sha256' }, limits)

describe('uploads of which many are asked for at once', () => {
  it("count towards each other's limits, and towards nobody else's", async () => {
    const opened = (owners: UploadOwner[], limits: typeof many) => Promise.all(owners.map((each) => open(each, limits)))
    const six = ['user:1', 'user:1', 'user:2', 'user:1', 'user:2', 'user:2'].map((principal) => owner(principal))
    expect(await opened(six, { perPrincipal: 2, perProject: 100 })).toEqual([true, true, true, false, true, false])
    // Two are open in another project, four in this.
    const of = (principal: string, projectId: number) => owner(principal, projectId)
    expect(
      await opened([of('user:3', 1), of('user:4', 1), of('user:3', 2)], { perPrincipal: 9, perProject: 5 }),
    ).toEqual([true, false, true])
  })

  it('are each claimed by one, where and by whom they are', async () => {
    const owners = ['user:5', 'user:5', 'user:6'].map((principal) => owner(principal, 3))
    const [first, second, third] = owners as [UploadOwner, UploadOwner, UploadOwner]
    await Promise.all(owners.map((each) => open(each)))
    const { shared } = database.db
    const claimed = await Promise.all([
      claimUpload(shared, first, 30, null),
      claimUpload(shared, first, 30, 0),
      claimUpload(shared, second, 30, 7),
      claimUpload(shared, { ...third, principal: 'user:5' }, 30, null),
      claimUpload(shared, { ...third, path: 'other' }, 30, null),
      claimUpload(shared, third, 30, 0),
    ])
    expect(claimed.map((row) => row && row.id)).toEqual([first.id, null, null, null, null, third.id])
    const [one, , , , , other] = claimed
    const recorded = await Promise.all([
      recordUpload(shared, other!, 7, { token: 'a' }),
      recordUpload(shared, { ...one!, fence: 0 }, 9, null),
      recordUpload(shared, one!, 5, null),
    ])
    expect(recorded).toEqual([true, false, true])
    expect(await claimUpload(shared, third, 30, 7)).toMatchObject({ fence: 2, offsetBytes: 7, state: { token: 'a' } })
    expect(await claimUpload(shared, first, 30, 5)).toMatchObject({ fence: 2, state: null })
  })

  it.each(['nobody has analyzed', 'were analyzed'])(
    'are found without a look at the others, which %s',
    async (state) => {
      if (state === 'were analyzed') await database.db.writes.rows(statement('analyze uploads', 'analyze'), [])
      const one = owner('user:7', 4)
      const reads = async (ask: (tx: Sql) => Promise<unknown>) => Math.max(...(await rowsRead(database.db, ask)))
      expect(await reads((tx) => open(owner('user:7', 4), many, tx))).toBeLessThan(100)
      await open(one)
      expect(await reads((tx) => claimUpload(tx, one, 0, null))).toBeLessThan(10)
      const row = (await claimUpload(database.db.writes, one, 0, null))!
      expect(await reads((tx) => recordUpload(tx, row, 1, null))).toBeLessThan(10)
    },
  )
})

it('are looked up by their key where there were hardly any when the statements were planned: each that has ended lies there for a while', async () => {
  await using empty = await testDatabase()
  const { db } = empty
  await db.writes.rows(
    statement(
      'a project',
      `insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`,
    ),
    [],
  )
  await db.writes.rows(
    statement('a repository', `insert into artifacts.repositories (project_id, path) values (1, 'app')`),
    [],
  )
  const scans = statement<{ scans: number }>(
    'scans of uploads',
    `select seq_scan::int as scans from pg_stat_xact_user_tables where relname = 'uploads'`,
  )
  await db.transaction(async (tx) => {
    for (let n = 0; n < 12; n++) {
      const of = owner('user:1')
      await open(of, many, tx)
      const claimed = (await claimUpload(tx, of, 0, 0))!
      expect(await recordUpload(tx, claimed, 5, null)).toBe(true)
      const blob = { digest: digestOf(Buffer.from(of.id)), sizeBytes: 5, store: 'memory', key: of.id }
      expect(await recordBlob(tx, of, claimed, blob, null, 60)).toMatchObject({ inserted: true })
    }
    expect(await tx.one(scans, [])).toEqual({ scans: 0 })
  })
})
