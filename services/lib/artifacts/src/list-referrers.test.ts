import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement } from '@haven/db'
import { digestOf } from '@haven/oci'
import { MemoryStorage } from '@haven/storage'
import { rowsRead, statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import { artifactDeps, grant, listReferrers, type ArtifactDeps, type ReferrersQuery } from './index.ts'

let database: TestDatabase
let deps: ArtifactDeps
beforeAll(async () => {
  database = await testDatabase()
  deps = artifactDeps({ db: database.db, storage: new MemoryStorage() })
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

describe('referrers of one subject', () => {
  const subject = digestOf('signed by everybody')
  const reader = grant('pull', {
    project: { id: 1, name: 'acme' } as Parameters<typeof grant>[1]['project'],
    repository: 'signed',
    principal: { kind: 'user', id: 1, name: 'ann' },
    requestId: 'r',
    door: 'registry',
  })
  const run = (name: string, text: string, values: unknown[] = []) =>
    database.db.writes.rows(statement<{ id: number }>(name, text), values)
  const refer = (from: number, to: number) =>
    run(
      'refer',
      `with put as (
         insert into artifacts.manifests (repository_id, digest, media_type, artifact_type, kind, payload, payload_bytes, total_bytes, subject_digest, pushed_by)
         select r.id, 'sha256:' || encode(sha256(n::text::bytea), 'hex'), 'application/vnd.oci.image.manifest.v1+json', 'a/b', 'image', '{}', 2, 2, $3, 'ann'
           from artifacts.repositories r, generate_series($1::int, $2::int) n where r.path = 'signed'
         returning id, repository_id, subject_digest)
       insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       select id, 0, repository_id, 'subject', subject_digest, 'application/vnd.oci.image.manifest.v1+json', 2 from put`,
      [from, to, subject],
    )

  it('are counted up to a thousand, and listed page by page whatever their number, each page for the same price', async () => {
    await run('project', `insert into projects.projects (id, name, name_key, owner_id) values (1, 'acme', 'acme', 1)`)
    await run(
      'repository',
      `insert into artifacts.repositories (project_id, path, first_pushed_at) values (1, 'signed', now())`,
    )
    const list = (query: ReferrersQuery) => listReferrers(deps, reader, subject, query)
    await refer(1, 1_000)
    for (const query of [{}, { limit: 100 }, { artifactType: 'c/d' }]) expect((await list(query)).total).toBe(1_000)
    // An accessory by its tag alone is no referrer.
    const unsaid = await run(
      'unsaid',
      `delete from artifacts.manifest_edges where manifest_id = (select max(id) from artifacts.manifests) returning manifest_id as id`,
    )
    expect(unsaid).toHaveLength(1)
    for (const query of [{}, { limit: 100 }]) expect((await list(query)).total).toBe(999)
    const { next, total: further } = await list({ after: (await list({ limit: 100 })).next, limit: 100 })
    expect([next, further]).toEqual([expect.any(String), null])
    await refer(1_001, 1_001)
    expect((await list({ limit: 100 })).total).toBeNull()

    await run('analyze', 'analyze')
    const read = async () => {
      const asked = await rowsRead(database.db, (tx) =>
        listReferrers({ db: { writes: tx } as ArtifactDeps['db'] }, reader, subject, { limit: 100 }),
      )
      return Math.max(...asked)
    }
    const few = await read()
    expect(few).toBeLessThan(1_300)
    await refer(1_002, 10_001)
    await run('analyze again', 'analyze')
    expect(await read()).toBeLessThan(few + 50)

    const seen = new Set<string>()
    for (let after: string | null = null, pages = 0; pages === 0 || after !== null; pages++) {
      const page = await list({ after, limit: 1000 })
      for (const { digest } of page.referrers) seen.add(digest)
      after = page.next
      expect(pages).toBeLessThan(11)
    }
    expect(seen.size).toBe(10_000)
  })

  it('take two statements when a page holds them all, and one on a page further on', async () => {
    const statements = async (of: string, query: ReferrersQuery) =>
      (await statementsOf(() => listReferrers(deps, reader, digestOf(of), query))).length
    expect(await statements('signed by nobody', {})).toBe(2)
    expect(await statements('signed by everybody', { limit: 100 })).toBe(3)
    expect(await statements('signed by everybody', { limit: 100, after: '1' })).toBe(1)
  })
})
