import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { versionKey } from '@haven/oci'
import type { HavenSchemas } from '@haven/proto'
import { contentOf, type Content } from './content.ts'
import { startCore, type Credentials, type Reply, type TestCore } from './harness.ts'

let core: TestCore
let content: Content
let owner: Credentials
let stranger: Credentials

beforeAll(async () => {
  core = await startCore()
  content = contentOf(core)
  owner = await core.user('owner')
  stranger = await core.user('stranger')
  await core.project('shop', owner)
  await core.project('open', owner, { metadata: { public: 'true' } })
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const haven = (path: string, as: Credentials = owner) => core.send('GET', `/api/haven/v1${path}`, { as })
const link = ({ headers }: Reply, rel: string) =>
  new RegExp(`<([^>]+)>; rel="${rel}"`).exec(headers.get('link') ?? '')?.[1] ?? null

/** All rows from a first page on, as its links lead. */
async function walk<Row>(path: string, rel = 'next'): Promise<Row[]> {
  const rows: Row[] = []
  for (let at: string | null = path; at !== null;) {
    const reply: Reply = await core.send('GET', at, { as: owner })
    expect(reply.status).toBe(200)
    const page = reply.body as Row[]
    rows.push(...(rel === 'prev' ? page.toReversed() : page))
    at = link(reply, rel)
  }
  return rows
}

describe('the history of a tag', () => {
  const HISTORY = '/projects/shop/repositories/deep%252Fapp/tags/latest/history'
  let [first, second] = ['', '']
  beforeAll(async () => {
    first = await content.push('shop/deep/app', 'latest', { config: { n: 1 } })
    second = await content.push('shop/deep/app', 'latest', { config: { n: 2 } })
    await content.push('shop/deep/app', 'latest', { config: { n: 2 } }) // the same again is no change
    await core.send('DELETE', '/api/v2.0/projects/shop/repositories/deep%252Fapp/artifacts/latest/tags/latest', {
      as: owner,
    })
  })

  it('tells who moved it, from what to what, by which door, the latest change first', async () => {
    const by = { at: expect.any(String), requestId: expect.any(String) }
    expect((await haven(HISTORY)).body).toEqual([
      { ...by, from: second, door: 'api', by: 'owner', because: 'deleted', restorableUntil: expect.any(String) },
      { ...by, from: first, to: second, door: 'registry', by: 'admin' },
      { ...by, to: first, door: 'registry', by: 'admin' },
    ])
  })

  it('goes on over pages', async () => {
    const whole = (await haven(HISTORY)).body
    expect(await walk(`/api/haven/v1${HISTORY}?page_size=1`)).toEqual(whole)
  })

  it('remembers a tag that went with its artifact or its repository', async () => {
    await content.push('shop/deep/two', 'a')
    await core.send('DELETE', '/api/v2.0/projects/shop/repositories/deep%252Ftwo/artifacts/a', { as: owner })
    await content.push('shop/deep/two', 'b')
    await core.send('DELETE', '/api/v2.0/projects/shop/repositories/deep%252Ftwo', { as: owner })
    for (const [tag, because] of [
      ['a', 'deleted'],
      ['b', 'its repository was deleted'],
    ]) {
      const { body } = await haven(`/projects/shop/repositories/deep%252Ftwo/tags/${tag}/history`)
      expect(body).toMatchObject([{ because, by: 'owner' }, { door: 'registry' }])
    }
  })

  it('is 404 for a tag that never was, and for another cursor than its own a refusal', async () => {
    expect((await haven('/projects/shop/repositories/deep%252Fapp/tags/never/history')).status).toBe(404)
    for (const cursor of ['x', Buffer.from('["history",false,["x"]]').toString('base64url')]) {
      expect((await haven(`${HISTORY}?cursor=${cursor}`)).status).toBe(400)
    }
  })

  it('names nobody to those who only see a public project', async () => {
    await content.push('open/app', 'v1')
    const path = '/projects/open/repositories/app/tags/v1/history'
    for (const who of [stranger, null]) expect((await haven(path, who)).text).not.toContain('admin')
    expect((await haven(path)).text).toContain('admin')
    expect((await haven(HISTORY, stranger)).status).toBe(403)
  })
})

describe('the order of versions', () => {
  const tags = [
    ...['latest', 'v1.10.0', 'v1.9.3', 'v1.9.3-rc.1', 'v1.9.3-rc.10', 'v1.9.3-rc.2', '1.9', '1.9.0', 'v1.9', '01', '1'],
    ...['1.0.0-1', '1.0.0-alpha', '1.0.0-alpha.1', '1.0.0-beta', '1.0.0', '1.0.0_build.5', '1.2.3.4', '1.2.3.5'],
    ...[
      'build-9',
      'build-10',
      'a',
      'a1',
      'a1b',
      'a-1',
      'ab',
      'A',
      '_',
      '1-',
      '1-0',
      '1.0.0-00',
      '1.0.0-0',
      '1.0.0-a..b',
    ],
    ...[
      '20240101123456789012',
      '20240101123456789013',
      'release-1.9-x',
      'release-1.10-x',
      '1'.repeat(31),
      'a'.repeat(128),
    ],
    ...[
      '1.0.0-0a',
      '1.0.0-a0',
      '1.0.0-a00',
      '1.0.0-a.b',
      '1.0.0-a-b',
      'v',
      'v0',
      '0',
      '00',
      '0.0.0.0',
      'a01',
      'a001b',
      '1.0-rc1',
      '1.0-rc01',
    ],
  ]

  it('is the one of versionKey, as Postgres would make it for a process of the version before', async () => {
    const letters = ['0', '1', '9', '00', 'a', 'b', 'rc', 'v', '.', '-', '_', 'A']
    let seed = 7
    const random = (n: number) => (seed = (seed * 48271) % 2147483647) % n
    const made = Array.from({ length: 1500 }, () =>
      Array.from({ length: 1 + random(8) }, () => letters[random(letters.length)]).join(''),
    )
    const all = [...new Set([...tags, ...made])]
    const rows = await core.db.prisma.$queryRaw<{ name: string; key: string }[]>`
      select name, artifacts.version_key(name) as key from unnest(${all}::text[]) name`
    expect(rows.map(({ key }) => key)).toEqual(rows.map(({ name }) => versionKey(name)))
  })

  it('sorts the tags of an artifact in Harbor’s list', async () => {
    await content.push('shop/sorted', 'seed', { config: { n: 0 } })
    for (const tag of ['v1.10', 'v1.9', 'v1.9-rc.1', 'latest'])
      await content.push('shop/sorted', tag, { config: { n: 0 }, layer: Buffer.from('layer of shop/sorted:seed') })
    const list = async (sort: string) => {
      const path = `/api/v2.0/projects/shop/repositories/sorted/artifacts/seed/tags?sort=${sort}`
      return ((await core.send('GET', path, { as: owner })).body as { name: string }[]).map(({ name }) => name)
    }
    const upwards = ['latest', 'seed', 'v1.9-rc.1', 'v1.9', 'v1.10']
    expect(await list('version')).toEqual(upwards)
    expect(await list('-version')).toEqual(upwards.toReversed())
  })
})

describe('what a deletion takes', () => {
  const AT = '/projects/shop/repositories/multi'
  const preview = (reference: string, as?: Credentials) => haven(`${AT}/artifacts/${reference}/deletion`, as)
  const shared = Buffer.alloc(5000, 1)
  let children: string[]
  let index = ''
  let signature = ''
  beforeAll(async () => {
    const of = (n: number) => content.push('shop/multi', n === 1 ? 'arm' : '', { config: { multi: n }, layer: shared })
    children = [await of(0), await of(1), await of(2)]
    index = await content.pushIndex('shop/multi', 'latest', children as never)
    await content.pushIndex('shop/multi', 'other', [children[2]] as never)
    const subject = { mediaType: 'application/vnd.oci.image.index.v1+json', digest: index, size: 1 }
    signature = await content.push('shop/multi', 'sig', { config: { multi: 3 }, more: { subject } })
  })

  it('is what only it keeps; a tag, another index or another subject keeps the rest', async () => {
    const { body } = await preview('latest')
    expect(body).toMatchObject({ allowed: true, blockers: [], truncated: false })
    const { goes, stays, freedBytes, sharedBytes, totalBytes } = body as HavenSchemas['DeletionPreview']
    expect(goes).toMatchObject([
      { digest: index, role: 'artifact', tags: ['latest'], type: 'IMAGE' },
      { digest: signature, role: 'accessory', tags: ['sig'] },
      { digest: children[0], role: 'child', tags: [] },
    ])
    expect(new Map(stays.map((each) => [each.digest, each]))).toEqual(
      new Map([
        [children[1], { digest: children[1], type: 'IMAGE', tags: ['arm'] }],
        [children[2], { digest: children[2], type: 'IMAGE', index: expect.any(String) }],
      ]),
    )
    expect([sharedBytes, totalBytes]).toEqual([5000, 5000 + freedBytes])
  })

  it('is refused while an index names it or a rule protects a tag of it, and says so', async () => {
    const child = (await preview(children[0]!)).body
    expect(child).toMatchObject({ allowed: false, blockers: [{ kind: 'index', digest: index }] })
    const rule = await core.send('POST', '/api/v2.0/projects/shop/immutabletagrules', {
      as: owner,
      body: {
        template: 'immutable_template',
        action: 'immutable',
        tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: 'sig' }],
        scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: 'multi' }] },
      },
    })
    expect((await preview('latest')).body).toMatchObject({
      allowed: false,
      blockers: [{ kind: 'immutable', tag: 'sig', messages: [expect.stringContaining('sig')] }],
    })
    expect((await core.send('DELETE', `/api/v2.0${AT}/artifacts/latest`, { as: owner })).status).toBe(412)
    await core.send('DELETE', rule.headers.get('location')!, { as: owner })
  })

  it('is nothing that others may ask, nor of what is not there', async () => {
    expect((await preview('latest', stranger)).status).toBe(403)
    expect((await preview('never')).status).toBe(404)
  })
})

