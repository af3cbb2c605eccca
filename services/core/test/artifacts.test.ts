import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { interceptFaultPoint } from '@haven/artifacts'
import { digestOf, mediaTypes, type Digest } from '@haven/oci'
import { usage } from '@haven/projects'
import { contentOf, type Content } from './content.ts'
import { startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let push: Content['push']
let pushIndex: Content['pushIndex']
let statements: Content['statements']
let owner: Credentials
let guest: Credentials
let stranger: Credentials
let shop: number

beforeAll(async () => {
  core = await startCore()
  ;({ push, pushIndex, statements } = contentOf(core))
  owner = await core.user('owner')
  guest = await core.user('guest')
  stranger = await core.user('stranger')
  shop = await core.project('shop', owner)
  await core.project('other', owner)
  await core.admin('POST', '/projects/shop/members', { role_id: 3, member_user: { username: 'guest' } })
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const as = (who: Credentials) => (method: string, path: string, body?: unknown) =>
  core.send(method, `/api/v2.0${path}`, { as: who, ...(body !== undefined && { body }) })
const names = (body: unknown) => (body as { name: string }[]).map(({ name }) => name)
const digests = (body: unknown) => (body as { digest: string }[]).map(({ digest }) => digest)

const LIST = '/projects/shop/repositories'

describe('repositories', () => {
  beforeAll(async () => {
    for (const path of ['a', 'b/c', 'd/e/f']) await push(`shop/${path}`, 'v1')
  })

  it('are listed by name, part of the name, order and page', async () => {
    const all = await as(owner)('GET', `${LIST}?sort=name`)
    expect([all.status, all.headers.get('x-total-count'), names(all.body)]).toEqual([
      200,
      '3',
      ['shop/a', 'shop/b/c', 'shop/d/e/f'],
    ])
    expect(names((await as(owner)('GET', `${LIST}?sort=-name&page_size=2`)).body)).toEqual(['shop/d/e/f', 'shop/b/c'])
    expect(names((await as(owner)('GET', `${LIST}?q=name%3D~b`)).body)).toEqual(['shop/b/c'])
    expect(names((await as(owner)('GET', `${LIST}?q=name%3Dshop/a`)).body)).toEqual(['shop/a'])
  })

  it('are read under a name that is encoded twice', async () => {
    const found = await as(owner)('GET', `${LIST}/d%252Fe%252Ff`)
    expect([found.status, found.body]).toMatchObject([200, { name: 'shop/d/e/f', artifact_count: 1, project_id: shop }])
    expect((await as(owner)('GET', `${LIST}/d%2Fe%2Ff`)).status).toBe(400)
    expect((await as(owner)('GET', `${LIST}/none`)).text).toContain('repository shop/none not found')
  })

  it('of all projects are those that the caller may list', async () => {
    const q = '/repositories?q=name%3D~shop'
    expect(names((await core.admin('GET', q)).body)).toHaveLength(3)
    expect(names((await as(guest)('GET', q)).body)).toHaveLength(3)
    expect((await as(stranger)('GET', q)).body).toEqual([])
    expect((await core.send('GET', `/api/v2.0${q}`)).body).toEqual([])
  })

  it('get a description, escaped as in Harbor', async () => {
    expect((await as(owner)('PUT', `${LIST}/a`, { description: '<b>"x"&\'', name: 'zzz' })).status).toBe(200)
    expect((await as(owner)('GET', `${LIST}/a`)).body).toMatchObject({
      name: 'shop/a',
      description: '&lt;b&gt;&#34;x&#34;&amp;&#39;',
    })
    expect((await as(guest)('PUT', `${LIST}/a`, { description: 'd' })).status).toBe(403)
    expect((await as(owner)('PUT', `${LIST}/none`, { description: 'd' })).status).toBe(404)
  })

  it('are deleted with everything in them, and made anew by a push', async () => {
    await push('shop/gone', 'v1')
    await push('shop/gone', 'v2')
    expect((await as(guest)('DELETE', `${LIST}/gone`)).status).toBe(403)
    expect((await as(owner)('DELETE', `${LIST}/gone`)).status).toBe(200)
    expect((await as(owner)('DELETE', `${LIST}/gone`)).status).toBe(404)
    expect((await as(owner)('GET', `${LIST}/gone/artifacts`)).body).toEqual([])
    const events = await core.db.prisma.outboxEvent.findMany({ where: { projectId: shop }, orderBy: { id: 'desc' } })
    const told = events.map(({ type }) => type.split('.').at(-1))
    expect(told.slice(0, 3)).toEqual(['RepositoryDeleted', 'ArtifactDeleted', 'ArtifactDeleted'])
    await push('shop/gone', 'v3')
    expect((await as(owner)('GET', `${LIST}/gone`)).body).toMatchObject({ artifact_count: 1, pull_count: 0 })
    await as(owner)('DELETE', `${LIST}/gone`)
  })

  it('are deleted whole although one transaction would not hold them', async () => {
    await push('shop/large', 'first')
    const repository = await core.db.prisma.repository.findFirstOrThrow({ where: { path: 'large' } })
    const repositoryId = repository.id
    await core.db.prisma.manifest.createMany({
      data: Array.from({ length: 1_100 }, (_, i) => ({
        repositoryId,
        digest: digestOf(Buffer.from(`large ${i}`)),
        mediaType: mediaTypes.ociManifest,
        kind: 'image',
        payload: Buffer.from('{}'),
        payloadBytes: 2,
        totalBytes: 2n,
      })),
    })
    expect((await as(owner)('DELETE', `${LIST}/large`)).status).toBe(200)
    expect(await core.db.prisma.manifest.count({ where: { repositoryId, deletedAt: null } })).toBe(0)
    expect(await core.db.prisma.tag.count({ where: { repositoryId } })).toBe(0)
    const history = await core.db.prisma.tagHistory.findMany({ where: { repositoryId }, orderBy: { id: 'desc' } })
    expect(history[0]).toMatchObject({ tag: 'first', toDigest: null, door: 'api', actor: 'owner' })
  })

  it('stay whole while a rule protects one of their tags', async () => {
    const made = await as(owner)('POST', '/projects/other/immutabletagrules', {
      action: 'immutable',
      template: 'immutable_template',
      scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: 'kept' }] },
      tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: 'v2' }],
    })
    expect(made.status).toBe(201)
    core.directory.forget()
    await push('other/kept', 'v1')
    await push('other/kept', 'v2')
    expect((await as(owner)('DELETE', '/projects/other/repositories/kept')).status).toBe(412)
    const list = await as(owner)('GET', '/projects/other/repositories/kept/artifacts?with_immutable_status=true')
    const tags = (list.body as { tags: { name: string; immutable: boolean }[] }[]).flatMap((artifact) => artifact.tags)
    expect(tags.map(({ name, immutable }) => [name, immutable]).sort()).toEqual([
      ['v1', false],
      ['v2', true],
    ])
  })

  it('wait with their deletion for a push that has found them, and take it along', async () => {
    await push('shop/raced', 'old')
    const arrived = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    const stop = interceptFaultPoint('manifest.afterCheck', () => {
      stop()
      arrived.resolve()
      return released.promise
    })
    const pushed = push('shop/raced', 'new')
    await arrived.promise
    const deleted = as(owner)('DELETE', `${LIST}/raced`)
    await waitingForLock()
    released.resolve()
    expect([(await deleted).status, await pushed]).toEqual([200, expect.stringContaining('sha256:')])
    expect((await as(owner)('GET', `${LIST}/raced`)).status).toBe(404)
    const lost = { deletedAt: null, repository: { deletedAt: { not: null } } }
    expect(await core.db.prisma.manifest.count({ where: lost })).toBe(0)
  })
})

