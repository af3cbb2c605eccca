import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement } from '@haven/db'
import { digestOf } from '@haven/oci'
import { MemoryStorage } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { artifactDeps, countReferrers, grant, listReferrers, type ArtifactDeps } from './index.ts'

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

  it('are counted up to ten thousand, and listed page by page whatever their number', async () => {
    const [project] = await run(
      'project',
      `insert into projects.projects (name, name_key, owner_id) values ('acme', 'acme', 1) returning id`,
    )
    await run(
      'repository',
      `insert into artifacts.repositories (project_id, path, first_pushed_at) values ($1, 'signed', now())`,
      [project!.id],
    )
    const reader = grant('pull', {
      project: { id: project!.id, name: 'acme' } as Parameters<typeof grant>[1]['project'],
      repository: 'signed',
      principal: { kind: 'user', id: 1, name: 'ann' },
      requestId: 'r',
      door: 'registry',
    })
    await refer(1, 10_000)
    expect(await countReferrers(deps, reader, subject)).toBe(10_000)
    await refer(10_001, 10_001)
    expect(await countReferrers(deps, reader, subject)).toBeNull()

    const seen = new Set<string>()
    for (let after: string | null = null, pages = 0; pages === 0 || after !== null; pages++) {
      const page = await listReferrers(deps, reader, subject, { after, limit: 1000 })
      for (const { digest } of page.referrers) seen.add(digest)
      after = page.next
      expect(pages).toBeLessThan(11)
    }
    expect(seen.size).toBe(10_001)
  })
})
