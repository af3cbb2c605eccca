import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { Sql } from '@haven/db'
import { queryOnce, rowsRead, testDatabase, type TestDatabase } from '@haven/testkit'
import { getManifestRow, headManifestRow } from './manifests.ts'

let database: TestDatabase
const REPOSITORIES = 3_000

beforeAll(async () => {
  database = await testDatabase()
  await run(`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`)
  await run(
    `insert into artifacts.repositories (project_id, path) select 1, 'r' || n from generate_series(1, $1::int) n`,
    [REPOSITORIES],
  )
  // Each has the same artifact as `latest`; one has many others, so that the planner expects few of a name or digest.
  await run(
    `with made as (insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
                   select id, 'same', '', 'image', '', 0, 0 from artifacts.repositories returning id, repository_id)
     insert into artifacts.tags (repository_id, name, manifest_id) select repository_id, 'latest', id from made`,
  )
  await run(
    `with made as (insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
                   select r.id, 'd' || n, '', 'image', '', 0, 0 from artifacts.repositories r, generate_series(1, 20000) n where r.path = 'r1'
                   returning id, repository_id)
     insert into artifacts.tags (repository_id, name, manifest_id) select repository_id, 't' || id, id from made`,
  )
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

// Without the limits that requests have.
const run = (sql: string, values: unknown[] = []) => queryOnce(database.url, sql, values)

/** How many rows it reads when it is planned once for all. */
const reads = async (ask: (tx: Sql) => Promise<unknown>) => (await rowsRead(database.db, ask)).at(-1)!

describe.each(['that nobody has analyzed', 'as they were analyzed'])('repositories with the same tag, %s', (state) => {
  beforeAll(async () => {
    if (state === 'as they were analyzed') await run('analyze')
  })

  it('find what they have without a look at what the others have', async () => {
    for (const path of ['r1', 'r2', `r${REPOSITORIES}`]) {
      for (const named of [{ tag: 'latest' }, { digest: 'same' }]) {
        const at = { projectId: 1, path }
        expect(await getManifestRow(database.db.writes, at, named)).toMatchObject({ facts: { digest: 'same' } })
        expect(await reads((tx) => getManifestRow(tx, at, named))).toBeLessThan(6)
        expect(await reads((tx) => headManifestRow(tx, at, named))).toBeLessThan(6)
      }
    }
    expect(await getManifestRow(database.db.writes, { projectId: 1, path: 'absent' }, { tag: 'latest' })).toBeNull()
  })
})