/** Until some statement waits for a lock. @throws after 2 s without one */
async function waitingForLock(): Promise<void> {
  const deadline = performance.now() + 2_000
  while (performance.now() < deadline) {
    const waiting = await core.db.prisma.$queryRaw<object[]>`
      select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    if (waiting.length > 0) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  throw new Error('nobody waited')
}

describe('artifacts', () => {
  const ARTIFACTS = `${LIST}/app/artifacts`
  let v0: Digest
  let v1: Digest
  let untagged: Digest
  let signature: Digest

  beforeAll(async () => {
    v0 = await push('shop/app', 'v0', {
      config: {
        architecture: 'amd64',
        os: 'linux',
        created: '2026-01-02T03:04:05Z',
        config: { Env: ['A=b'], Cmd: ['/bin/x'], Labels: { maintainer: 'ann' }, Secret: 'not told' },
        history: [{ created_by: 'RUN step' }],
      },
    })
    v1 = await push('shop/app', 'v1')
    untagged = await push('shop/app', '')
    signature = await push('shop/app', '', {
      config: {},
      layerType: 'application/vnd.dev.cosign.simplesigning.v1+json',
      more: { subject: { mediaType: mediaTypes.ociManifest, digest: v0, size: 1 } },
    })
  })

  it('are listed the newest first, with tags and what is inside; accessories are not', async () => {
    const list = await as(guest)('GET', ARTIFACTS)
    expect([list.status, list.headers.get('x-total-count'), digests(list.body)]).toEqual([200, '3', [untagged, v1, v0]])
    expect((list.body as object[])[2]).toMatchObject({
      type: 'IMAGE',
      media_type: mediaTypes.ociConfig,
      manifest_media_type: mediaTypes.ociManifest,
      repository_name: 'shop/app',
      project_id: shop,
      tags: [{ name: 'v0', immutable: false }],
      labels: null,
      accessories: null,
      references: null,
      extra_attrs: {
        architecture: 'amd64',
        os: 'linux',
        author: 'ann',
        created: '2026-01-02T03:04:05Z',
        config: { Env: ['A=b'], Cmd: ['/bin/x'], Labels: { maintainer: 'ann' } },
      },
      addition_links: {
        build_history: {
          absolute: false,
          href: `/api/v2.0/projects/shop/repositories/app/artifacts/${v0}/additions/build_history`,
        },
      },
    })
    expect(list.text).not.toContain('not told')
    expect((list.body as { tags: unknown }[])[0]?.tags).toBeNull()
    expect((await as(stranger)('GET', ARTIFACTS)).status).toBe(403)
    expect((await as(owner)('GET', `${LIST}/none/artifacts`)).body).toEqual([])
  })

  it.each([
    ['tags=v0', ['v0']],
    ['tags=*', ['v1', 'v0']],
    ['tags=~V', ['v1', 'v0']],
    ['tags=nil', ['']],
    ['type=IMAGE,tags=v1', ['v1']],
    ['type=CHART', []],
    ['size__gte=1', ['', 'v1', 'v0']],
    ['foo=bar', ['', 'v1', 'v0']],
    ['push_time=[2000-01-01T00:00:00~2001-01-01T00:00:00]', []],
  ])('are found by %s', async (q, expected) => {
    const found = await as(owner)('GET', `${ARTIFACTS}?q=${encodeURIComponent(q)}`)
    const tags = (found.body as { tags: { name: string }[] | null }[]).map((artifact) => artifact.tags?.[0]?.name ?? '')
    expect([found.status, tags]).toEqual([200, expected])
  })

  it.each(['tags={v0 v1}', 'labels=(a)', 'labels=5', 'base=x', 'tags'])('refuse %s', async (q) => {
    expect((await as(owner)('GET', `${ARTIFACTS}?q=${encodeURIComponent(q)}`)).status).toBe(400)
  })

  it('are read by tag and digest, with their accessories', async () => {
    const read = await as(owner)('GET', `${ARTIFACTS}/v0?with_accessory=true`)
    expect(read.body).toMatchObject({
      digest: v0,
      accessories: [{ digest: signature, type: 'signature.cosign', subject_artifact_digest: v0 }],
    })
    const { body: list } = await as(owner)('GET', `${ARTIFACTS}/v0/accessories`)
    expect(list).toEqual((read.body as { accessories: unknown }).accessories)
    expect((await as(owner)('GET', `${ARTIFACTS}/v0/accessories?q=type%3Dsignature.notation`)).body).toEqual([])
    expect((await as(owner)('GET', `${ARTIFACTS}/${signature}`)).body).toMatchObject({
      extra_attrs: { architecture: '', author: '', config: {}, created: null, os: '' },
    })
    for (const missing of ['nope', 'sha256:zz', 'a%20b', `sha256:${'0'.repeat(64)}`]) {
      const reply = await as(owner)('GET', `${ARTIFACTS}/${missing}`)
      expect([reply.status, reply.text]).toEqual([404, expect.stringContaining('artifact shop/app')])
    }
  })

  it('are asked of Postgres in two statements, however many full rows a page has', async () => {
    const all = 'with_label=true&with_accessory=true&with_inherited_accessory=true&with_immutable_status=true'
    await as(owner)('GET', `${ARTIFACTS}?${all}`) // what is inside them is read now
    const one = await statements(() => as(owner)('GET', `${ARTIFACTS}?page_size=1&${all}`))
    const many = await statements(() => as(owner)('GET', `${ARTIFACTS}?page_size=100&${all}`))
    expect([one, many]).toEqual([2, 2])
  })

  it('of an index are shown with it, and alone only when they are asked for', async () => {
    const children = [await push('shop/multi', ''), await push('shop/multi', '', { config: { os: 'plan9' } })]
    const index = await pushIndex('shop/multi', 'latest', children)
    const list = await as(owner)('GET', `${LIST}/multi/artifacts`)
    expect(digests(list.body)).toEqual([index])
    expect((list.body as object[])[0]).toMatchObject({
      references: [
        { child_digest: children[0], platform: { architecture: 'amd64', os: 'linux', OsFeatures: null }, urls: null },
        { child_digest: children[1], platform: { architecture: 'arm64' } },
      ],
    })
    expect(digests((await as(owner)('GET', `${LIST}/multi/artifacts?q=base%3D*`)).body)).toHaveLength(3)
    const refused = await as(owner)('DELETE', `${LIST}/multi/artifacts/${children[0]}`)
    expect([refused.status, refused.text]).toEqual([412, expect.stringContaining('VIOLATE_FOREIGN_KEY_CONSTRAINT')])
    const seal = { subject: { mediaType: mediaTypes.ociIndex, digest: index, size: 1 } }
    const signed = await push('shop/multi', '', {
      config: {},
      more: { ...seal, artifactType: 'application/vnd.cncf.notary.signature' },
    })
    const child = await as(owner)('GET', `${LIST}/multi/artifacts/${children[0]}?with_inherited_accessory=true`)
    expect(child.body).toMatchObject({ inherited_accessories: [{ digest: signed, type: 'signature.notation' }] })
    expect((await as(owner)('DELETE', `${LIST}/multi/artifacts/latest`)).status).toBe(200)
    expect((await as(owner)('GET', `${LIST}/multi/artifacts?q=base%3D*`)).body).toEqual([])
  })

  it('of a huge index are some in a list, which says so, and all with the artifact itself', async () => {
    const children = Array.from({ length: 250 }, (_, n) => `sha256:${n.toString(16).padStart(64, '0')}` as Digest)
    await pushIndex('shop/wide', 'latest', children)
    const references = (body: unknown) =>
      (body as { references: { child_digest: string }[] }).references.map((one) => one.child_digest)
    const [listed] = (await as(owner)('GET', `${LIST}/wide/artifacts`)).body as object[]
    expect(listed).toMatchObject({ references_truncated: true })
    expect(references(listed)).toEqual(children.slice(0, 200))
    const { body: whole } = await as(owner)('GET', `${LIST}/wide/artifacts/latest`)
    expect(references(whole)).toEqual(children)
    expect(whole).not.toHaveProperty('references_truncated')
    expect((await as(owner)('DELETE', `${LIST}/wide/artifacts/latest`)).status).toBe(200)
  })

  it('of a whole project, or the last of each repository by type', async () => {
    const all = await as(owner)('GET', '/projects/shop/artifacts?page_size=100')
    expect(new Set((all.body as { repository_name: string }[]).map((row) => row.repository_name))).toEqual(
      new Set(['shop/a', 'shop/b/c', 'shop/d/e/f', 'shop/app']),
    )
    const q = encodeURIComponent(`media_type=${mediaTypes.ociConfig.replace('+', '%2B')}`)
    const latest = await as(owner)('GET', `/projects/shop/artifacts?latest_in_repository=true&q=${q}&sort=-push_time`)
    expect([latest.headers.get('x-total-count'), digests(latest.body)[0]]).toEqual(['4', untagged])
    expect((await as(owner)('GET', '/projects/shop/artifacts?latest_in_repository=true')).status).toBe(400)
    expect((await core.send('GET', '/api/v2.0/projects/shop/artifacts')).status).toBe(401)
  })

  it('get tags and lose them, and are deleted with them', async () => {
    const digest = await push('shop/tagged', 'v1')
    await push('shop/tagged', 'v2')
    const AT = `${LIST}/tagged/artifacts`
    const made = await as(owner)('POST', `${AT}/v1/tags`, { name: 'stable' })
    expect([made.status, made.headers.get('location')]).toEqual([201, null])
    expect((await as(owner)('POST', `${AT}/v1/tags`, { name: 'stable' })).status).toBe(409)
    expect((await as(owner)('POST', `${AT}/v1/tags`, { name: 'v2' })).text).toContain(
      'already exists under the repository',
    )
    expect((await as(owner)('POST', `${AT}/v1/tags`, { name: '-bad' })).status).toBe(400)
    expect((await as(owner)('POST', `${AT}/nope/tags`, { name: 'x' })).status).toBe(404)
    expect((await as(guest)('POST', `${AT}/v1/tags`, { name: 'x' })).status).toBe(403)
    expect(names((await as(owner)('GET', `${AT}/v1/tags?sort=name`)).body)).toEqual(['stable', 'v1'])
    expect(names((await as(owner)('GET', `${AT}/v1/tags?q=name%3D~st`)).body)).toEqual(['stable'])
    expect((await as(owner)('DELETE', `${AT}/v1/tags/v2`)).status).toBe(404)
    expect((await as(owner)('DELETE', `${AT}/v1/tags/v1`)).status).toBe(200)
    expect((await as(owner)('GET', `${AT}/${digest}`)).body).toMatchObject({ tags: [{ name: 'stable' }] })
    expect((await as(owner)('DELETE', `${AT}/stable`)).status).toBe(200)
    expect((await as(owner)('GET', `${AT}/${digest}`)).status).toBe(404)
    expect((await as(owner)('DELETE', `${AT}/stable`)).status).toBe(404)
  })

  it('get one of many tags of a name that are made at once', async () => {
    await push('shop/race', 'v1')
    await push('shop/race', 'v2')
    const made = ['v1', 'v2', 'v1', 'v2'].map((at) =>
      as(owner)('POST', `${LIST}/race/artifacts/${at}/tags`, { name: 'contested' }),
    )
    expect((await Promise.all(made)).map(({ status }) => status).sort()).toEqual([201, 409, 409, 409])
  })

  it('carry labels of the installation and of their project', async () => {
    const idOf = async (body: object) => {
      const made = await core.admin('POST', '/labels', body)
      return Number(made.headers.get('location')?.split('/').at(-1))
    }
    const other = Number((await core.directory.byName('other'))?.id)
    const ours = await idOf({ name: 'ours', scope: 'p', project_id: shop })
    const global = await idOf({ name: 'global', scope: 'g' })
    const theirs = await idOf({ name: 'theirs', scope: 'p', project_id: other })
    const LABELS = `${ARTIFACTS}/v1/labels`
    for (const id of [ours, global]) expect((await as(owner)('POST', LABELS, { id })).status).toBe(200)
    expect((await as(owner)('POST', LABELS, { id: ours })).status).toBe(409)
    expect((await as(owner)('POST', LABELS, { id: theirs })).status).toBe(404)
    expect((await as(owner)('POST', LABELS, { id: 999_999 })).status).toBe(404)
    expect((await as(guest)('POST', LABELS, { id: global })).status).toBe(403)
    const found = await as(owner)(
      'GET',
      `${ARTIFACTS}?with_label=true&q=${encodeURIComponent(`labels=(${ours} ${global})`)}`,
    )
    expect(found.body).toMatchObject([{ digest: v1, labels: [{ name: 'ours' }, { name: 'global' }] }])
    expect((await as(owner)('DELETE', `${LABELS}/${ours}`)).status).toBe(200)
    expect((await as(owner)('DELETE', `${LABELS}/${ours}`)).status).toBe(404)
    expect((await as(owner)('GET', `${ARTIFACTS}/v1?with_label=true`)).body).toMatchObject({
      labels: [{ name: 'global' }],
    })
  })
})

describe('a copy', () => {
  const copy = (who: Credentials, to: string, from: string) =>
    as(who)('POST', `/projects/other/repositories/${to}/artifacts?from=${encodeURIComponent(from)}`)

  it('brings tags, accessories and platforms, and may be repeated', async () => {
    const children = [await push('shop/source', ''), await push('shop/source', '', { config: { os: 'plan9' } })]
    const index = await pushIndex('shop/source', 'latest', children)
    const seal = { subject: { mediaType: mediaTypes.ociManifest, digest: children[0], size: 1 } }
    const signed = await push('shop/source', '', { config: {}, more: seal })
    for (let i = 0; i < 2; i++) {
      const made = await copy(owner, 'c%252Fd', 'shop/source:latest')
      expect([made.status, made.headers.get('location')]).toEqual([
        201,
        '/api/v2.0/projects/other/repositories/c%252Fd/artifacts/latest',
      ])
    }
    const there = await as(owner)('GET', '/projects/other/repositories/c%252Fd/artifacts/latest')
    expect(there.body).toMatchObject({ digest: index, references: [{ child_digest: children[0] }, {}] })
    const accessories = await as(owner)(
      'GET',
      `/projects/other/repositories/c%252Fd/artifacts/${children[0]}/accessories`,
    )
    expect(digests(accessories.body)).toEqual([signed])
    expect((await copy(owner, 'c%252Fd', `shop/source@${signed}`)).status).toBe(403)
  })

  it('needs the right to read there and to write here, and something to copy', async () => {
    expect((await copy(guest, 'x', 'shop/app:v0')).status).toBe(403)
    expect((await copy(owner, 'x', 'shop/app:nope')).status).toBe(400)
    expect((await copy(owner, 'x', 'shop/none:v1')).status).toBe(400)
    expect((await copy(owner, 'x', 'zzz')).status).toBe(400)
    const mine = await core.project('mine', stranger)
    expect(mine).toBeGreaterThan(0)
    const taken = await as(stranger)('POST', '/projects/mine/repositories/x/artifacts?from=shop/app:v0')
    expect(taken.status).toBe(403)
  })

  it('goes into no project whose content comes from another registry, nor does a tag', async () => {
    const id = await core.project('mirror', owner)
    await push('mirror/app', 'v1')
    await core.db.prisma.project.update({ where: { id }, data: { registryId: 1 } })
    core.directory.forget()
    for (const reply of [
      await as(owner)('POST', '/projects/mirror/repositories/x/artifacts?from=shop/app:v0'),
      await as(owner)('POST', '/projects/mirror/repositories/app/artifacts/v1/tags', { name: 'x' }),
    ]) {
      expect([reply.status, reply.text]).toEqual([405, expect.stringContaining('METHOD_NOT_ALLOWED')])
    }
  })

  it('is refused by the rules of a push', async () => {
    await core.project('tiny', owner)
    const quota = await core.admin('GET', '/quotas?page_size=100')
    const id = (quota.body as { id: number; ref: { name: string } }[]).find(({ ref }) => ref.name === 'tiny')?.id
    await core.admin('PUT', `/quotas/${id}`, { hard: { storage: 10 } })
    core.directory.forget()
    const made = await as(owner)('POST', '/projects/tiny/repositories/x/artifacts?from=shop/app:v0')
    expect([made.status, made.text]).toEqual([403, expect.stringContaining('Quota exceeded')])
  })

  it('leaves nothing where the quota has room for one of its platforms only, and fits to the byte', async () => {
    const children = [await push('shop/wide', ''), await push('shop/wide', '', { config: { os: 'plan9' } })]
    await pushIndex('shop/wide', 'latest', children)
    const needed = (await as(owner)('GET', '/projects/shop/repositories/wide/artifacts/latest')).body as {
      size: number
    }
    const there = await core.project('narrow', owner)
    const limit = async (bytes: number) => {
      await core.db.prisma.quota.update({ where: { projectId: there }, data: { hardBytes: BigInt(bytes) } })
      core.directory.forget()
    }
    const wide = () => as(owner)('POST', '/projects/narrow/repositories/x/artifacts?from=shop/wide:latest')
    // Both have the same layer, which is stored once.
    const shared = Buffer.byteLength('layer of shop/wide:')
    await limit(needed.size - shared - 1)
    expect((await wide()).text).toContain('Quota exceeded')
    expect((await as(owner)('GET', '/projects/narrow/repositories')).body).toEqual([])
    expect(await usage(core.db.reads, there)).toMatchObject({ usedBytes: 0 })
    await limit(needed.size - shared)
    for (let i = 0; i < 2; i++) expect((await wide()).status).toBe(201)
    expect(await usage(core.db.reads, there)).toMatchObject({ usedBytes: needed.size - shared })
  })
})

/** A tar of these files, as every tar has written it since 1988. */
function tarOf(files: readonly (readonly [name: string, content: string | Buffer])[]): Buffer {
  const entries = files.flatMap(([name, content]) => {
    const body = Buffer.from(content)
    const header = Buffer.alloc(512)
    header.write(name.slice(0, 100), 0)
    header.write('0000644\0', 100)
    header.write(`${body.length.toString(8).padStart(11, '0')}\0`, 124)
    header.write('0', 156)
    header.write('ustar\x0000', 257)
    return [header, body, Buffer.alloc((512 - (body.length % 512)) % 512)]
  })
  return Buffer.concat([...entries, Buffer.alloc(1024)])
}

describe('what is inside an artifact', () => {
  const CHART = {
    configType: 'application/vnd.cncf.helm.config.v1+json',
    layerType: 'application/vnd.cncf.helm.chart.content.v1.tar+gzip',
  }
  const addition = (repository: string, name: string) =>
    as(owner)('GET', `${LIST}/${repository}/artifacts/1/additions/${name}`)

  it('of a chart is its metadata, values, readme and dependencies', async () => {
    const layer = gzipSync(
      tarOf([
        ['chart/charts/db/values.yaml', 'of: another\n'],
        ['chart/values.yaml', 'a: 1\n'],
        ['chart/README.md', '# chart <script>alert(1)</script>\n'],
      ]),
    )
    const dependencies = [{ name: 'db', version: '1.0.0' }]
    await push('shop/chart', '1', { ...CHART, config: { name: 'chart', version: '0.1.0', dependencies }, layer })
    const { body } = await as(owner)('GET', `${LIST}/chart/artifacts/1`)
    expect(body).toMatchObject({ type: 'CHART', extra_attrs: { name: 'chart', version: '0.1.0' } })
    expect(Object.keys((body as { addition_links: object }).addition_links)).toEqual([
      'values.yaml',
      'readme.md',
      'dependencies',
    ])
    const values = await addition('chart', 'values.yaml')
    expect([values.text, values.headers.get('content-type')]).toEqual(['a: 1\n', 'text/plain; charset=utf-8'])
    const readme = await addition('chart', 'readme.md')
    expect([readme.status, readme.headers.get('content-type')]).toEqual([200, 'text/markdown; charset=utf-8'])
    expect((await addition('chart', 'dependencies')).body).toEqual(dependencies)
    expect((await addition('chart', 'build_history')).text).toContain("isn't supported for CHART")
    expect((await addition('chart', 'foo')).status).toBe(422)
  })

  it('of an image is its history', async () => {
    await push('shop/history', '1', { config: { history: [{ created_by: 'RUN x' }] } })
    expect((await addition('history', 'build_history')).body).toEqual([{ created_by: 'RUN x' }])
    expect((await addition('history', 'values.yaml')).status).toBe(400)
  })

  it('of anything else is its config, without what is to be hidden', async () => {
    await push('shop/generic', '1', {
      configType: 'application/vnd.example.thing.config.v1+json',
      config: { weight: 7, secret: 's' },
    })
    expect((await as(owner)('GET', `${LIST}/generic/artifacts/1`)).body).toMatchObject({
      type: 'THING',
      extra_attrs: { weight: 7, secret: 's' },
    })
    expect((await addition('generic', 'build_history')).status).toBe(400)
  })

  it.each([
    ['no JSON', Buffer.from('{')],
    ['a list', Buffer.from('[1]')],
    ['nested deeply', Buffer.from('{"a":'.repeat(10_000) + '1' + '}'.repeat(10_000))],
    ['of two megabytes', Buffer.from(JSON.stringify({ a: 'x'.repeat(2 * 1024 * 1024) }))],
    ['a NUL', Buffer.from(String.raw`{"architecture":"a\u0000"}`)],
  ])('A95: of a config that is %s is nothing', async (_, config) => {
    const digest = await push('shop/hostile', '', { config })
    const read = await as(owner)('GET', `${LIST}/hostile/artifacts/${digest}`)
    expect([read.status, (read.body as { extra_attrs?: object }).extra_attrs]).toEqual([200, undefined])
  })

  it('A95: of a config that Postgres could not keep as it is, or that is long, is what fits', async () => {
    const digest = await push('shop/hostile', '', {
      config: Buffer.from(
        String.raw`{"architecture":"\ud800","os":"\\ud800","config":{"Env":["${'x'.repeat(100_000)}"]}}`,
      ),
    })
    for (let i = 0; i < 2; i++) {
      const read = await as(owner)('GET', `${LIST}/hostile/artifacts/${digest}`)
      expect(read.body).toMatchObject({ extra_attrs: { os: String.raw`\ud800`, author: '' } })
      expect(read.text.length).toBeLessThan(10_000)
    }
  })

  it.each([
    ['no gzip', Buffer.from('not packed')],
    ['cut short', gzipSync(tarOf([['chart/values.yaml', 'a: 1']])).subarray(0, 30)],
    ['no tar', gzipSync(Buffer.alloc(100_000, 7))],
    [
      'a bomb',
      gzipSync(
        tarOf([
          ['chart/big', Buffer.alloc(80 * 1024 * 1024)],
          ['chart/values.yaml', 'a: 1'],
        ]),
      ),
    ],
    ['with a file of two megabytes', gzipSync(tarOf([['chart/values.yaml', Buffer.alloc(2 * 1024 * 1024, 'a')]]))],
    [
      'with names that climb',
      gzipSync(
        tarOf([
          ['../values.yaml/x', 'a'],
          ['/etc/values.yaml', 'b'],
        ]),
      ),
    ],
  ])('A95: of a chart that is %s is nothing', async (what, layer) => {
    await push('shop/bad', '1', { ...CHART, config: { name: 'bad', what }, layer })
    expect((await addition('bad', 'values.yaml')).status).toBe(404)
  })
})

describe('icons', () => {
  it('are there for everybody under the digest that artifacts name', async () => {
    const { body } = await as(owner)('GET', `${LIST}/app/artifacts/v0`)
    const icon = await core.send('GET', `/api/v2.0/icons/${(body as { icon: string }).icon}`)
    const { content, ...rest } = icon.body as { content: string }
    const png = Buffer.from(content, 'base64')
    expect(rest).toEqual({ 'content-type': 'image/png' })
    expect(png.subarray(1, 4).toString()).toBe('PNG')
    expect(png.readUInt32BE(16)).toBe(48)
    expect((await core.send('GET', `/api/v2.0/icons/sha256:${'0'.repeat(64)}`)).status).toBe(404)
  })
})
