import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Sql } from '@haven/db'
import { digestOf } from '@haven/oci'
import { rowsRead, testDatabase, type TestDatabase } from '@haven/testkit'
import { findAndRenewBlob, findPromisedBlob, holdBlobs, holdFreshBlobs } from './blobs.ts'

let database: TestDatabase
const at = { projectId: 1, path: 'large' }
const DAY = 24 * 60 * 60
const LINKS = 20_000

beforeAll(async () => {
  database = await testDatabase()
  await run(`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`)
  await run(
    `insert into artifacts.repositories (project_id, path) select 1, 'r' || n from generate_series(1, 3000) n union all select 1, 'large'`,
  )
  await run(
    `with made as (insert into artifacts.blobs (digest, size_bytes, promised_until)
                   select 'd' || n, n, now() + interval '1 day' from generate_series(1, $1::int) n returning id),
     placed as (insert into artifacts.blob_locations (blob_id, store, key) select id, 'memory', 'k' || id from made)
     insert into artifacts.blob_links (repository_id, blob_id, promised_until)
     select r.id, made.id, now() + interval '1 day' from made, artifacts.repositories r where r.path = 'large'`,
    [LINKS],
  )
  // Most repositories have few: those are what the planner expects.
  await run(
    `insert into artifacts.blob_links (repository_id, blob_id, promised_until)
     select r.id, b.id, now() from artifacts.repositories r join artifacts.blobs b on b.digest in ('d1', 'd2') where r.path <> 'large'`,
  )
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const run = (sql: string, values: unknown[] = []) =>
  database.db.writes.rows(statement(digestOf(Buffer.from(sql)).slice(-32), sql), values)

/** How many rows it reads at most. */
const reads = async (ask: (tx: Sql) => Promise<unknown>) => Math.max(...(await rowsRead(database.db, ask)))

describe.each(['that nobody has analyzed', 'as it was analyzed'])('a repository with many blobs, %s', (state) => {
  beforeAll(async () => {
    if (state === 'as it was analyzed') await run('analyze')
  })

  it('finds one without a look at the others', async () => {
    for (const digest of ['d1', 'd17', 'absent']) {
      expect(await reads((tx) => findPromisedBlob(tx, at, digest, 'memory', DAY))).toBeLessThan(10)
      expect(await reads((tx) => findAndRenewBlob(tx, at, digest, 'memory', 2 * DAY))).toBeLessThan(20)
    }
  })

  it('holds those that a manifest names without a look at the others', async () => {
    const digests = ['d1', 'd2', 'd300', 'd4000', 'd5000', 'd19999', 'absent']
    expect(await holdFreshBlobs(database.db.writes, at, digests, DAY)).toHaveLength(6)
    expect(await reads((tx) => holdFreshBlobs(tx, at, digests, DAY))).toBeLessThan(60)
    expect(await reads((tx) => holdBlobs(tx, at, digests, 3 * DAY))).toBeLessThan(200)
  })
})
