import { readFileSync } from 'node:fs'
import { ADMIN_PASSWORD } from '@haven/testkit'
import { call } from './http.ts'
import type { Shown } from './judge.ts'
import type { Operation } from './load.ts'
import { CONFIG_DIGEST, MANY } from './rows.ts'
import { sha256 } from './seed.ts'
import { run } from './specials.ts'
import { haven, type Scope, type Subject } from './subjects.ts'
import type { RowId } from './targets.ts'

const statements = readFileSync(new URL('./growth.sql', import.meta.url), 'utf8')
  .replaceAll(/^--.*$/gm, '')
  .split(/;$/m)
  .map((statement) => statement.trim())
  .filter((statement) => statement !== '')

/** Adds rows first to last of everything that growth.sql seeds. */
async function seedRows(subject: Subject, first: number, last: number): Promise<void> {
  for (const statement of statements) {
    const sql = statement.replaceAll(/:(first|last)\b/g, (_, name) => String(name === 'first' ? first : last))
    await unlessDeadlocked(() => subject.installation!.query(sql))
  }
}

/** What counts lists in the background locks the same rows in another order: one of the two is to try again. */
async function unlessDeadlocked(seed: () => Promise<unknown>, tries = 5): Promise<void> {
  try {
    await seed()
  } catch (error) {
    if ((error as { code?: string }).code !== '40P01' || tries === 1) throw error
    await unlessDeadlocked(seed, tries - 1)
  }
}

export const tagName = (n: number) => `t${String(n).padStart(7, '0')}`
export const seedMany = (subject: Subject, count: number) => seedRows(subject, 1, count)

/** Digest of the nth artifact: growth.sql writes the same text. */
const digestOf = (n: number) =>
  `sha256:${sha256(
    `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"${CONFIG_DIGEST}","size":2},"layers":[],"annotations":{"n":"${String(n).padStart(7, '0')}"}}`,
  )}`

const SUBJECT_DIGEST = `sha256:${'5'.repeat(64)}`
const ARTIFACTS = '/api/v2.0/projects/library/repositories/many/artifacts'
const ROWS = '/api/haven/v1/projects/library/repositories/many'
/** As the link to the last page carries it. */
const AT_END = Buffer.from('["-version",true,null]').toString('base64url')
const BASIC = { authorization: `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}` }
const PAGE = 100
/** Of each kind at each size; rows that an earlier size has deleted are left out. */
const DELETED = 100

type Probe = {
  name: string
  scope: Scope
  operation: (size: number, step: number) => Operation
}

const readOf = (paths: readonly string[]): Operation => ({ kind: 'read', method: 'GET', paths, status: 200, bytes: -1 })
const onceOf = (method: 'GET' | 'DELETE', paths: readonly string[]): Operation => ({
  kind: 'read',
  method,
  paths,
  status: method === 'GET' ? 200 : 202,
  bytes: -1,
  once: true,
})
const range = (from: number, count: number) => Array.from({ length: count }, (_, n) => from + n)
const many: Scope = { repositories: [MANY], actions: 'pull,delete' }

