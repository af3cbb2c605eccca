import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Sql } from '@haven/db'
import { statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import { cataloguePage } from './catalog.ts'
import { repositoryRows } from './repository-rows.ts'
import { tagDetails, tagNames } from './tags.ts'

/** Tags of one repository, and repositories of one project. */
const MANY = 15_000
const PAGE = 100

let database: TestDatabase
const run = (sql: string) => database.db.prisma.$executeRawUnsafe(sql)

beforeAll(async () => {
  database = await testDatabase()
  await run(`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`)
  await run(
    `insert into artifacts.repositories (id, project_id, path, first_pushed_at)
     select n, 1, 'r' || to_char(n, 'FM00000'), now() from generate_series(1, ${MANY}) n`,
  )
  await run(
    `insert into artifacts.manifests (id, repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
     select n, n, 'd', '', 'image', '', 0, 0 from generate_series(1, ${MANY}) n`,
  )
  await run(
    `insert into artifacts.tags (repository_id, name, manifest_id) select 1, 't' || to_char(n, 'FM00000'), n from generate_series(1, ${MANY}) n`,
  )
  await page(0)
  for (const table of ['repositories', 'manifests', 'tags']) await run(`vacuum analyze artifacts.${table}`)
  for (const table of ['parts', 'sections']) await run(`vacuum analyze artifacts.listed_repository_${table}`)
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const place = { projectId: 1, path: 'r00001' }
const among = [{ id: 1, name: 'library' }]
const page = (number: number, size = PAGE, writes: Sql = database.db.writes) =>
  repositoryRows({ prisma: database.db.prisma, lists: database.db.lists, writes }, among, {
    page: { number: number + 1, size },
  })
const name = (n: number) => String(n).padStart(5, '0')

type List = {
  of: string
  /** The page behind so many. */
  read: (sql: Sql, skipped: number) => Promise<unknown[] | null>
  given: (skipped: number) => string
  /** Pages of 8 KiB that Postgres looks at. */
  most: number
}
const lists: List[] = [
  {
    of: 'tags list',
    read: (sql, skipped) => tagNames(sql, place, `t${name(skipped)}`, PAGE),
    given: (skipped) => `1, 'r00001', 't${name(skipped)}', ${PAGE}`,
    most: 12,
  },
  {
    of: 'tags list details',
    read: (sql, skipped) => tagDetails(sql, place, `t${name(skipped)}`, PAGE),
    given: (skipped) => `1, 'r00001', 't${name(skipped)}', ${PAGE}`,
    most: 4 * PAGE,
  },
  {
    of: 'catalog page',
    read: (sql, skipped) => cataloguePage(sql, [1], `r${name(skipped)}`, PAGE),
    given: (skipped) => `'{1}', 'r${name(skipped)}', ${PAGE}`,
    most: 4 * PAGE,
  },
  {
    of: 'repositories by name',
    read: async (sql, skipped) => (await page(skipped / PAGE, PAGE, sql)).repositories,
    given: (skipped) => `'{1}', '{library}', ${skipped}, ${PAGE}`,
    most: 15 * PAGE,
  },
]

describe.each(lists)('the statement "$of" of a large list', ({ of, read, given, most }) => {
  it('is planned once for all pages, and reads what one of them has', async () => {
    await database.db.transaction(async (tx) => {
      for (const skipped of [0, 14_800, 0, 100, 7_400, 0, 14_800]) expect(await read(tx, skipped)).toHaveLength(PAGE)
      const plans = statement<{ custom: number }>(
        'plans',
        `select custom_plans::int as custom from pg_prepared_statements where name = $1`,
      )
      // Postgres plans the first five for what they ask, and compares.
      expect(await tx.rows(plans, [of])).toEqual([{ custom: 5 }])
      for (const skipped of [0, 7_400, 14_900]) {
        const explain = statement<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
          `explain ${of} ${skipped}`,
          `explain (analyze, buffers, format json) execute "${of}" (${given(skipped)})`,
        )
        const { Plan } = (await tx.one(explain, []))!['QUERY PLAN'][0]
        expect(Plan['Actual Rows']).toBe(PAGE)
        expect(Plan['Shared Hit Blocks']! + Plan['Shared Read Blocks']!).toBeLessThan(most)
      }
    })
  })
})

describe('a page of the repositories of a large project', () => {
  type Counted = { from_path: string; repositories: number }

  /** Parts and sections say what is there, and each section begins with a part. */
  async function expectCounted() {
    const read = (table: string) =>
      database.db.prisma.$queryRawUnsafe<Counted[]>(
        `select from_path, repositories from artifacts.listed_repository_${table} where project_id = 1 order by from_path`,
      )
    const [parts, sections] = [await read('parts'), await read('sections')]
    const paths = await listed()
    const added = (to: readonly Counted[], all: readonly Counted[]) => {
      const sums = to.map(({ from_path }) => ({ from_path, repositories: 0 }))
      let n = 0
      for (const { from_path, repositories } of all) {
        while (n + 1 < sums.length && sums[n + 1]!.from_path <= from_path) n++
        sums[n]!.repositories += repositories
      }
      return sums
    }
    expect(parts).toEqual(
      added(
        parts,
        paths.map((path) => ({ from_path: path, repositories: 1 })),
      ),
    )
    expect(sections).toEqual(added(sections, parts))
    expect(parts.map(({ from_path }) => from_path)).toEqual(
      expect.arrayContaining(sections.map(({ from_path }) => from_path)),
    )
    return { parts, sections, paths }
  }

  const listed = async () =>
    (
      await database.db.prisma.$queryRaw<{ path: string }[]>`
        select path from artifacts.repositories where deleted_at is null and first_pushed_at is not null order by path collate "C"`
    ).map(({ path }) => path)

  it('costs one statement', async () => {
    expect(await statementsOf(() => page(120))).toHaveLength(1)
  })

  it('counts one part again when a repository came or went', async () => {
    await run(`update artifacts.repositories set first_pushed_at = null where path = 'r00050'`)
    await database.db.transaction(async (tx) => {
      const explain = statement<{ 'QUERY PLAN': [{ Plan: Record<string, number> }] }>(
        'explain recount',
        `explain (analyze, buffers, format json) select artifacts.find_listed_repositories(1, 0)`,
      )
      let read = 0
      // The first time looks into the catalogue, too.
      for (let n = 0; n < 2; n++) {
        await tx.rows(
          statement('touch', `insert into artifacts.repository_changes (project_id, path) values (1, 'r00050')`),
          [],
        )
        const { Plan } = (await tx.one(explain, []))!['QUERY PLAN'][0]
        read = Plan['Shared Hit Blocks']! + Plan['Shared Read Blocks']!
      }
      expect(read).toBeLessThan(200)
    })
    await run(`update artifacts.repositories set first_pushed_at = now() where path = 'r00050'`)
    expect((await page(0)).total).toBe(MANY)
  })

  it('is found by sections, however they grow, shrink, go and are lost', async () => {
    expect((await expectCounted()).sections).toHaveLength(2)
    for (const [change, sections] of [
      // The first part of the second section and all parts before it but one; then that section.
      [`update artifacts.repositories set first_pushed_at = null where path between 'r00300' and 'r10100'`, 2],
      [`update artifacts.repositories set deleted_at = now() where path > 'r10100'`, 1],
      [`update artifacts.repositories set deleted_at = null, first_pushed_at = now()`, 2],
      [`update artifacts.repositories set path = 'a' || path where path < 'r00150' or path > 'r14950'`, 3],
      [
        `insert into artifacts.repositories (id, project_id, path, first_pushed_at) select ${MANY} + n, 1, 'r10200/' || n, now() from generate_series(1, 10500) n`,
        4,
      ],
      [`truncate artifacts.listed_repository_sections`, 3],
      [`truncate artifacts.listed_repository_sections, artifacts.listed_repository_parts`, 3],
    ] as const) {
      await run(change)
      const { total } = await page(0, 1)
      const counted = await expectCounted()
      expect([change, total, counted.sections.length]).toEqual([change, counted.paths.length, sections])
      const edges = [
        0,
        1,
        100,
        ...counted.sections.flatMap(({ from_path }) => {
          const first = counted.paths.findIndex((path) => path >= from_path)
          return [first - 1, first, first + 1]
        }),
        total - 1,
        total,
        total + 1,
      ]
      for (const number of edges.filter((edge) => edge >= 0)) {
        const found = await page(number, 1)
        expect([number, found.total, found.repositories.map((row) => row.name)]).toEqual([
          number,
          total,
          counted.paths.slice(number, number + 1).map((path) => `library/${path}`),
        ])
      }
    }
  })
})
