import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement, type Condition, type Sql } from '@haven/db'
import { digestOf } from '@haven/oci'
import { noticesOf, statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import { artifactRows, type ArtifactQuery } from './artifact-rows.ts'
import { foldListings } from './listings.ts'
import { repositoryRows } from './repository-rows.ts'

let database: TestDatabase
const project = { id: 1, name: 'library' }
const path = 'app'
let repository: number

beforeAll(async () => {
  database = await testDatabase()
  await run(`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`)
  const made = await run(
    `insert into artifacts.repositories (project_id, path, first_pushed_at) values (1, 'app', now()) returning id`,
  )
  repository = made[0]!.id
  await run(
    `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes, pushed_at)
     select $1, 'd' || n, '', 'image', '', 0, 0, now() - interval '1 day' + n % 900 * interval '1 second' from generate_series(1, 2500) n`,
    [repository],
  )
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

type Row = Record<string, any>
const run = (sql: string, values: unknown[] = [], on: Sql = database.db.writes): Promise<Row[]> =>
  on.rows<Row>(statement(digestOf(Buffer.from(sql)).slice(-32), sql), values)

/** A transaction that stays open until it is told to commit. */
async function open(): Promise<{ tx: Sql; commit: () => Promise<void> }> {
  const begun = Promise.withResolvers<Sql>()
  const asked = Promise.withResolvers<void>()
  const done = database.db.transaction(async (tx) => {
    begun.resolve(tx)
    await asked.promise
  })
  const commit = () => {
    asked.resolve()
    return done
  }
  return { tx: await begun.promise, commit }
}

const page = (number: number, size: number, asked: Omit<ArtifactQuery, 'page'> = {}) =>
  artifactRows(database.db, { project, path }, { ...asked, page: { number, size } })

type ListedRow = { digest: string; tagged: boolean; pushed_at: Date }

/** What a repository lists, by the words of the rule. */
const expected = async (): Promise<string[]> => (await expectedRows()).map(({ digest }) => digest)
const expectedRows = async (): Promise<ListedRow[]> =>
  (await run(
    `with alive as (select * from artifacts.manifests where repository_id = $1 and deleted_at is null),
            children as (select digest from artifacts.manifest_edges where kind = 'child' and manifest_id in (select id from alive))
       select digest, pushed_at, id in (select manifest_id from artifacts.tags) as tagged from alive
        where subject_digest is null
          and (digest not in (select digest from children) or id in (select manifest_id from artifacts.tags))
        order by pushed_at desc, id desc`,
    [repository],
  )) as ListedRow[]

/** Lists that are read by the same parts, and which rows each has. */
function askedOf(list: readonly ListedRow[]): { asked: Omit<ArtifactQuery, 'page'>; rows: ListedRow[] }[] {
  const tags = (value: string): Condition => ({ field: 'tags', match: 'exact', value })
  const [early, late] = [list.at(-Math.ceil(list.length / 3))!.pushed_at, list[Math.floor(list.length / 5)]!.pushed_at]
  const between = (exclusive: boolean): Condition => ({
    field: 'push_time',
    match: 'range',
    min: early,
    max: late,
    exclusive,
  })
  const sort = [{ field: 'push_time', descending: false }]
  const inside = list.filter((row) => row.pushed_at > early && row.pushed_at < late)
  const within = list.filter((row) => row.pushed_at >= early && row.pushed_at <= late)
  const tagged = (rows: ListedRow[]) => rows.filter((row) => row.tagged)
  return [
    { asked: { conditions: [tags('*')] }, rows: tagged([...list]) },
    { asked: { conditions: [tags('nil')] }, rows: list.filter((row) => !row.tagged) },
    { asked: { sort }, rows: list.toReversed() },
    {
      asked: { sort: [{ field: 'digest', descending: false }] },
      rows: list.toSorted((a, b) => (a.digest < b.digest ? -1 : 1)),
    },
    { asked: { conditions: [between(true)] }, rows: inside },
    {
      asked: { conditions: [between(false), tags('nil')], sort },
      rows: within.filter((row) => !row.tagged).toReversed(),
    },
    {
      asked: { conditions: [{ field: 'push_time', match: 'range', min: late }, tags('*')] },
      rows: tagged(list.filter((row) => row.pushed_at >= late)),
    },
    {
      asked: { conditions: [{ field: 'push_time', match: 'range', max: early }], sort },
      rows: list.filter((row) => row.pushed_at <= early).toReversed(),
    },
  ]
}

async function expectAsked(list: readonly ListedRow[]) {
  for (const { asked, rows } of askedOf(list)) {
    const last = Math.ceil(rows.length / 90)
    for (const number of new Set([1, 2, last || 1, last + 1])) {
      const found = await page(number, 90, asked)
      expect([asked, number, found.total]).toEqual([asked, number, rows.length])
      expect(found.rows.map(({ digest }) => digest)).toEqual(
        rows.slice((number - 1) * 90, number * 90).map(({ digest }) => digest),
      )
    }
  }
}

async function expectRight(sizes: readonly number[]) {
  const whole = await expectedRows()
  await expectAsked(whole)
  const list = whole.map(({ digest }) => digest)
  for (const size of sizes) {
    const last = Math.ceil(list.length / size)
    for (const number of new Set([1, 2, Math.ceil(last / 3), Math.ceil(last / 2), last - 1, last, last + 1])) {
      const { total, rows } = await page(number, size)
      expect([number, size, total]).toEqual([number, size, list.length])
      expect(rows.map(({ digest }) => digest)).toEqual(list.slice((number - 1) * size, number * size))
    }
  }
}

const random = (below: number) => Math.floor(Math.random() * below)
const any = () => `d${1 + random(12) * 200}`
/** What can be done to artifacts, each to some of them. */
const steps: ((tx: Sql, n: string) => Promise<unknown>)[] = [
  (tx) =>
    run(
      "update artifacts.manifests set pushed_at = pushed_at - interval '1 hour' where repository_id = $1 and digest = $2",
      [repository, any()],
      tx,
    ),
  (tx, n) =>
    run(
      `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes) values ($1, $2, '', 'image', '', 0, 0)`,
      [repository, `new${n}`],
      tx,
    ),
  (tx, n) =>
    run(
      `with put as (insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
                    values ($1, $2, '', 'index', '', 0, 0) returning id)
       insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       select put.id, p.n, $1, 'child', p.digest, '', 0 from put, unnest($3::text[]) with ordinality as p (digest, n)`,
      [repository, `index${n}`, [any(), any(), `new${random(160)}-${random(3)}`]],
      tx,
    ),
  (tx) =>
    run(
      `insert into artifacts.tags (repository_id, name, manifest_id) select $1, $2, id from artifacts.manifests
                    where repository_id = $1 and digest = $3 and deleted_at is null on conflict do nothing`,
      [repository, `t${random(8)}`, any()],
      tx,
    ),
  (tx) =>
    run(
      `update artifacts.tags set manifest_id = (select id from artifacts.manifests where repository_id = $1 and digest = $3)
                    where repository_id = $1 and name = $2`,
      [repository, `t${random(8)}`, any()],
      tx,
    ),
  (tx) => run('delete from artifacts.tags where repository_id = $1 and name = $2', [repository, `t${random(8)}`], tx),
  (tx) =>
    run(
      'update artifacts.manifests set deleted_at = now() where repository_id = $1 and digest = $2',
      [repository, any()],
      tx,
    ),
  (tx) =>
    run(
      'update artifacts.manifests set deleted_at = null, pushed_at = now() where repository_id = $1 and digest = $2 and deleted_at is not null',
      [repository, any()],
      tx,
    ),
  (tx) =>
    run(
      `update artifacts.manifests set deleted_at = case when deleted_at is null then now() end
                    where id = (select id from artifacts.manifests where repository_id = $1 and kind = 'index' order by random() limit 1)`,
      [repository],
      tx,
    ),
  (tx) =>
    run(
      'update artifacts.manifests set subject_digest = $3 where repository_id = $1 and digest = $2',
      [repository, any(), random(2) === 0 ? any() : null],
      tx,
    ),
  (tx) =>
    run(
      `delete from artifacts.manifests m where repository_id = $1 and digest = $2 and not exists (select from artifacts.tags where manifest_id = m.id)`,
      [repository, any()],
      tx,
    ),
]

describe('the list of a large repository', () => {
  it('tells each page and how many there are', async () => {
    await expectRight([1, 7, 100])
    const parts = await run(
      'select artifacts from artifacts.listed_parts where repository_id = $1 order by from_at, from_id',
      [repository],
    )
    expect(parts).toEqual(Array.from({ length: 5 }, () => ({ artifacts: 500 })))
  })

  it('is right after each change alone', async () => {
    for (let n = 0; n < 110; n++) {
      await database.db.transaction(async (tx) => steps[n % steps.length]!(tx, `alone-${n}`)).catch(() => undefined)
      const { total } = await page(1, 1)
      expect([n % steps.length, total]).toEqual([n % steps.length, (await expected()).length])
    }
  })

  it('is right whatever transactions did to it side by side', async () => {
    const worker = async (who: number) => {
      for (let n = 0; n < 40; n++) {
        const work = database.db.transaction(async (tx) => {
          for (let step = 0; step < 3; step++) await steps[random(steps.length)]!(tx, `${who * 40 + n}-${step}`)
          if (random(8) === 0) throw new Error('rolled back')
        })
        await work.catch((error: unknown) => expect(String(error)).toMatch(/rolled back|violates/))
        if (n % 5 === who) await page(1 + random(20), 100)
      }
    }
    await Promise.all([0, 1, 2, 3].map(worker))
    await expectRight([13, 100])
  })

  it.each([
    ['the index', 'the child'],
    ['the child', 'the index'],
  ])('knows a child whose index does not see it, when %s is committed before %s', async (first) => {
    const digest = `unseen by ${first}`
    const [child, index] = [await open(), await open()]
    const put = `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
                 values ($1, $2, '', $3, '', 0, 0) returning id`
    await run(put, [repository, digest, 'image'], child.tx)
    const made = await run(put, [repository, `${digest}, its index`, 'index'], index.tx)
    await run(
      `insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       values ($1, 0, $2, 'child', $3, '', 0)`,
      [made[0]!.id, repository, digest],
      index.tx,
    )
    for (const each of first === 'the index' ? [index, child] : [child, index]) {
      await each.commit()
      await expectRight([100])
    }
    expect(await expected()).not.toContain(digest)
  })

  it('knows a tag and an index that came to one artifact side by side', async () => {
    const [tagging, index] = [await open(), await open()]
    const put = `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
                 values ($1, $2, '', $3, '', 0, 0) returning id`
    const child = await run(put, [repository, 'tagged child', 'image'])
    const made = await run(put, [repository, 'its index', 'index'], index.tx)
    await run(
      `insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       values ($1, 0, $2, 'child', 'tagged child', '', 0)`,
      [made[0]!.id, repository],
      index.tx,
    )
    await run(
      `insert into artifacts.tags (repository_id, name, manifest_id) values ($1, 'side', $2)`,
      [repository, child[0]!.id],
      tagging.tx,
    )
    for (const each of [index, tagging]) {
      await each.commit()
      await expectRight([100])
    }
    expect(await expected()).toContain('tagged child')
  })

  it('does not let what was touched pile up where nobody reads', async () => {
    const touched = () => run('select count(*)::int from artifacts.listing_changes')
    await run(
      `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
       select $1, 'more' || n, '', 'image', '', 0, 0 from generate_series(1, 300) n`,
      [repository],
    )
    expect(await touched()).toEqual([{ count: 300 }])
    expect(await foldListings(database.db, new AbortController().signal)).toBe(1)
    expect(await touched()).toEqual([{ count: 0 }])
    await expectRight([100])
  })
})

describe('the count of a large repository', () => {
  it('compares no row with all others although nothing is known of the tables', async () => {
    await using fresh = await testDatabase()
    const plans = await noticesOf(fresh.url, [
      ...['manifests', 'manifest_edges', 'tags'].map(
        (table) => `alter table artifacts.${table} set (autovacuum_enabled = off)`,
      ),
      `insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`,
      `insert into artifacts.repositories (id, project_id, path, first_pushed_at) values (1, 1, 'restored', now())`,
      `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
       select 1, 'd' || n, '', case n % 3 when 0 then 'index' else 'image' end, '', 0, 0 from generate_series(1, 3000) n`,
      `insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       select m.id, 0, 1, 'child', 'd' || right(m.digest, -1)::int - 1, '', 0 from artifacts.manifests m where m.kind = 'index'`,
      `load 'auto_explain'`,
      'set auto_explain.log_min_duration = 0',
      'set auto_explain.log_nested_statements = on',
      'set auto_explain.log_level = notice',
      'select artifacts.total_listed(1)',
    ])
    const whole = plans.filter((plan) => plan.includes('WindowAgg') && plan.includes('manifest_edges'))
    expect(whole.map((plan) => plan.includes('Nested Loop'))).toEqual([false])
    const counted = statement<Row>('counted', 'select artifacts.total_listed(1)::int as total')
    expect(await fresh.db.writes.rows(counted, [])).toEqual([{ total: 2000 }])
  })
})

describe('the list of repositories', () => {
  const projects = [
    { id: 1, name: 'library' },
    { id: 2, name: 'lib-b' },
    { id: 3, name: 'lib' },
  ]

  /** In the order of whole names. */
  const whole = async () =>
    (
      await run(
        `select p.name || '/' || r.path as name
           from unnest($1::int[], $2::text[]) p (id, name) join artifacts.repositories r on r.project_id = p.id
          where r.deleted_at is null and r.first_pushed_at is not null order by (p.name || '/' || r.path) collate "C"`,
        [projects.map(({ id }) => id), projects.map(({ name }) => name)],
      )
    ).map(({ name }) => name)

  async function expectWhole() {
    const list = await whole()
    for (const size of [10, 100]) {
      const last = Math.ceil(list.length / size)
      for (const number of new Set([1, Math.ceil(last / 3), Math.ceil(last / 2), last, last + 1])) {
        const { total, repositories } = await repositoryRows(database.db, projects, { page: { number, size } })
        expect([number, size, total]).toEqual([number, size, list.length])
        expect(repositories.map(({ name }) => name)).toEqual(list.slice((number - 1) * size, number * size))
        const sorted = await repositoryRows(database.db, projects, {
          sort: [{ field: 'id', descending: true }],
          page: { number, size },
        })
        expect(sorted.total).toBe(list.length)
        expect(sorted.repositories.map(({ id }) => id)).toEqual(
          sorted.repositories.map(({ id }) => id).toSorted((a, b) => b - a),
        )
      }
    }
    // Of the first of them by a part of their names, which is remembered from the second time on.
    const some = list.filter((name) => name.startsWith(`${projects[0]!.name}/`) && name.includes('1'))
    const last = Math.ceil(some.length / 10)
    for (const number of [1, 1, last, 1]) {
      const { total, repositories } = await repositoryRows(database.db, projects.slice(0, 1), {
        conditions: [{ field: 'name', match: 'contains', value: '1' }],
        page: { number, size: 10 },
      })
      expect([number, total]).toEqual([number, some.length])
      expect(repositories.map(({ name }) => name)).toEqual(some.slice((number - 1) * 10, number * 10))
    }
  }

  const named = async (
    among: typeof projects,
    condition: Omit<Condition & { match: 'exact' | 'contains' }, 'field'>,
  ) => {
    const { total, repositories } = await repositoryRows(database.db, among, {
      conditions: [{ field: 'name', ...condition }],
      page: { number: 1, size: 100 },
    })
    expect(repositories.length).toBe(Math.min(total, 100))
    return { total, first: repositories[0]?.name }
  }

  it('tells each page of several projects and how many there are, also after they came and went', async () => {
    await run(
      `insert into artifacts.repositories (project_id, path, first_pushed_at)
       select 1 + n % 2, 'r' || n, now() from generate_series(1, 1500) n union all select 3, 'r' || n, now() from generate_series(1, 30) n`,
    )
    await expectWhole()
    for (const change of [
      `delete from artifacts.repositories where project_id = 1 and path like 'r3%'`,
      `update artifacts.repositories set deleted_at = now() where project_id = 2 and path like 'r5%'`,
      `update artifacts.repositories set deleted_at = null, first_pushed_at = null where project_id = 2 and path like 'r51%'`,
      `update artifacts.repositories set first_pushed_at = now() where project_id = 2 and path like 'r511%'`,
      `update artifacts.repositories set path = 'moved/' || path where project_id = 1 and path like 'r7%'`,
      `insert into artifacts.repositories (project_id, path, first_pushed_at) select 1, 'a' || n, now() from generate_series(1, 700) n`,
    ]) {
      await run(change)
      await expectWhole()
    }
    const again = await statementsOf(() => named(projects.slice(0, 1), { match: 'contains', value: '1' }))
    expect(again.filter((text) => text.includes('count(*)'))).toEqual([])
    expect(again).toHaveLength(2)
    const list = await whole()
    for (const [value, has] of [
      ['r49', (name: string) => name.includes('r49')],
      ['B/R49', (name: string) => name.startsWith('lib-b/r49')],
      ['lib', () => true],
      ['nothing', () => false],
    ] as const) {
      const found = list.filter(has)
      expect([value, await named(projects, { match: 'contains', value })]).toEqual([
        value,
        { total: found.length, first: found[0] },
      ])
    }
    expect(await named(projects, { match: 'exact', value: 'lib/r7' })).toEqual({ total: 1, first: 'lib/r7' })
    expect(await named(projects.slice(0, 1), { match: 'exact', value: 'lib/r7' })).toEqual({
      total: 0,
      first: undefined,
    })
    expect(await named(projects.slice(2), { match: 'contains', value: 'r7' })).toEqual({ total: 1, first: 'lib/r7' })
    await run(
      `insert into artifacts.repositories (project_id, path, first_pushed_at) select 2, 'b' || n, now() from generate_series(1, 300) n`,
    )
    const touched = () => run('select count(*)::int from artifacts.repository_changes where project_id = 2')
    expect(await touched()).toEqual([{ count: 300 }])
    await foldListings(database.db, new AbortController().signal)
    expect(await touched()).toEqual([{ count: 0 }])
    await expectWhole()
  })
})
