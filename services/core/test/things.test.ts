import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN, startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let owner: Credentials
let stranger: Credentials
let shop: number
beforeAll(async () => {
  core = await startCore()
  owner = await core.user('owner')
  stranger = await core.user('stranger')
  shop = await core.project('shop', owner)
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const as = (who: Credentials) => (method: string, path: string, body?: unknown) =>
  core.send(method, `/api/v2.0${path}`, { as: who, ...(body !== undefined && { body }) })
const idOf = (reply: { headers: Headers }) => Number(reply.headers.get('location')?.split('/').at(-1))

describe('labels', () => {
  it('are of the installation, by administrators, or of a project, by its maintainers', async () => {
    const made = await core.admin('POST', '/labels', {
      name: 'approved',
      scope: 'g',
      color: '#0F766E',
      description: 'd',
    })
    expect([made.status, made.headers.get('location')]).toEqual([
      201,
      expect.stringMatching(/^\/api\/v2\.0\/labels\/\d+$/),
    ])
    const id = idOf(made)
    expect((await core.admin('GET', `/labels/${id}`)).body).toMatchObject({
      id,
      name: 'approved',
      scope: 'g',
      color: '#0F766E',
    })
    expect((await as(owner)('POST', '/labels', { name: 'mine', scope: 'g' })).status).toBe(403)
    expect((await as(owner)('POST', '/labels', { name: 'mine', scope: 'p', project_id: shop })).status).toBe(201)
    expect((await as(stranger)('POST', '/labels', { name: 'x', scope: 'p', project_id: shop })).status).toBe(403)
  })

  it('have a name that can be seen', async () => {
    for (const name of [undefined, '', '  ']) {
      expect(await core.admin('POST', '/labels', { name, scope: 'g' })).toMatchObject({
        status: 400,
        text: expect.stringContaining('the name of the label is missing'),
      })
    }
    const id = idOf(await core.admin('POST', '/labels', { name: 'visible', scope: 'g' }))
    expect((await core.admin('PUT', `/labels/${id}`, { name: '' })).status).toBe(400)
    expect((await core.admin('DELETE', `/labels/${id}`)).status).toBe(200)
  })

  it('have a name once in their place', async () => {
    const again = await core.admin('POST', '/labels', { name: 'approved', scope: 'g' })
    expect([again.status, again.text]).toEqual([409, expect.stringContaining('label approved already exists')])
    expect((await as(owner)('POST', '/labels', { name: 'approved', scope: 'p', project_id: shop })).status).toBe(201)
    const many = Array.from({ length: 5 }, () => core.admin('POST', '/labels', { name: 'race', scope: 'g' }))
    expect((await Promise.all(many)).map(({ status }) => status).sort()).toEqual([201, 409, 409, 409, 409])
  })

  it('leave their name free when they are deleted, and come off what carries them', async () => {
    const id = idOf(await core.admin('POST', '/labels', { name: 'brief', scope: 'g' }))
    const { db } = core
    const repository = await db.prisma.repository.create({ data: { projectId: shop, path: 'app' } })
    const manifest = await db.prisma.manifest.create({
      data: {
        repositoryId: repository.id,
        digest: `sha256:${'1'.repeat(64)}`,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        kind: 'image',
        payload: Buffer.from('{}'),
        payloadBytes: 2,
        totalBytes: 2n,
      },
    })
    await db.prisma.artifactLabel.create({ data: { labelId: id, manifestId: manifest.id } })
    expect((await core.admin('DELETE', `/labels/${id}`)).status).toBe(200)
    expect(await db.prisma.artifactLabel.count({ where: { labelId: id } })).toBe(0)
    expect((await core.admin('GET', `/labels/${id}`)).status).toBe(404)
    expect((await core.admin('DELETE', `/labels/${id}`)).status).toBe(404)
    expect((await core.admin('POST', '/labels', { name: 'brief', scope: 'g' })).status).toBe(201)
  })

  it('are listed by place, part of the name and page', async () => {
    const page = await core.admin('GET', '/labels?scope=g&name=ace&page_size=1')
    expect([page.status, page.headers.get('x-total-count'), page.body]).toMatchObject([200, '1', [{ name: 'race' }]])
    const sorted = await core.admin('GET', '/labels?scope=g&sort=-name')
    expect((sorted.body as { name: string }[]).map(({ name }) => name)).toEqual(['race', 'brief', 'approved'])
    expect((await core.send('GET', '/api/v2.0/labels?scope=g')).status).toBe(200)
    expect((await as(stranger)('GET', `/labels?scope=p&project_id=${shop}`)).status).toBe(403)
    expect((await as(owner)('GET', '/labels?scope=p')).status).toBe(400)
    expect((await core.admin('GET', '/labels?scope=g&name=%25')).body).toEqual([])
  })

  it('are replaced whole, and never against another’s name', async () => {
    const id = idOf(await core.admin('POST', '/labels', { name: 'old', scope: 'g', color: '#fff', description: 'd' }))
    expect((await core.admin('PUT', `/labels/${id}`, { name: 'race' })).status).toBe(409)
    expect((await core.admin('PUT', `/labels/${id}`, { name: 'new', scope: 'p', project_id: shop })).status).toBe(200)
    const { body } = await core.admin('GET', `/labels/${id}`)
    expect(body).toMatchObject({ name: 'new', scope: 'g' })
    expect(body).not.toHaveProperty('color')
  })

  it.each([
    [{ name: 'x', scope: 'z' }, 400],
    [{ name: 'x'.repeat(129), scope: 'g' }, 400],
    [{ name: 'x', scope: 'p', project_id: 99_999 }, 404],
    [{ name: 1, scope: 'g' }, 422],
  ])('refuse %j', async (body, status) => {
    expect((await core.admin('POST', '/labels', body)).status).toBe(status)
  })

  it('A23: tell a stranger nothing by their ids', async () => {
    const id = idOf(await as(owner)('POST', '/labels', { name: 'secret', scope: 'p', project_id: shop }))
    const [there, missing] = await Promise.all([id, 99_999].map((label) => as(stranger)('GET', `/labels/${label}`)))
    expect([there?.status, there?.body]).toEqual([403, missing?.body])
    expect(missing?.status).toBe(403)
  })
})

describe('immutable tag rules', () => {
  const selecting = (tags: string) => ({
    action: 'immutable',
    template: 'immutable_template',
    tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: tags }],
    scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: '**' }] },
  })
  const rules = () => `/projects/${shop}/immutabletagrules`

  it('are made, listed, switched off, changed and deleted', async () => {
    const made = await as(owner)('POST', rules(), selecting('v*'))
    expect(made.status).toBe(201)
    const id = idOf(made)
    const list = await as(owner)('GET', rules())
    expect([list.headers.get('x-total-count'), list.body]).toEqual(['1', [{ id, ...selecting('v*') }]])
    const put = (body: object) => as(owner)('PUT', `${rules()}/${id}`, { id, ...body })
    // Where the switch differs, only the switch is moved.
    expect((await put({ ...selecting('w*'), disabled: true })).status).toBe(200)
    expect((await as(owner)('GET', rules())).body).toEqual([{ id, disabled: true, ...selecting('v*') }])
    expect((await put({ ...selecting('w*'), disabled: true })).status).toBe(200)
    expect((await as(owner)('GET', rules())).body).toEqual([{ id, disabled: true, ...selecting('w*') }])
    expect((await as(owner)('PUT', `${rules()}/${id}`, { ...selecting('x'), id: id + 1 })).status).toBe(400)
    expect((await as(owner)('DELETE', `${rules()}/${id}`)).status).toBe(200)
    expect((await as(owner)('GET', rules())).body).toEqual([])
  })

  it('select something once, and only by patterns that can be read', async () => {
    const together = await Promise.all([1, 2, 3].map(() => as(owner)('POST', rules(), selecting('r*'))))
    expect(together.map(({ status }) => status).sort()).toEqual([201, 409, 409])
    expect((await as(owner)('POST', rules(), selecting('{a,b'))).status).toBe(400)
  })

  it('A20: are reached through their own project only', async () => {
    const other = await core.project('other', owner)
    const id = idOf(await as(owner)('POST', rules(), selecting('own')))
    for (const method of ['PUT', 'DELETE']) {
      const path = `/projects/${other}/immutabletagrules/${id}`
      const reply = await as(owner)(method, path, method === 'PUT' ? { id, ...selecting('q') } : undefined)
      expect(reply.status).toBe(404)
    }
    expect((await as(stranger)('GET', rules())).status).toBe(403)
  })

  it('count at once where pushes ask', async () => {
    await as(owner)('POST', rules(), selecting('now'))
    const facts = await core.directory.byId(shop)
    expect(facts?.immutableRules.map(({ rule }) => rule)).toContainEqual(selecting('now'))
  })
})