/** What each term of a search finds little of and much of, and some together. */
const searches: readonly { what: string; q: (size: number) => string }[] = [
  { what: 'a tag', q: (size) => `tag:${tagName(size / 2)}` },
  { what: 'tags that begin alike', q: () => 'tag:t00005*' },
  { what: 'all tags', q: () => 'tag:t*' },
  { what: 'the beginning of a digest', q: (size) => `digest:${digestOf(size / 2).slice(0, 24)}` },
  { what: 'a repository', q: () => 'repository:library/many' },
  { what: 'repositories that end alike', q: () => 'repository:*ulti' },
  { what: 'a label', q: () => 'label:grown' },
  { what: 'an annotation', q: (size) => `annotation:n=${tagName(size / 2).slice(1)}` },
  { what: 'an annotation of many', q: () => 'annotation:org.example.ring=r7' },
  { what: 'a platform', q: () => 'platform:linux/arm64' },
  { what: 'a platform of nearly all', q: () => 'platform:linux' },
  { what: 'a type', q: () => 'type:chart' },
  { what: 'what was pushed lately', q: () => 'pushed:>-1d' },
  { what: 'what was pushed long ago', q: () => 'pushed:<-7d' },
  { what: 'what was pulled lately', q: () => 'pulled:>-1h' },
  { what: 'what was pulled long ago', q: () => 'pulled:<-7d' },
  { what: 'what nobody pulled', q: () => 'pulled:never' },
  { what: 'what has no tag', q: () => 'is:untagged' },
  { what: 'a word in a tag', q: (size) => tagName(size / 2) },
  { what: 'a word in a repository', q: () => 'many' },
  { what: 'a label and a platform', q: () => 'label:grown platform:linux/arm64' },
  { what: 'an annotation and a platform of many', q: () => 'annotation:org.example.ring=r7 platform:linux' },
  {
    what: 'an annotation and a platform that nothing has both of',
    q: () => 'annotation:org.example.ring=r7 platform:linux/arm64',
  },
  { what: 'a platform without a tag, which few have', q: () => 'platform:linux is:untagged' },
  { what: 'a type of a repository that nobody pulled', q: () => 'type:chart repository:library/many pulled:never' },
]

/** Pages of 15 by number, where such a list is read from. */
const paged = (list: string, path: string): Probe[] =>
  (
    [
      ['first page', () => 1],
      ['middle page', (size) => Math.floor(size / 30)],
      ['last page', (size) => Math.floor((size * 0.99) / 15)],
    ] satisfies [string, (size: number) => number][]
  ).map(([which, page]) => ({
    name: `${list}, ${which} of 15`,
    scope: 'none',
    operation: (size) => readOf([`${path}${path.includes('?') ? '&' : '?'}page=${page(size)}&page_size=15`]),
  }))