describe('the size of a project and its repositories', () => {
  it('counts each content once and says what is shared', async () => {
    await core.project('sized', owner)
    const layer = Buffer.alloc(7000, 7)
    await content.push('sized/a', 'v1', { config: { n: 1 }, layer })
    await content.push('sized/b', 'v1', { config: { n: 2 }, layer })
    const sizes = await Promise.all(
      ['', '/repositories/a', '/repositories/b'].map((of) => haven(`/projects/sized${of}/size`)),
    )
    const [project, a, b] = sizes.map(({ body }) => body as Record<string, number>)
    expect([project!.sharedBytes, a!.sharedBytes, b!.sharedBytes]).toEqual([7000, 7000, 7000])
    expect(project!.totalBytes).toBe(a!.uniqueBytes! + b!.uniqueBytes! + 7000)
    const summary = (await core.send('GET', '/api/v2.0/projects/sized/summary', { as: owner })).body
    expect(summary).toMatchObject({ quota: { used: { storage: project!.totalBytes } } })
    expect((await haven('/projects/sized/repositories/none/size')).status).toBe(404)
  })
})

describe('whole rows of a repository', () => {
  const ROWS = '/projects/shop/repositories/rows%252Fapp'
  const tags = Array.from({ length: 23 }, (_, n) => `v1.${n}`)
  const one = { digest: '', signature: '' }
  type TagRow = HavenSchemas['TagRow']
  type ArtifactRow = HavenSchemas['ArtifactRow']
  const names = (rows: readonly TagRow[]) => rows.map(({ name }) => name)
  const pushTag = (n: number) =>
    content.push('shop/rows/app', tags[n]!, {
      config: { architecture: n % 2 ? 'arm64' : 'amd64', os: 'linux', rows: n },
      layer: Buffer.from('the layer that all of them share'),
      more: { annotations: { 'org.example.team': n < 3 ? 'blue' : 'red' } },
    })

  beforeAll(async () => {
    for (const n of tags.keys()) one.digest = await pushTag(n)
    const subject = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: one.digest, size: 1 }
    one.signature = await content.push('shop/rows/app', '', {
      layerType: 'application/vnd.dev.cosign.simplesigning.v1+json',
      more: { subject },
    })
    await content.push('shop/rows/app', '', { config: { rows: 'untagged' } })
    const label = await core.admin('POST', '/labels', { name: 'needs review', color: '#123456', scope: 'g' })
    const id = Number(label.headers.get('location')!.split('/').at(-1))
    await core.send('POST', '/api/v2.0/projects/shop/repositories/rows%252Fapp/artifacts/v1.22/labels', {
      as: owner,
      body: { id },
    })
  })

  it('are complete', async () => {
    const [row] = (await haven(`${ROWS}/tags?page_size=1`)).body as TagRow[]
    expect(row).toMatchObject({
      name: 'v1.22',
      protected: false,
      artifact: {
        repository: 'shop/rows/app',
        digest: one.digest,
        type: 'IMAGE',
        tags: [{ name: 'v1.22' }],
        labels: [{ name: 'needs review', color: '#123456' }],
        accessories: [{ digest: one.signature, type: 'signature.cosign' }],
        platforms: [{ os: 'linux', architecture: 'amd64' }],
        annotations: { 'org.example.team': 'red' },
        pushedBy: 'admin',
        size: { totalBytes: expect.any(Number), sharedBytes: 32 },
      },
    })
  })

  it('come in every order over pages of any size, forwards and backwards, the same', async () => {
    for (const [sort, expected] of [
      ['version', tags],
      ['-version', tags.toReversed()],
      ['name', tags.toSorted()],
      ['-name', tags.toSorted().toReversed()],
      ['pushed', tags],
      ['-pushed', tags.toReversed()],
    ] as const) {
      const first = `/api/haven/v1${ROWS}/tags?page_size=7&sort=${sort}`
      expect([sort, names(await walk<TagRow>(first))]).toEqual([sort, expected])
      const last = link(await core.send('GET', first, { as: owner }), 'last')!
      expect([sort, names(await walk<TagRow>(last, 'prev'))]).toEqual([sort, expected.toReversed()])
      expect(names((await core.send('GET', `${first}&page=3`, { as: owner })).body as TagRow[])).toEqual(
        expected.slice(14, 21),
      )
    }
    const artifacts = await walk<ArtifactRow>(`/api/haven/v1${ROWS}/artifacts?page_size=5`)
    expect(artifacts.map((row) => row.tags[0]?.name)).toEqual([undefined, ...tags.toReversed()])
  })

  it('neither repeat nor leave out one when others come and go meanwhile', async () => {
    const first = await haven(`${ROWS}/tags?page_size=10&sort=version`)
    await content.push('shop/rows/app', 'v0.1')
    await core.send('DELETE', '/api/v2.0/projects/shop/repositories/rows%252Fapp/artifacts/v0.1', { as: owner })
    const moved = await content.push('shop/rows/app', 'v1.0', { config: { moved: true } })
    const rest = await walk<TagRow>(link(first, 'next')!)
    expect([...names(first.body as TagRow[]), ...names(rest)]).toEqual(tags)
    await pushTag(0)
    await core.send('DELETE', `/api/v2.0/projects/shop/repositories/rows%252Fapp/artifacts/${moved}`, { as: owner })
  })

  it('cost five statements, however many they are and although no config was read before', async () => {
    const asked = async (path: string) => {
      await core.db.prisma.$executeRaw`update artifacts.manifests set facts = '{}'`
      return content.statements(() => haven(path))
    }
    for (const view of ['tags', 'artifacts']) {
      // The artifact pushed last has no labels to be read.
      expect([view, await asked(`${ROWS}/${view}?page_size=1`)]).toEqual([view, view === 'tags' ? 5 : 4])
      expect([view, await asked(`${ROWS}/${view}?page_size=100`)]).toEqual([view, 5])
      // No configs are read; one more says where the search begins.
      const searched = await content.statements(() => haven(`${ROWS}/${view}?q=platform:linux&page_size=100`))
      expect([view, searched]).toEqual([view, 4])
    }
  })

  it('are found in as many statements however many there are, and whatever is searched', async () => {
    const costs: number[] = []
    for (const q of [
      'label:"needs review"',
      'label:"needs review" tag:v*',
      'label:"needs review" repository:shop/*',
      'label:"needs review" rows -platform:plan9 pulled:never',
    ]) {
      for (const size of [1, 100])
        costs.push(
          await content.statements(() => haven(`/search/artifacts?q=${encodeURIComponent(q)}&page_size=${size}`)),
        )
    }
    // What begins with one frequent term needs nobody to choose.
    expect(costs).toEqual([4, 4, 5, 5, 5, 5, 5, 5])
  })

  it('are found behind thousands that are not: a page that found none leads on', async () => {
    await core.db.prisma.$executeRaw`
      with pile as (
        insert into artifacts.repositories (project_id, path, first_pushed_at)
        select id, 'pile', now() from projects.projects where name = 'shop' returning id)
      insert into artifacts.manifests (repository_id, digest, media_type, kind, payload, payload_bytes, total_bytes)
      select pile.id, 'sha256:' || n, '', 'image', '', 0, 0 from pile, generate_series(1, 6000) n`
    const search = `/api/haven/v1/search/artifacts?q=annotation:org.example.team`
    const first = await core.send('GET', search, { as: owner })
    expect([first.body, link(first, 'prev')]).toEqual([[], null])
    const all = await walk<ArtifactRow>(search)
    expect(all).toHaveLength(23)
    const last = await core.send('GET', link(first, 'next')!, { as: owner })
    expect(await walk<ArtifactRow>(link(last, 'prev')!, 'prev')).toEqual([])
    // Where it stopped is an artifact that a stranger may not see: his link says nothing of it.
    const hisOwn = await core.send('GET', search, { as: stranger })
    const cursor = new URL(link(hisOwn, 'next')!, 'http://h').searchParams.get('cursor')!
    expect(Buffer.from(cursor, 'base64url').toString()).not.toContain('found')
    for (const other of [`${cursor.slice(0, -4)}AAAA`, Buffer.from('["found",false,[1,1]]').toString('base64url')]) {
      expect((await core.send('GET', `${search}&cursor=${other}`, { as: stranger })).status).toBe(400)
    }
    await core.db.prisma.$executeRaw`delete from artifacts.repositories where path = 'pile'`
  })

  it('are counted up to a thousand', async () => {
    const { headers } = await haven(`${ROWS}/tags?page_size=1`)
    expect([headers.get('x-total-count'), headers.get('x-total-count-relation')]).toEqual(['23', 'eq'])
    expect((await haven(`${ROWS}/tags?page=101&page_size=100`)).status).toBe(400)
  })

  it('are searched by one grammar, in tags, artifacts and everywhere', async () => {
    const found = async (q: string) => {
      const query = `page_size=100&q=${encodeURIComponent(q)}`
      const all = [
        haven(`${ROWS}/tags?${query}`),
        haven(`${ROWS}/artifacts?${query}`),
        haven(`/search/artifacts?${query}%20repository:shop/rows/*`),
      ]
      const [byTag, byArtifact, anywhere] = (await Promise.all(all)).map(({ status, body }) => {
        expect(status).toBe(200)
        return (body as unknown[]).length
      })
      expect([q, byArtifact]).toEqual([q, anywhere])
      return [byTag, byArtifact]
    }
    expect(await found('tag:v1.1*')).toEqual([11, 11])
    expect(await found('-tag:v1.1*')).toEqual([12, 13])
    expect(await found('tag:v1.22')).toEqual([1, 1])
    expect(await found(`digest:${one.digest.slice(7, 30)}`)).toEqual([1, 1])
    expect(await found('label:"needs review"')).toEqual([1, 1])
    expect(await found('label:none')).toEqual([0, 0])
    expect(await found('annotation:org.example.team=blue')).toEqual([3, 3])
    expect(await found('annotation:org.example.team -annotation:org.example.team=blue')).toEqual([20, 20])
    expect(await found('platform:linux/arm64')).toEqual([11, 11])
    expect(await found('type:chart')).toEqual([0, 0])
    expect(await found('is:untagged')).toEqual([0, 1])
    expect(await found('pulled:never pushed:>-1h')).toEqual([23, 24])
    for (const never of ['pulled:>-1d', 'pulled:<-1d']) {
      expect([await found(never), await found(`-${never}`)]).toEqual([
        [0, 0],
        [23, 24],
      ])
    }
    expect(await found('pushed:<2020-01-01')).toEqual([0, 0])
    expect(await found('v1.2')).toEqual([4, 4])
    expect(await found('op/rows')).toEqual([0, 24])
    expect(await found('ROWS/ap')).toEqual([0, 24])
    expect(await found('repository:*p/rows/a*')).toEqual([23, 24])
    expect(await found('repository:none/rows/app')).toEqual([0, 0])
    const hostile = await found(`tag:"'; drop table artifacts.tags --%_\\\\"`)
    expect(hostile).toEqual([0, 0])
    const refused = await haven(`/search/artifacts?q=${encodeURIComponent('cart colour:red')}`)
    expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('at character 6')])
  })

  it('are found by nobody who may not list them (R1)', async () => {
    const q = encodeURIComponent('tag:v1.*')
    for (const who of [stranger, null]) {
      const { status, body } = await haven(`/search/artifacts?q=${q}`, who)
      expect([status, (body as ArtifactRow[]).filter(({ repository }) => repository.startsWith('shop/'))]).toEqual([
        200,
        [],
      ])
      expect((await haven(`${ROWS}/tags`, who)).status).toBe(who ? 403 : 401)
    }
    await content.push('open/found', 'v1.0')
    const { body, text } = await haven(`/search/artifacts?q=repository:open/found`, stranger)
    expect([(body as ArtifactRow[])[0]?.repository, text.includes('pushedBy')]).toEqual(['open/found', false])
  })

  it('are refused where there is no such repository or no such place', async () => {
    expect((await haven('/projects/shop/repositories/none/tags')).status).toBe(404)
    for (const cursor of [
      ['-version', false, [1]],
      ['-pushed', false, [1, 2]],
      ['-version', 0, null],
    ]) {
      const text = Buffer.from(JSON.stringify(cursor)).toString('base64url')
      expect((await haven(`${ROWS}/tags?cursor=${text}`)).status).toBe(400)
    }
    const far = Buffer.from(JSON.stringify(['-pushed', false, [Number.MAX_SAFE_INTEGER, 1]])).toString('base64url')
    expect((await haven(`${ROWS}/artifacts?cursor=${far}`)).status).toBe(400)
  })
})
