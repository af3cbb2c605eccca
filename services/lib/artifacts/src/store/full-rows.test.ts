import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement } from '@haven/db'
import { statementsOf, testDatabase, type TestDatabase } from '@haven/testkit'
import { parseSearch } from '../search-terms.ts'
import { foundPage } from './full-rows.ts'
import type { RowKey } from './row-pages.ts'

let database: TestDatabase
const projects = [{ id: 1, name: 'library' }]
const labels = new Map([
  ['old', [1]],
  ['all', [2]],
  ['rare', [3]],
])

/** More than are looked at near the beginning: the oldest third has a label of its own, so that no page of it is found there. */
beforeAll(async () => {
  database = await testDatabase()
  for (const sql of [
    `insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`,
    `insert into projects.labels (name, scope) values ('old', 'g'), ('all', 'g'), ('rare', 'g')`,
    `insert into artifacts.repositories (project_id, path, first_pushed_at) values (1, 'one', now()), (1, 'two', now())`,
    `insert into artifacts.manifests (repository_id, digest, media_type, kind, type, payload, payload_bytes, total_bytes, annotations, pushed_at)
     select r.id, 'd' || n, '', 'image', case when n % 200 = 0 then 'CHART' else 'IMAGE' end, '', 0, 0, jsonb_build_object('ring', 'r' || n % 3) || case when n <= 10 then '{"first": ""}' else '{}' end::jsonb,
            now() - interval '1 day' + n / 7 * interval '1 second'
       from generate_series(1, 15000) n join artifacts.repositories r on r.path = case when n % 5 = 0 then 'two' else 'one' end
      order by n`,
    `insert into artifacts.artifact_labels (label_id, manifest_id)
     select l.id, m.id from artifacts.manifests m
       join projects.labels l on l.name = 'all' or l.name = 'old' and substr(m.digest, 2)::int <= 5000 or l.name = 'rare' and substr(m.digest, 2)::int % 1000 = 1`,
    'analyze',
  ]) {
    await database.db.writes.rows(statement(`seed ${sql.slice(0, 40)}`, sql), [])
  }
}, 60_000)
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

const artifacts = Array.from({ length: 15_000 }, (_, i) => 15_000 - i)
const searches: Record<string, (n: number) => boolean> = {
  'label:all': () => true,
  'label:rare': (n) => n % 1000 === 1,
  'label:old': (n) => n <= 5000,
  'label:old annotation:ring=r1': (n) => n <= 5000 && n % 3 === 1,
  'label:old type:chart': (n) => n <= 5000 && n % 200 === 0,
  'type:chart': (n) => n % 200 === 0,
  'type:image label:old': (n) => n <= 5000 && n % 200 > 0,
  'type:chart label:all repository:library/two': (n) => n % 200 === 0,
  'label:old repository:library/one': (n) => n <= 5000 && n % 5 > 0,
  'label:all repository:library/t*': (n) => n % 5 === 0,
  'label:old repository:library/*': (n) => n <= 5000,
  'label:all -label:rare pulled:never': (n) => n % 1000 !== 1,
  'annotation:ring=r1 annotation:ring=r2': () => false,
}

type Page = NonNullable<Awaited<ReturnType<typeof foundPage>>>

describe('a page of a search', () => {
  const read = (q: string, size: number, from: RowKey | null, backwards: boolean) =>
    foundPage(
      database.db,
      projects,
      { terms: parseSearch(q, new Date()), labels },
      { descending: true, from, backwards, offset: 0, size },
    )

  it.each(Object.entries(searches))('finds what %s has, wherever it lies', async (q, has) => {
    const all = artifacts.filter(has).map((n) => `d${n}`)
    const first = (await read(q, 40, null, false))!
    expect([first.rows.map(({ digest }) => digest), first.more]).toEqual([all.slice(0, 40), all.length > 40])
    const last = (await read(q, 40, null, true))!
    expect([last.rows.map(({ digest }) => digest), last.more]).toEqual([all.slice(-40), all.length > 40])
    if (!first.more) return
    const next = (await read(q, 40, first.rows.at(-1)!.key, false))!
    expect(next.rows.map(({ digest }) => digest)).toEqual(all.slice(40, 80))
    const back = (await read(q, 30, next.rows[0]!.key, true))!
    expect(back.rows.map(({ digest }) => digest)).toEqual(all.slice(10, 40))
  })

  it('stops where it has looked at very many, and goes on from there', async () => {
    for (const backwards of [false, true]) {
      const found: string[] = []
      const sizes: number[] = []
      for (let from: RowKey | null = null, more = true; more;) {
        const page: Page = (await read('annotation:first', 40, from, backwards))!
        found.push(...page.rows.map(({ digest }) => digest))
        sizes.push(page.rows.length)
        expect(page.more).toBe(page.stopped !== null)
        ;({ more, stopped: from } = page)
      }
      expect(found).toEqual(artifacts.filter((n) => n <= 10).map((n) => `d${n}`))
      expect(sizes).toEqual(backwards ? [10, 0, 0] : [0, 0, 10])
    }
  })

  it('takes one statement for one term, three at most for several', async () => {
    const counts: number[] = []
    for (const q of Object.keys(searches)) counts.push((await statementsOf(() => read(q, 40, null, false))).length)
    expect(Math.max(...counts)).toBe(3)
    expect(counts.slice(0, 2)).toEqual([1, 1])
  })
})
