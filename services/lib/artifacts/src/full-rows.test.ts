import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement } from '@haven/db'
import { MemoryStorage } from '@haven/storage'
import { rowsRead, testDatabase, type TestDatabase } from '@haven/testkit'
import type { ArtifactDeps } from './deps.ts'
import { listArtifactRows, listTagRows } from './full-rows.ts'

const [FEW, MANY] = [1_200, 15_000]
const TOMBSTONES = 300
const project = { id: 1, name: 'library' }
let database: TestDatabase
const run = (name: string, sql: string, values: unknown[] = []) =>
  database.db.writes.rows(statement<{ total: number }>(name, sql), values)

/**
 * As test/perf/growth.sql: tagged images that share one config, the first of which were deleted; indexes of two platforms. Whether others use what
 * one artifact has, and which of them lists show, is the same question in a repository of any size.
 */
beforeAll(async () => {
  database = await testDatabase()
  await run(
    'project',
    `insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`,
  )
  await run('blob', `insert into artifacts.blobs (digest, size_bytes, promised_until) values ('shared', 1000, now())`)
  for (const size of [FEW, MANY]) {
    await run(
      'repositories',
      `insert into artifacts.repositories (project_id, path, first_pushed_at) select 1, p || $1::text, now() from unnest(array['images', 'indexes']) p`,
      [size],
    )
    await run(
      'images',
      `with put as (
         insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes, facts, pushed_at, deleted_at)
         select r.id, 'd' || n, '', 'image', '', 10, 1010, '{"version": 2}', now() + n * interval '1 second', case when n <= ${TOMBSTONES} then now() end
           from artifacts.repositories r, generate_series(1, $1::int + ${TOMBSTONES}) n where r.path = 'images' || $1 order by n
         returning id, repository_id, digest, deleted_at),
       edges as (
         insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
         select id, 0, repository_id, 'config', 'shared', '', 1000 from put),
       links as (
         insert into artifacts.blob_links (repository_id, blob_id, promised_until)
         select distinct put.repository_id, b.id, now() from put, artifacts.blobs b)
       insert into artifacts.tags (repository_id, name, manifest_id) select repository_id, digest, id from put where deleted_at is null`,
      [size],
    )
    await run(
      'indexes',
      `with put as (
         insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes, facts, pushed_at)
         select r.id, 'd' || n, '', case when n % 3 = 0 then 'index' else 'image' end, '', 10, 10, '{"version": 2}', now() + n * interval '1 second'
           from artifacts.repositories r, generate_series(1, $1::int) n where r.path = 'indexes' || $1
         returning id, repository_id, digest, substr(digest, 2)::int as n)
       insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       select id, c, repository_id, 'child', 'd' || n - c, '', 10 from put, generate_series(1, 2) c where n % 3 = 0`,
      [size],
    )
  }
  // Also what an index of Postgres tells without its table; of a page that everybody sees, which autovacuum's own looks at the catalog put off.
  const unseen = `select count(*)::int as total from pg_class where relnamespace = 'artifacts'::regnamespace and relkind = 'r' and relallvisible < relpages`
  do await run('vacuum', 'vacuum analyze')
  while ((await run('unseen pages', unseen))[0]!.total > 0)
}, 60_000)
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const told = { onFailure: () => expect(null).toBe('a config that can be read') }
const search = { terms: [], labels: new Map() }
const keyset = { descending: true, from: null, offset: 0, size: 100 }

describe.each([true, false])('a page of a hundred whole rows, from the end: %s', (backwards) => {
  const views = {
    tags: (deps: Pick<ArtifactDeps, 'db' | 'storage'>, path: string) =>
      listTagRows(deps, { project, path }, { ...search, order: 'version' }, { ...keyset, backwards }, told),
    artifacts: (deps: Pick<ArtifactDeps, 'db' | 'storage'>, path: string) =>
      listArtifactRows(deps, { project, path }, search, { ...keyset, backwards }, told),
  }
  const readOf = async (view: keyof typeof views, path: string) => {
    const asked = await rowsRead(database.db, async (tx) => {
      const page = await views[view]({ db: { writes: tx } as ArtifactDeps['db'], storage: new MemoryStorage() }, path)
      expect(page?.rows).toHaveLength(100)
    })
    return Math.max(...asked.slice(1)) // the first counts what was pushed, as any list does
  }

  it.each([
    ['tags', 'images', 1_400],
    ['artifacts', 'images', 1_400],
    ['artifacts', 'indexes', 2_900],
  ] as const)('of %s in a repository of %s reads as many rows of a few as of many', async (view, kind, most) => {
    const few = await readOf(view, `${kind}${FEW}`)
    const many = await readOf(view, `${kind}${MANY}`)
    expect(few).toBeLessThan(most)
    expect(Math.abs(many - few)).toBeLessThan(100)
  })

  it('says how many there are, up to a thousand, and what each takes up', async () => {
    const deps = { db: database.db, storage: new MemoryStorage() }
    for (const [view, path, total] of [
      ['tags', `images${MANY}`, 1_001],
      ['artifacts', `images${FEW}`, 1_001],
      ['artifacts', `indexes${FEW}`, FEW / 3],
      ['artifacts', `indexes${MANY}`, 1_001],
    ] as const) {
      const page = (await views[view](deps, path))!
      expect([view, path, page.total]).toEqual([view, path, total])
      const size = path.startsWith('images')
        ? { totalBytes: 1010, uniqueBytes: 10 }
        : { totalBytes: 30, uniqueBytes: 30 }
      expect(page.rows.map((row) => row.size)).toEqual(Array(100).fill(size))
    }
  })
})