describe('quotas (A27)', () => {
  it('are those of the projects, with what is used up to the last commit', async () => {
    await core.db.prisma.quotaDelta.createMany({
      data: [
        { projectId: shop, deltaBytes: 700n, reason: 'push' },
        { projectId: shop, deltaBytes: -200n, reason: 'delete' },
      ],
    })
    expect((await core.admin('GET', `/quotas/${shop}`)).body).toMatchObject({
      id: shop,
      ref: { id: shop, name: 'shop', owner_name: 'owner' },
      hard: { storage: -1 },
      used: { storage: 500 },
    })
    const byUse = await core.admin('GET', '/quotas?sort=-used.storage&page_size=1')
    expect(byUse.body).toMatchObject([{ id: shop }])
    const filtered = await core.admin('GET', `/quotas?reference=project&reference_id=${shop}`)
    expect([filtered.headers.get('x-total-count'), filtered.body]).toMatchObject(['1', [{ id: shop }]])
    expect((await core.admin('GET', '/quotas?reference=galaxy')).body).toEqual([])
    expect((await core.admin('GET', '/quotas?reference_id=x')).body).toEqual([])
  })

  it('have a limit that administrators set', async () => {
    const put = (body: unknown) => core.admin('PUT', `/quotas/${shop}`, body)
    expect((await put({ hard: { storage: 1024 } })).status).toBe(200)
    expect((await core.admin('GET', `/projects/${shop}/summary`)).body).toMatchObject({
      quota: { hard: { storage: 1024 } },
    })
    for (const wrong of [{ hard: { storage: 0 } }, { hard: { storage: 1024 ** 5 + 1 } }, { hard: {} }]) {
      expect((await put(wrong)).status).toBe(400)
    }
    expect((await core.admin('PUT', '/quotas/99999', { hard: { storage: 1 } })).status).toBe(404)
    expect((await as(owner)('PUT', `/quotas/${shop}`, { hard: { storage: -1 } })).status).toBe(403)
    expect((await core.send('GET', '/api/v2.0/quotas', { as: ADMIN })).status).toBe(200)
  })
})
