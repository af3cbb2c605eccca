import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { openDatabase, statement, type Condition, type Database, type Sql } from '@haven/db'
import { digestOf } from '@haven/oci'
import { statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import type { Place } from './artifact-conditions.ts'
import { artifactRows, type ArtifactQuery } from './artifact-rows.ts'
import { foldListings } from './listings.ts'
import { placesOf } from './list-places.ts'

let database: TestDatabase
/** Another process. */
let other: Database
const project = { id: 1, name: 'library' }
const REPOSITORIES = 12

beforeAll(async () => {
  database = await testDatabase()
  other = openDatabase({ url: database.url, applicationName: 'other', poolSize: 2 })
  await run(
    `insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1), (2, 'other', 'other', 1)`,
  )
  await run(
    `insert into artifacts.repositories (id, project_id, path, first_pushed_at)
     select n, case n when 12 then 2 else 1 end, 'r' || n, now() from generate_series(1, ${REPOSITORIES}) n`,
  )
  await run(
    `insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, pushed_at)
     select r.id, 'd' || n, 'm' || n % 2, 'image', case n % 5 when 0 then 'CHART' else 'IMAGE' end, '', 0, n % 7,
            now() - interval '1 day' + n % 400 * interval '1 second'
       from artifacts.repositories r, lateral generate_series(1, case r.id when 1 then 1600 else 60 end) n`,
  )
  await run(`insert into projects.labels (id, name, scope) values (1, 'one', 'g'), (2, 'two', 'g')`)
})
afterAll(async () => {
  await other[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

type Row = Record<string, any>
const run = (sql: string, values: unknown[] = [], on: Sql = database.db.writes): Promise<Row[]> =>
  on.rows<Row>(statement(digestOf(Buffer.from(sql)).slice(-32), sql), values)

type Artifact = {
  id: number
  repository: number
  digest: string
  type: string
  media: string
  size: number
  at: number
  pulled: number | null
  tags: string[]
  labels: number[]
  isChild: boolean
}

/** All that is there, by the words of the rules. */
const alive = async (): Promise<Artifact[]> =>
  (await run(
    `select m.id::int, m.repository_id as repository, m.digest, m.type, m.media_type as media, m.total_bytes::int as size,
            (extract(epoch from m.pushed_at) * 1000)::float8 as at,
            (select (extract(epoch from p.pulled_at) * 1000)::float8 from artifacts.last_pulls p where p.manifest_id = m.id) as pulled,
            array(select t.name from artifacts.tags t where t.manifest_id = m.id) as tags,
            array(select l.label_id from artifacts.artifact_labels l where l.manifest_id = m.id) as labels,
            exists (select from artifacts.manifest_edges e join artifacts.manifests i on i.id = e.manifest_id
                     where i.deleted_at is null and i.repository_id = m.repository_id and e.kind = 'child' and e.digest = m.digest) as "isChild"
       from artifacts.manifests m join artifacts.repositories r on r.id = m.repository_id
      where m.deleted_at is null and m.subject_digest is null and r.deleted_at is null and r.project_id = 1`,
  )) as Artifact[]

const newest = (a: Artifact, b: Artifact) => b.at - a.at || b.id - a.id
/** What nobody pulled comes first. */
const pulledLast = (a: Artifact, b: Artifact) =>
  a.pulled === b.pulled ? 0 : (b.pulled ?? Infinity) - (a.pulled ?? Infinity)
const is = (field: string, value: string): Condition => ({ field, match: 'exact', value })
const one: Place = { project, path: 'r1' }
const sorted = (field: string, descending: boolean) => ({ sort: [{ field, descending }] })
const ofType = { conditions: [is('media_type', 'm1')], latest: true }

type Asked = Omit<ArtifactQuery, 'page'>
type List = [Place, Asked, (all: Artifact[]) => Artifact[]]
const shown = (artifact: Artifact) => !artifact.isChild || artifact.tags.length > 0
const list = (place: Place, asked: Asked, has: (one: Artifact) => boolean, order = newest): List => [
  place,
  asked,
  (all) =>
    all
      .filter((row) => (place.path === undefined || row.repository === 1) && shown(row) && has(row))
      .toSorted((a, b) => order(a, b) || b.id - a.id),
]
const everything = () => true
const lists: List[] = [
  list({ project }, {}, everything),
  list({ project }, { conditions: [is('tags', 'nil')] }, ({ tags }) => tags.length === 0),
  list({ project }, sorted('size', false), everything, (a, b) => a.size - b.size),
  list(one, sorted('size', true), everything, (a, b) => b.size - a.size),
  list(one, sorted('id', false), everything, (a, b) => a.id - b.id),
  list(one, sorted('digest', true), everything, (a, b) => (a.digest < b.digest ? 1 : a.digest > b.digest ? -1 : 0)),
  list(one, sorted('pull_time', true), everything, pulledLast),
  list({ project }, sorted('pull_time', false), everything, (a, b) => pulledLast(b, a)),
  list(
    one,
    { conditions: [{ field: 'pull_time', match: 'range', min: new Date(Date.now() - 60_000) }] },
    ({ pulled }) => pulled !== null,
  ),
  list(one, { conditions: [is('type', 'CHART')] }, ({ type }) => type === 'CHART'),
  list(one, { conditions: [is('manifest_media_type', 'm0')] }, ({ media }) => media === 'm0'),
  list(one, { conditions: [is('tags', 't1')] }, ({ tags }) => tags.includes('t1')),
  list(one, { conditions: [is('digest', 'd200')] }, ({ digest }) => digest === 'd200'),
  list(
    one,
    { conditions: [{ field: 'tags', match: 'contains', value: '1' }], ...sorted('push_time', false) },
    (row) => row.tags.some((name) => name.includes('1')),
    (a, b) => a.at - b.at,
  ),
  list({ project }, { conditions: [{ field: 'labels', match: 'all', values: [1] }] }, ({ labels }) =>
    labels.includes(1),
  ),
  list(
    one,
    { conditions: [{ field: 'labels', match: 'all', values: [1, 2] }, is('type', 'IMAGE')] },
    (row) => row.labels.includes(1) && row.labels.includes(2) && row.type === 'IMAGE',
  ),
  [
    { project },
    ofType,
    (all) => {
      const latest = new Map<number, Artifact>()
      for (const row of all.filter(({ media }) => media === 'm1').toSorted(newest)) {
        if (!latest.has(row.repository)) latest.set(row.repository, row)
      }
      return [...latest.values()]
    },
  ],
]

async function expectRight(on: Database = database.db) {
  const all = await alive()
  for (const [place, asked, of] of lists) {
    const rows = of(all)
    const last = Math.max(1, Math.ceil(rows.length / 20))
    for (const number of new Set([1, Math.ceil(last / 2), last])) {
      const found = await artifactRows(on, place, { ...asked, page: { number, size: 20 } })
      expect([asked, number, found.total]).toEqual([asked, number, rows.length])
      expect([asked, number, found.rows.map(({ id }) => id)]).toEqual([
        asked,
        number,
        rows.slice((number - 1) * 20, number * 20).map(({ id }) => id),
      ])
    }
  }
}

const random = (below: number) => Math.floor(Math.random() * below)
const repository = () => (random(2) === 0 ? 1 : 1 + random(REPOSITORIES))
const digest = () => `d${1 + random(60)}`
const put = `insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes)
             values ($1, $2, $3, $4, $5, '', 0, $6) on conflict do nothing returning id`
const steps: ((tx: Sql, n: string) => Promise<unknown>)[] = [
  (tx, n) =>
    run(put, [repository(), `new${n}`, `m${random(2)}`, 'image', random(2) ? 'CHART' : 'IMAGE', random(9)], tx),
  async (tx, n) => {
    const of = repository()
    const [made] = await run(put, [of, `index${n}`, 'm1', 'index', 'IMAGE', 5], tx)
    await run(
      `insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes)
       select $1, p.n, $2, 'child', p.digest, '', 0 from unnest($3::text[]) with ordinality as p (digest, n)`,
      [made!.id, of, [digest(), `new${random(160)}-${random(3)}`]],
      tx,
    )
  },
  (tx) =>
    run(
      `insert into artifacts.tags (repository_id, name, manifest_id) select $1, $2, id from artifacts.manifests
        where repository_id = $1 and digest = $3 and deleted_at is null
       on conflict (repository_id, name) do update set manifest_id = excluded.manifest_id`,
      [repository(), `t${random(8)}`, digest()],
      tx,
    ),
  (tx) => run('delete from artifacts.tags where repository_id = $1 and name = $2', [repository(), `t${random(8)}`], tx),
  (tx) =>
    run(
      `update artifacts.manifests set deleted_at = case when deleted_at is null then now() end, pushed_at = now()
        where repository_id = $1 and digest = $2`,
      [repository(), digest()],
      tx,
    ),
  (tx) =>
    run(
      'update artifacts.manifests set subject_digest = $3 where repository_id = $1 and digest = $2',
      [repository(), digest(), random(2) === 0 ? 'd1' : null],
      tx,
    ),
  (tx) =>
    run(
      `delete from artifacts.manifests m where repository_id = $1 and digest = $2 and not exists (select from artifacts.tags where manifest_id = m.id)`,
      [repository(), digest()],
      tx,
    ),
  (tx) =>
    run(
      `insert into artifacts.artifact_labels (label_id, manifest_id) select $3, id from artifacts.manifests
        where repository_id = $1 and digest = $2 on conflict do nothing`,
      [repository(), digest(), 1 + random(2)],
      tx,
    ),
  (tx) =>
    run(
      'update artifacts.manifests set media_type = $3, total_bytes = $4 where repository_id = $1 and digest = $2',
      [repository(), digest(), `m${random(2)}`, random(7)],
      tx,
    ),
  (tx) =>
    run(
      `insert into artifacts.last_pulls (manifest_id, pulled_at, pulled_day)
       select id, now(), (now() at time zone 'UTC')::date from artifacts.manifests where repository_id = $1 and digest = any($2) and deleted_at is null
       on conflict (manifest_id) do update set pulled_at = excluded.pulled_at, pulled_day = excluded.pulled_day`,
      [repository(), [digest(), digest(), digest()]],
      tx,
    ),
  (tx) =>
    run(
      `delete from artifacts.artifact_labels where label_id = $3
          and manifest_id = (select id from artifacts.manifests where repository_id = $1 and digest = $2)`,
      [repository(), digest(), 1 + random(2)],
      tx,
    ),
]

const count = async (place: Place, asked: Asked, number = 1): Promise<number> =>
  (await statementsOf(() => artifactRows(database.db, place, { ...asked, page: { number, size: 20 } }))).filter(
    (text) => !/^(begin|commit|set transaction)/i.test(text),
  ).length

describe('a list of artifacts that is remembered', () => {
  it('has the right pages and their number', async () => {
    await expectRight()
    await expectRight()
    await expectRight(other)
  })

  it('shows each change at once, in every process', async () => {
    for (let n = 0; n < 2 * steps.length; n++) {
      await database.db.transaction(async (tx) => steps[n % steps.length]!(tx, `alone-${n}`))
      await expectRight(n % 2 === 0 ? database.db : other)
    }
  })

  it('R8: is right whatever transactions did side by side, in whatever order they ended', async () => {
    const worker = async (who: number) => {
      for (let n = 0; n < 30; n++) {
        const work = database.db.transaction(async (tx) => {
          for (let step = 0; step < 3; step++) await steps[random(steps.length)]!(tx, `${who * 30 + n}-${step}`)
          if (random(8) === 0) throw new Error('rolled back')
        })
        await work.catch((error: unknown) => expect(String(error)).toMatch(/rolled back|violates/))
        const [place, asked] = lists[random(lists.length)]!
        await artifactRows(n % 2 === 0 ? database.db : other, place, { ...asked, page: { number: 1, size: 20 } })
      }
    }
    await Promise.all([0, 1, 2].map(worker))
    await expectRight()
    await expectRight(other)
  })

  it('costs two statements, and with what was touched a few that do not grow', async () => {
    const [place, asked] = lists[2]!
    await artifactRows(database.db, place, { ...asked, page: { number: 1, size: 20 } })
    for (const number of [1, 50, 100]) expect(await count(place, asked, number)).toBe(2)
    for (const many of [1, 100]) {
      await run(
        `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
         select 3, 'touched ' || $1::int || ' ' || n, '', 'image', '', 0, n % 5 from generate_series(1, $1::int) n`,
        [many],
      )
      const statements = await count(place, asked)
      expect([many, statements > 2, statements <= 8]).toEqual([many, true, true])
      expect(await count(place, asked)).toBe(2)
    }
    const byPulls = sorted('pull_time', true)
    await artifactRows(database.db, one, { ...byPulls, page: { number: 1, size: 20 } })
    expect(await count(one, byPulls)).toBe(2)
    await run(
      `insert into artifacts.last_pulls (manifest_id, pulled_at, pulled_day)
       select max(id), now(), (now() at time zone 'UTC')::date from artifacts.manifests where repository_id = 1 and deleted_at is null
       on conflict (manifest_id) do update set pulled_at = excluded.pulled_at`,
    )
    expect(await count(one, byPulls)).toBeGreaterThan(2)
    // Told once, however lately it was.
    expect(await count(one, byPulls)).toBe(2)
    await expectRight()
  })

  it('is found once for all who ask at the same time', async () => {
    const [place, asked] = lists[0]!
    database.db.lists.forget()
    const texts = await statementsOf(() =>
      Promise.all(
        [1, 2, 3, 4].map((number) => artifactRows(database.db, place, { ...asked, page: { number, size: 20 } })),
      ),
    )
    expect(texts.filter((text) => text.includes('int4send'))).toHaveLength(1)
  })

  it('follows repositories that go and come back, and labels that many had', async () => {
    await run(
      `insert into artifacts.artifact_labels (label_id, manifest_id) select 2, id from artifacts.manifests on conflict do nothing`,
    )
    await expectRight()
    await run('delete from artifacts.artifact_labels where label_id = 2')
    await run('update artifacts.repositories set deleted_at = now() where id = 5')
    await expectRight()
    await run(`update artifacts.repositories set deleted_at = null, path = 'again' where id = 5`)
    await expectRight()
    await run('update artifacts.repositories set project_id = 2 where id = 6')
    await expectRight()
    await run('update artifacts.repositories set project_id = 1 where id = 12')
    await expectRight()
    await run('delete from artifacts.tags where repository_id = 7')
    await run('delete from artifacts.repositories where id = 7')
    await expectRight()
  })

  it('is found anew where more was touched than is told, and when what tells of it was lost', async () => {
    await run(
      `insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
       select 1, 'more' || n, 'm1', 'image', '', 0, 0 from generate_series(1, 900) n`,
    )
    await expectRight()
    await run(`insert into artifacts.listing_log (repository_id, digest) select 12, 'x' from generate_series(1, 25000)`)
    await run(`delete from artifacts.manifests where digest = 'more1'`)
    // What a transaction that still runs, of whatever database of the server, may not see is told for longer.
    do await foldListings(database.db, new AbortController().signal)
    while ((await run('select count(*)::int from artifacts.listing_log'))[0]!.count > 20_000)
    await expectRight()
    await expectRight(other)
    // As a crash of the server leaves it.
    await run(`delete from artifacts.manifests where digest = 'more2'`)
    await run(
      'truncate artifacts.listing_changes, artifacts.listed_parts, artifacts.listing_log, artifacts.listing_epoch',
    )
    await expectRight()
  })
})

describe('placesOf', () => {
  it('finds where each belongs among those that stay', async () => {
    for (let n = 0; n < 300; n++) {
      const size = random(4) === 0 ? random(4) : random(5_000)
      const keys = Int32Array.from({ length: size }, (_, at) => at * 3)
      const gone = new Set([...keys].filter(() => random(3) === 0))
      const entering = [...new Set(Array.from({ length: random(8) }, () => random(size * 3 + 10) - 5))]
        .filter((key) => gone.has(key) || key < 0 || key % 3 !== 0 || key >= size * 3)
        .toSorted((a, b) => a - b)
      const places = await placesOf(keys, gone, entering, async (among) => among.toSorted((a, b) => a - b))
      expect(places).toHaveLength(entering.length)
      for (const [i, place] of places!.entries()) {
        const staying = (key: number) => !gone.has(key)
        expect(
          keys
            .subarray(0, place)
            .filter(staying)
            .every((key) => key < entering[i]!),
        ).toBe(true)
        expect(
          keys
            .subarray(place)
            .filter(staying)
            .every((key) => key > entering[i]!),
        ).toBe(true)
      }
    }
    expect(await placesOf(Int32Array.of(1, 2, 3), new Set(), [9], async () => [1, 9])).toBeNull()
  })
})
