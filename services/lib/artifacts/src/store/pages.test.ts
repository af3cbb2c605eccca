import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Sql } from '@haven/db'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { cataloguePage } from './catalog.ts'
import { tagDetails, tagNames } from './tags.ts'

/** Tags of one repository, and repositories of one project. */
const MANY = 20_000
const PAGE = 101

let database: TestDatabase

beforeAll(async () => {
  database = await testDatabase()
  const { prisma } = database.db
  await prisma.$executeRaw`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`
  await prisma.$executeRaw`
    insert into artifacts.repositories (id, project_id, path, first_pushed_at)
    select n, 1, 'r' || to_char(n, 'FM00000'), now() from generate_series(1, ${MANY}::int) n`
  await prisma.$executeRaw`
    insert into artifacts.manifests (id, repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
    select n, n, 'd', '', 'image', '', 0, 0 from generate_series(1, ${MANY}::int) n`
  await prisma.$executeRaw`
    insert into artifacts.tags (repository_id, name, manifest_id) select 1, 't' || to_char(n, 'FM00000'), n from generate_series(1, ${MANY}::int) n`
  for (const table of ['repositories', 'manifests', 'tags'])
    await prisma.$executeRawUnsafe(`vacuum analyze artifacts.${table}`)
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const place = { projectId: 1, path: 'r00001' }
const plans = statement<{ generic: number }>(
  'plans',
  `select generic_plans::int as generic from pg_prepared_statements where name = $1`,
)

/** `most`: pages of 8 KiB that Postgres looks at. */
type List = { name: string; read: (sql: Sql, after: string) => Promise<unknown[] | null>; given: string; most: number }
const lists: List[] = [
  {
    name: 'tags list',
    read: (sql, after) => tagNames(sql, place, `t${after}`, PAGE),
    given: `1, 'r00001', 't19800', ${PAGE}`,
    most: 12,
  },
  {
    name: 'tags list details',
    read: (sql, after) => tagDetails(sql, place, `t${after}`, PAGE),
    given: `1, 'r00001', 't19800', ${PAGE}`,
    most: 4 * PAGE,
  },
  {
    name: 'catalog page',
    read: (sql, after) => cataloguePage(sql, [1], `r${after}`, PAGE),
    given: `'{1}', 'r19800', ${PAGE}`,
    most: 4 * PAGE,
  },
]

describe.each(lists)('the statement "$name" of a large list', ({ name, read, given, most }) => {
  it('is planned once for all pages, and reads what one has', async () => {
    await database.db.transaction(async (tx) => {
      for (const after of ['', '19800', '', '00100', '10000', '', '19800'])
        expect(await read(tx, after)).toHaveLength(PAGE)
      // Postgres plans the first five for what they ask, and compares.
      expect(await tx.rows(plans, [name])).toEqual([{ generic: 2 }])
      const explain = statement<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
        `explained ${name}`,
        `explain (analyze, buffers, format json) execute "${name}" (${given})`,
      )
      const { Plan } = (await tx.one(explain, []))!['QUERY PLAN'][0]
      expect(Plan['Actual Rows']).toBe(PAGE)
      expect(Plan['Shared Hit Blocks']! + Plan['Shared Read Blocks']!).toBeLessThan(most)
    })
  })
})