const probes: readonly Probe[] = [
  {
    name: 'tags/list?n=100, first page',
    scope: many,
    operation: () => readOf([`/v2/${MANY}/tags/list?n=${PAGE}`]),
  },
  {
    name: 'tags/list?n=100 at 90 %',
    scope: many,
    operation: (size) => readOf([`/v2/${MANY}/tags/list?n=${PAGE}&last=${tagName(size * 0.9 - PAGE)}`]),
  },
  {
    name: '_catalog?n=100, first page',
    scope: 'catalog',
    operation: () => readOf([`/v2/_catalog?n=${PAGE}`]),
  },
  {
    name: '_catalog?n=100 at 90 %',
    scope: 'catalog',
    operation: (size) =>
      readOf([`/v2/_catalog?n=${PAGE}&last=library/catalog/r${String(size * 0.9 - PAGE).padStart(7, '0')}`]),
  },
  {
    name: 'referrers?n=100',
    scope: { repositories: ['library/signed'], actions: 'pull' },
    operation: () => readOf([`/v2/library/signed/referrers/${SUBJECT_DIGEST}?n=${PAGE}`]),
  },
  {
    name: 'manifest by tag, each another one',
    scope: many,
    // Multiples of a prime step through all of them without coming back soon.
    operation: (size) =>
      readOf(range(1, 500).map((n) => `/v2/${MANY}/manifests/${tagName(((n * 7919) % (size / 2)) + size / 2)}`)),
  },
  ...paged('artifacts', ARTIFACTS),
  ...paged('repositories', '/api/v2.0/projects/library/repositories'),
  // Over as many repositories as there are artifacts.
  ...paged('artifacts of a project', '/api/v2.0/projects/library/artifacts'),
  ...paged('artifacts by size', `${ARTIFACTS}?sort=-size`),
  ...[
    ['artifacts without a tag', `${ARTIFACTS}?q=tags%3Dnil&page_size=15`],
    ['artifacts with a tag, the first pushed', `${ARTIFACTS}?q=tags%3D*&sort=push_time&page_size=15`],
    ['artifacts of a type', `${ARTIFACTS}?q=type%3DCHART&page_size=15`],
    ['artifacts with a label', `${ARTIFACTS}?q=labels%3D(1)&page_size=15`],
    ['artifacts, the first pulled', `${ARTIFACTS}?sort=pull_time&page_size=15`],
    ['artifacts of a part of a tag', `${ARTIFACTS}?q=tags%3D~00005&page_size=15`],
    [
      'the newest of each repository',
      `/api/v2.0/projects/library/artifacts?latest_in_repository=true&q=media_type%3D${encodeURIComponent('application/vnd.oci.image.manifest.v1+json')}&page_size=15`,
    ],
    ['repositories, the most pulled', '/api/v2.0/projects/library/repositories?sort=-pull_count&page_size=15'],
    ['repositories, the newest', '/api/v2.0/projects/library/repositories?sort=-creation_time&page_size=15'],
    ['repositories named alike', '/api/v2.0/projects/library/repositories?q=name%3D~r00005&page_size=15'],
    ['repositories all named alike', '/api/v2.0/projects/library/repositories?q=name%3D~r0&page_size=15'],
    ['whole rows of 100 indexes', '/api/haven/v1/projects/library/repositories/multi/artifacts?page_size=100'],
  ].map(([name, path]): Probe => ({ name: name!, scope: 'none', operation: () => readOf([path!]) })),
  {
    name: 'whole rows of 100 tags, first page',
    scope: 'none',
    operation: () => readOf([`${ROWS}/tags?page_size=${PAGE}`]),
  },
  {
    name: 'whole rows of 100 tags, last page',
    scope: 'none',
    operation: () => readOf([`${ROWS}/tags?page_size=${PAGE}&cursor=${AT_END}`]),
  },
  {
    name: 'whole rows of 100 artifacts, first page',
    scope: 'none',
    operation: () => readOf([`${ROWS}/artifacts?page_size=${PAGE}`]),
  },
  ...searches.map(({ what, q }): Probe => ({
    name: `search for ${what}`,
    scope: 'none',
    operation: (size) => readOf([`/api/haven/v1/search/artifacts?q=${encodeURIComponent(q(size))}`]),
  })),
  {
    name: 'DELETE tag',
    scope: many,
    operation: (_, step) =>
      onceOf(
        'DELETE',
        range(1 + step * 2 * DELETED, DELETED).map((n) => `/v2/${MANY}/manifests/${tagName(n)}`),
      ),
  },
  {
    name: 'DELETE manifest',
    scope: many,
    operation: (_, step) =>
      onceOf(
        'DELETE',
        range(1 + (step * 2 + 1) * DELETED, DELETED).map((n) => `/v2/${MANY}/manifests/${digestOf(n)}`),
      ),
  },
]

export type Growth = { sizes: number[]; probes: { name: string; p50Ms: number[]; slope: number }[] }

/** p50 of each probe while everything grows in one Haven, and what the targets ask of it. */
export async function growth(
  sizes: readonly number[],
  say: (text: string) => void,
): Promise<{ growth: Growth; shown: Map<RowId, Shown> }> {
  await using subject = await haven('haven')
  const p50s = new Map<string, number[]>()
  let seeded = 0
  for (const [step, size] of sizes.entries()) {
    say(`growth: ${size}`)
    await seedRows(subject, seeded + 1, size)
    seeded = size
    const asked = probes.map(({ name, scope, operation }) => ({ name, scope, operation: operation(size, step) }))
    // Else the first size would be asked of a process whose code is not compiled yet, and all others look cheap beside it.
    if (step === 0) {
      for (const { scope, operation } of asked) if (repeats(operation)) await p50Of(subject, scope, operation, 0.7)
    }
    for (const { name, scope, operation } of asked) {
      p50s.set(name, [...(p50s.get(name) ?? []), await p50Of(subject, scope, operation, 1.5)])
    }
  }
  const rows = [...p50s].map(([name, p50Ms]) => ({ name, p50Ms, slope: slope(sizes, p50Ms) }))
  return { growth: { sizes: [...sizes], probes: rows }, shown: shownOf(sizes, rows) }
}

