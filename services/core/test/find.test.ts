import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let owner: Credentials
let stranger: Credentials
let shop: number
let open: number

beforeAll(async () => {
  core = await startCore()
  owner = await core.user('owner')
  stranger = await core.user('stranger')
  shop = await core.project('shop', owner)
  open = await core.project('open-shop', owner, { metadata: { public: 'true' } })
  await repository(shop, 'Cart')
  await repository(open, 'web/cart')
  await repository(open, 'till', { first_pushed_at: false })
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const as = (who: Credentials) => (method: string, path: string, body?: unknown) =>
  core.send(method, `/api/v2.0${path}`, { as: who, ...(body !== undefined && { body }) })

let digests = 0
const digest = () => `sha256:${String(++digests).padStart(64, '0')}`

/** A repository with an index of two images, one of which has a tag, and a signature of the index: two artifacts. */
async function repository(projectId: number, path: string, { first_pushed_at: pushed = true } = {}) {
  const { prisma } = core.db
  const { id } = await prisma.repository.create({
    data: { projectId, path, firstPushedAt: pushed ? new Date() : null, pullCount: 7n },
  })
  const manifest = (kind: string, more: { subjectDigest?: string } = {}) =>
    prisma.manifest.create({
      data: {
        repositoryId: id,
        digest: digest(),
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        kind,
        payload: Buffer.from('{}'),
        payloadBytes: 2,
        totalBytes: 2n,
        ...more,
      },
    })
  const [index, tagged, child] = [await manifest('index'), await manifest('image'), await manifest('image')]
  await manifest('image', { subjectDigest: index.digest })
  await prisma.tag.create({ data: { repositoryId: id, name: 'latest', manifestId: tagged.id } })
  await prisma.manifestEdge.createMany({
    data: [tagged, child].map(({ digest, mediaType }, position) => ({
      manifestId: index.id,
      position,
      repositoryId: id,
      kind: 'child',
      digest,
      mediaType,
      sizeBytes: 2n,
      urls: [],
    })),
  })
}

const names = ({ body }: { body: unknown }) => {
  const found = body as { project: { name: string }[]; repository: { repository_name: string }[] }
  return {
    projects: found.project.map(({ name }) => name),
    repositories: found.repository.map((r) => r.repository_name),
  }
}

describe('search', () => {
  it('finds projects by a part of their name in its case, repositories in any', async () => {
    const found = await core.admin('GET', '/search?q=cart')
    expect(names(found)).toEqual({ projects: [], repositories: ['open-shop/web/cart', 'shop/Cart'] })
    expect(names(await core.admin('GET', '/search?q=shop'))).toEqual({
      projects: ['open-shop', 'shop'],
      repositories: ['open-shop/web/cart', 'shop/Cart'],
    })
    expect(names(await core.admin('GET', '/search?q=SHOP')).projects).toEqual([])
    expect(names(await core.admin('GET', '/search?q=shop/W')).repositories).toEqual(['open-shop/web/cart'])
  })

  it('counts artifacts as lists show them', async () => {
    const found = await core.admin('GET', '/search?q=open')
    expect(found.body).toEqual({
      project: [
        expect.objectContaining({ project_id: open, name: 'open-shop', repo_count: 1, metadata: { public: 'true' } }),
      ],
      repository: [
        {
          project_id: open,
          project_name: 'open-shop',
          project_public: true,
          repository_name: 'open-shop/web/cart',
          pull_count: 7,
          artifact_count: 2,
        },
      ],
    })
  })

  it('A31: finds what the caller may see and nothing else', async () => {
    const all = { projects: ['open-shop', 'shop'], repositories: ['open-shop/web/cart', 'shop/Cart'] }
    const open = { projects: ['open-shop'], repositories: ['open-shop/web/cart'] }
    expect(names(await as(owner)('GET', '/search?q=shop'))).toEqual(all)
    expect(names(await as(stranger)('GET', '/search?q=shop'))).toEqual(open)
    expect(names(await as(null)('GET', '/search?q=shop'))).toEqual(open)
  })

  it.each(['%25', '_', '%5C', "'"])('takes %s for itself', async (q) => {
    expect(names(await core.admin('GET', `/search?q=${q}`))).toEqual({ projects: [], repositories: [] })
  })

  it('wants to know what for', async () => {
    expect((await core.admin('GET', '/search')).status).toBe(422)
    expect((await core.admin('GET', '/search?q=%00')).status).toBeLessThan(500)
  })
})

describe('statistics', () => {
  it('count everything for administrators, each blob once', async () => {
    await core.db.prisma.blob.createMany({
      data: [3n, 4n].map((sizeBytes) => ({ digest: digest(), sizeBytes, promisedUntil: new Date() })),
    })
    expect((await core.admin('GET', '/statistics')).body).toEqual({
      public_project_count: 2,
      private_project_count: 1,
      public_repo_count: 1,
      private_repo_count: 1,
      total_project_count: 3,
      total_repo_count: 2,
      total_storage_consumption: 7,
    })
  })

  it('A31: count what is public and their own for others', async () => {
    const totals = { total_project_count: 0, total_repo_count: 0, total_storage_consumption: 0 }
    const open = { public_project_count: 2, public_repo_count: 1, ...totals }
    const mine = (await as(owner)('GET', '/statistics')).body
    expect(mine).toEqual({ ...open, private_project_count: 1, private_repo_count: 1 })
    const none = (await as(stranger)('GET', '/statistics')).body
    expect(none).toEqual({ ...open, private_project_count: 0, private_repo_count: 0 })
    expect((await as(null)('GET', '/statistics')).status).toBe(401)
  })
})

describe("the installation's CVE allowlist", () => {
  const path = '/system/CVEAllowlist'

  it('is empty and never expires until somebody writes one', async () => {
    const empty = await as(stranger)('GET', path)
    expect([empty.status, empty.body]).toEqual([
      200,
      { items: [], creation_time: '0001-01-01T00:00:00.000Z', update_time: '0001-01-01T00:00:00.000Z' },
    ])
  })

  it('is replaced by who may configure the system, and the audit log says so', async () => {
    const list = { items: [{ cve_id: 'CVE-2025-0001' }, { cve_id: 'CVE-2025-0002' }], expires_at: 1_900_000_000 }
    expect((await as(owner)('PUT', path, list)).status).toBe(403)
    expect((await core.admin('PUT', path, list)).status).toBe(200)
    expect((await as(stranger)('GET', path)).body).toMatchObject(list)
    const [event] = await core.db.prisma.outboxEvent.findMany({ orderBy: { id: 'desc' }, take: 1 })
    expect(event).toMatchObject({
      type: 'haven.events.v1.ConfigurationChanged',
      payload: { keys: ['cve_allowlist'] },
    })
    expect((await core.admin('PUT', path, { items: [], expires_at: null })).status).toBe(200)
    const emptied = (await core.admin('GET', path)).body
    expect(emptied).toEqual(expect.not.objectContaining({ expires_at: expect.anything() as unknown }))
    expect(emptied).toMatchObject({ items: [] })
  })

  it.each([
    ['a doubled id', [{ cve_id: 'CVE-1' }, { cve_id: 'CVE-1' }]],
    ['an empty id', [{ cve_id: '' }]],
    ['no id', [{}]],
  ])('is refused with %s', async (_, items) => {
    expect((await core.admin('PUT', path, { items })).status).toBe(400)
  })
})
