import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { statement } from '@haven/db'
import { digestOf } from '@haven/oci'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { parseSearch } from '../search-terms.ts'
import { foundArtifacts } from './found-artifacts.ts'
import { artifactPage, foundPage } from './full-rows.ts'
import type { RowKey, RowPage } from './row-pages.ts'

let database: TestDatabase
const labels = new Map([
  ['red', [1]],
  ['blue', [2]],
  // Of the installation and of the project.
  ['both', [1, 2]],
  ['none', []],
])

beforeAll(async () => {
  database = await testDatabase()
  await run(`insert into projects.projects (id, name, name_key, owner_id) values (1, 'library', 'library', 1)`)
  await run(`insert into projects.labels (id, name, scope) values (1, 'red', 'g'), (2, 'blue', 'g')`)
  await run(
    `insert into artifacts.repositories (project_id, path, first_pushed_at) values (1, 'one', now()), (1, 'two', now())`,
  )
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})
const run = (sql: string, values: unknown[] = []) =>
  database.db.writes.rows(statement(digestOf(Buffer.from(sql)).slice(-32), sql), values)

type Artifact = {
  id: number
  path: string
  os: string | null
  children: readonly string[]
  annotations: Record<string, string>
  labels: Set<string>
  deleted: boolean
  subject: boolean
}

/** Numbers that are the same in each run. */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ;) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    yield state / 2 ** 31
  }
}