const repeats = (operation: Operation) => operation.kind === 'read' && operation.once !== true

/** In ms, of one connection that asks for so many seconds, and for a moment before. @throws when an answer is not 2xx. */
async function p50Of(subject: Subject, scope: Scope, operation: Operation, seconds: number): Promise<number> {
  const asked = scope === 'none' ? { ...subject, headers: async () => BASIC } : subject
  // Whoever asks for a list first waits until all of it is found: that is no page.
  if (scope === 'none' && operation.kind === 'read') {
    await call(subject, 'GET', operation.paths[0]!, { headers: BASIC })
  }
  const load = { operation, connections: 1 }
  if (repeats(operation)) await run(asked, scope, { ...load, seconds: 0.3 })
  return (await run(asked, scope, { ...load, seconds })).p50Ms
}

/** Of the straight line through log size and log time: 0 is flat, 1 grows with the size. */
export function slope(sizes: readonly number[], times: readonly number[]): number {
  const [xs, ys] = [sizes.map(Math.log), times.map(Math.log)]
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const [x, y] = [mean(xs), mean(ys)]
  const above = xs.reduce((sum, each, i) => sum + (each - x) * (ys[i]! - y), 0)
  return above / xs.reduce((sum, each) => sum + (each - x) ** 2, 0)
}

function shownOf(sizes: readonly number[], rows: Growth['probes']): Map<RowId, Shown> {
  const of = (name: string) => {
    const row = rows.find((one) => one.name === name)
    if (!row) throw new Error(`no probe is called ${name}`)
    return row
  }
  const slopeOf = (name: string) => of(name).slope
  const last = (name: string) => of(name).p50Ms.at(-1)! / of(name).p50Ms[0]!
  // Not among the sizes of each run.
  const at = sizes.indexOf(100_000)
  const searched = rows.filter(({ name }) => name.startsWith('search for '))
  const lists = ['artifacts', 'repositories', 'artifacts of a project', 'artifacts by size'].flatMap((list) =>
    ['first', 'middle', 'last'].map((which) => `${list}, ${which} page of 15`),
  )
  const values: [RowId, Record<string, number | undefined>][] = [
    [
      'P12',
      {
        'slope of the first page': slopeOf('artifacts, first page of 15'),
        'slope of the last page': slopeOf('artifacts, last page of 15'),
        'slope of the last page of repositories': slopeOf('repositories, last page of 15'),
        'p50 at 10⁶ by 10³': Math.max(...lists.map(last)),
        'p50 of the slowest search': Math.max(...searched.map(({ p50Ms }) => p50Ms.at(-1)!)),
        'slope of whole rows': slopeOf('whole rows of 100 tags, first page'),
        'slope of the last whole rows': slopeOf('whole rows of 100 tags, last page'),
        'slope of a search': slopeOf('search for a tag'),
      },
    ],
    ['P13 growth', { 'p50 at 10⁶ by 10³': last('tags/list?n=100 at 90 %'), slope: slopeOf('tags/list?n=100 at 90 %') }],
    [
      'P17',
      {
        'p50 of deleting a tag at 10⁵': of('DELETE tag').p50Ms[at],
        'p50 of deleting a manifest at 10⁵': of('DELETE manifest').p50Ms[at],
        'slope of deleting a tag': slopeOf('DELETE tag'),
        'slope of deleting a manifest': slopeOf('DELETE manifest'),
      },
    ],
    [
      'growth',
      {
        'slope of a page of the catalog': slopeOf('_catalog?n=100 at 90 %'),
        'slope of a page of referrers': slopeOf('referrers?n=100'),
        'slope of a manifest by tag': slopeOf('manifest by tag, each another one'),
      },
    ],
  ]
  return new Map(
    values.map(([id, all]) => [
      id,
      {
        values: Object.fromEntries(
          Object.entries(all).filter((entry): entry is [string, number] => entry[1] !== undefined),
        ),
      },
    ]),
  )
}