describe('lines of search terms', () => {
  it.each([1, 2, 3])('find what artifacts have after any changes, and nothing else (%d)', async (seed) => {
    await run('delete from artifacts.manifests')
    expect(await run('select from artifacts.search_terms')).toEqual([])
    const random = numbers(seed)
    const below = (n: number) => Math.floor(random.next().value * n)
    const all: Artifact[] = []
    let pushed = 0
    const some = (having: (one: Artifact) => boolean) => {
      const those = all.filter(having)
      return those.length > 0 ? those[below(those.length)]! : null
    }
    const push = async () => {
      const children = below(3) === 0 ? ['amd64', 'arm64'].slice(below(2)) : []
      // The last has more than lines are written for.
      const annotations = [{}, { ring: 'r1' }, { ring: 'r2', team: 'a' }, { ring: 'r1', long: 'x'.repeat(5000) }][
        below(4)
      ]!
      const path = ['one', 'two'][below(2)]!
      const [row] = (await run(
        `with put as (
           insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes, annotations, pushed_at)
           select id, $1, '', $2, '', 0, 0, $3::jsonb, now() - $4 * interval '1 second' from artifacts.repositories where path = $5
           returning id, repository_id),
         edges as (
           insert into artifacts.manifest_edges (manifest_id, position, repository_id, kind, digest, media_type, size_bytes, platform, urls)
           select put.id, n, repository_id, 'child', 'c' || n, '', 0, jsonb_build_object('os', 'linux', 'architecture', a), '{}'
             from put, unnest($6::text[]) with ordinality c (a, n))
         select id::float8 as id from put`,
        [
          `d${pushed++}`,
          children.length > 0 ? 'index' : 'image',
          JSON.stringify(annotations),
          below(5),
          path,
          children,
        ],
      )) as [{ id: number }]
      all.push({ id: row.id, path, os: null, children, annotations, labels: new Set(), deleted: false, subject: false })
    }
    const changes = [
      push,
      push,
      async () => {
        const one = some(({ deleted }) => !deleted)
        if (!one) return
        one.os = ['linux', 'windows', null][below(3)]!
        const facts =
          one.os === null ? {} : { attributes: { os: one.os, ...(one.os === 'linux' && { architecture: 'arm64' }) } }
        await run('update artifacts.manifests set facts = $2::jsonb where id = $1', [one.id, JSON.stringify(facts)])
      },
      async () => {
        const one = some(({ deleted }) => !deleted)
        const label = ['red', 'blue'][below(2)]!
        if (!one || one.labels.has(label)) return
        one.labels.add(label)
        await run('insert into artifacts.artifact_labels (label_id, manifest_id) values ($1, $2)', [
          labels.get(label)![0],
          one.id,
        ])
      },
      async () => {
        const one = some((each) => each.labels.size > 0)
        if (!one) return
        const [label] = one.labels
        one.labels.delete(label!)
        await run('delete from artifacts.artifact_labels where label_id = $1 and manifest_id = $2', [
          labels.get(label!)![0],
          one.id,
        ])
      },
      async () => {
        const one = some(({ deleted }) => !deleted)
        if (!one) return
        one.deleted = true
        await run('update artifacts.manifests set deleted_at = now() where id = $1', [one.id])
      },
      async () => {
        const one = some(({ deleted }) => deleted)
        if (!one) return
        one.deleted = false
        // Pushed again, or restored.
        const time = below(2) === 0 ? 'now()' : 'pushed_at'
        await run(`update artifacts.manifests set deleted_at = null, pushed_at = ${time} where id = $1`, [one.id])
      },
      async () => {
        const one = some(() => true)
        if (!one) return
        one.subject = !one.subject
        await run('update artifacts.manifests set subject_digest = $2 where id = $1', [
          one.id,
          one.subject ? 's' : null,
        ])
      },
      async () => {
        const one = below(3) === 0 ? some(() => true) : null
        if (!one) return
        all.splice(all.indexOf(one), 1)
        await run('delete from artifacts.manifests where id = $1', [one.id])
      },
    ]
    for (let i = 0; i < 120; i++) await changes[below(changes.length)]!()

    const platforms = ({ os, children }: Artifact) => [
      ...(os === null ? [] : [os, ...(os === 'linux' ? ['linux/arm64'] : [])]),
      ...children.flatMap((architecture) => ['linux', `linux/${architecture}`]),
    ]
    const has: Record<string, (one: Artifact) => boolean> = {
      'label:red': (one) => one.labels.has('red'),
      'label:both': (one) => one.labels.size > 0,
      'label:none': () => false,
      'annotation:ring=r1': (one) => one.annotations.ring === 'r1',
      'platform:linux': (one) => platforms(one).includes('linux'),
      'platform:linux/arm64': (one) => platforms(one).includes('linux/arm64'),
      'platform:windows': (one) => platforms(one).includes('windows'),
    }
    const searches = Object.keys(has).flatMap((a) => Object.keys(has).map((b) => (a === b ? [a] : [a, b])))
    const keyset = { descending: true, from: null, backwards: false, offset: 0, size: 100 }
    const project = { id: 1, name: 'library' }
    const idsOf = (rows: readonly { id: number }[]) => rows.map(({ id }) => id).toSorted((a, b) => a - b)
    for (const terms of searches) {
      const search = { terms: parseSearch(terms.join(' '), new Date()), labels }
      const expected = all.filter((one) => !one.deleted && !one.subject && terms.every((term) => has[term]!(one)))
      const page = await foundPage(database.db, [project], search, keyset)
      expect([terms, idsOf(page!.rows)]).toEqual([terms, idsOf(expected)])
      const inOne = expected.filter(({ path }) => path === 'one')
      const walked: { id: number }[] = []
      for (let from: RowKey | null = null, more = true; more;) {
        const two: RowPage<{ id: number }> = (await artifactPage(database.db, { project, path: 'one' }, search, {
          ...keyset,
          from,
          size: 2,
        }))!
        walked.push(...two.rows)
        ;({ more } = two)
        from = two.rows.at(-1)?.key ?? null
        if (walked.length > 0) expect([terms, two.total]).toEqual([terms, inOne.length])
      }
      expect([terms, idsOf(walked)]).toEqual([terms, idsOf(inOne)])
      const at = { pushedUntil: new Date(), below: null, limit: 100 }
      const selected = await foundArtifacts(database.db, { ...search, among: [project] }, at)
      expect([terms, selected.map(({ id }) => id)]).toEqual([terms, idsOf(expected).toReversed()])
    }
  })
})
