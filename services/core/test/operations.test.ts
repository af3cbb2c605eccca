import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { contentOf, type Content } from './content.ts'
import { ADMIN, startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let push: Content['push']
let owner: Credentials & { id: number }
let guest: Credentials

beforeAll(async () => {
  core = await startCore()
  ;({ push } = contentOf(core))
  owner = await core.user('owner')
  guest = await core.user('guest')
  await core.project('shop', owner)
  await core.project('released', owner)
  await core.project('of-admin')
  await core.admin('POST', '/projects/shop/members', { role_id: 3, member_user: { username: 'guest' } })
  for (const tag of ['1', '2', '3']) await push('shop/app', tag)
  await push('shop/deep/er', '1')
})
afterAll(() => core[Symbol.asyncDispose]())
beforeEach(async () => {
  await core.db.prisma.execution.deleteMany()
})

const PATH = '/api/haven/v1/operations'
type Operation = { id: number; state: string; total: number; done: number; failed: number; failures: object[] }
const ask = (as: Credentials, body: unknown, key?: string) =>
  core.send('POST', PATH, { as, body, ...(key !== undefined && { headers: { 'Idempotency-Key': key } }) })
const get = (path: string, as: Credentials = owner) => core.send('GET', `${PATH}${path}`, { as })
const all = { kind: 'delete', selector: { project: 'shop' } }
const parameters = async () => (await core.db.prisma.task.findFirst({ orderBy: { id: 'desc' } }))!.parameters as object

describe('operations on many artifacts', () => {
  it('begin with what was chosen as it is then, and with names of nothing as failures', async () => {
    const references = [
      { repository: 'app', reference: '1' },
      { repository: 'app', reference: '1' },
      { repository: 'deep/er', reference: '1' },
      { repository: 'app', reference: 'none' },
      { repository: 'none', reference: `sha256:${'0'.repeat(64)}` },
    ]
    const reply = await ask(owner, { kind: 'delete', selector: { project: 'shop', references } })
    const { id } = reply.body as Operation
    expect([reply.status, reply.headers.get('location')]).toEqual([201, `${PATH}/${id}`])
    expect(reply.body).toMatchObject({
      kind: 'delete',
      dryRun: false,
      project: 'shop',
      state: 'Pending',
      total: 4,
      done: 2,
      failed: 2,
      failures: [{ code: 'NOT_FOUND', count: 2 }],
    })
    expect((await get(`/${id}`)).body).toEqual(reply.body)
    const failures = await get(`/${id}/failures?page_size=1&page=2`)
    expect([failures.headers.get('x-total-count'), failures.body]).toEqual([
      '2',
      [{ item: `shop/none@sha256:${'0'.repeat(64)}`, code: 'NOT_FOUND', message: expect.any(String) }],
    ])
    expect(await parameters()).toMatchObject({
      chosen: { artifacts: [expect.any(String), expect.any(String)] },
      owner: { kind: 'ACTOR_KIND_USER', id: String(owner.id), name: 'owner' },
      requestId: expect.any(String),
      sourceAddress: '127.0.0.1',
    })
  })

  it('begin with a filter, which is read again when they work', async () => {
    const selector = { project: 'shop', repository: 'app', q: 'tags=~1,push_time=[2020-01-01 00:00:00~]' }
    const reply = await ask(owner, { kind: 'delete', dryRun: true, selector })
    expect(reply.body).toMatchObject({ total: 1, dryRun: true })
    expect(await parameters()).toMatchObject({
      dryRun: true,
      matching: {
        repository: 'app',
        conditions: [
          { field: 'tags', match: 'contains', value: '1' },
          { field: 'push_time', match: 'range', min: '2020-01-01T00:00:00.000Z' },
        ],
      },
    })
    expect((await ask(owner, all)).body).toMatchObject({ total: 4 })
  })

  it.each<[string, object, number, string]>([
    ['no such kind', { ...all, kind: 'eat' }, 422, 'kind'],
    ['no project', { kind: 'delete', selector: { project: 'absent' } }, 403, ''],
    ['no reference', { kind: 'delete', selector: { project: 'shop', references: [] } }, 422, 'references'],
    [
      'two ways',
      { ...all, selector: { project: 'shop', q: 'tags=1', references: [{ repository: 'a', reference: '1' }] } },
      400,
      'either',
    ],
    [
      'a reference that is none',
      { ...all, selector: { project: 'shop', references: [{ repository: 'a', reference: ':' }] } },
      400,
      'reference',
    ],
    ['a filter that is none', { ...all, selector: { project: 'shop', q: 'tags=[1~2]' } }, 400, 'tags'],
    ['a copy to nowhere', { ...all, kind: 'copy' }, 400, 'destination'],
    ['a copy onto itself', { ...all, kind: 'copy', destination: { project: 'shop' } }, 400, 'another repository'],
    [
      'a copy to a name that is none',
      { ...all, kind: 'copy', destination: { project: 'released', repository: 'A' } },
      400,
      'repository',
    ],
    ['a label that is not named', { ...all, kind: 'label' }, 400, 'label'],
    ['a label that is not there', { ...all, kind: 'label', label: 99 }, 404, 'label'],
  ])('are refused with %s', async (_what, body, status, message) => {
    const reply = await ask(owner, body)
    expect([reply.status, reply.text]).toEqual([status, expect.stringContaining(message)])
    expect(await core.db.prisma.execution.count()).toBe(0)
  })

  it('are for who may do the same to one artifact (A13)', async () => {
    const copy = { kind: 'copy', selector: { project: 'shop' }, destination: { project: 'of-admin' } }
    expect((await ask(guest, all)).status).toBe(403)
    expect((await ask(owner, copy)).status).toBe(403)
    expect((await ask(guest, { ...copy, destination: { project: 'released' } })).status).toBe(403)
    expect((await core.send('POST', PATH, { body: all })).status).toBe(401)
    expect(await core.db.prisma.execution.count()).toBe(0)
    expect((await ask(ADMIN, copy)).status).toBe(201)
  })

  it('begin once for one key, however often and however soon it is asked for', async () => {
    const replies = await Promise.all(Array.from({ length: 8 }, () => ask(owner, all, 'key-1')))
    expect(replies.map(({ status }) => status).toSorted()).toEqual([200, 200, 200, 200, 200, 200, 200, 201])
    expect(new Set(replies.map(({ body }) => (body as Operation).id)).size).toBe(1)
    const other = await ask(owner, { ...all, dryRun: true }, 'key-1')
    expect([other.status, other.text]).toEqual([422, expect.stringContaining('Idempotency-Key')])
    expect((await ask(owner, all, 'key 2')).status).toBe(422)
    expect((await ask(ADMIN, all, 'key-1')).status).toBe(201)
    expect(await core.db.prisma.execution.count()).toBe(2)
  })

  it('are five at a time for one owner', async () => {
    const replies = await Promise.all(Array.from({ length: 8 }, () => ask(owner, all)))
    const statuses = replies.map(({ status }) => status)
    expect(statuses.toSorted()).toEqual([201, 201, 201, 201, 201, 429, 429, 429])
    const { id } = replies.find(({ status }) => status === 201)!.body as Operation
    expect((await ask(ADMIN, all)).status).toBe(201)
    await core.send('POST', `${PATH}/${id}/cancel`, { as: owner })
    expect((await ask(owner, all)).status).toBe(201)
  })

  it('are listed, seen and stopped by their owner and nobody else (A26)', async () => {
    const first = (await ask(owner, all)).body as Operation
    const second = (await ask(owner, { ...all, dryRun: true })).body as Operation
    await ask(ADMIN, all)
    const ids = async (path: string) => ((await get(path)).body as Operation[]).map(({ id }) => id)
    expect(await ids('')).toEqual([second.id, first.id])
    expect((await get('?page_size=1')).headers.get('x-total-count')).toBe('2')
    for (const path of [`/${first.id}`, `/${first.id}/failures`]) expect((await get(path, ADMIN)).status).toBe(404)
    const cancel = (as: Credentials) => core.send('POST', `${PATH}/${first.id}/cancel`, { as })
    expect((await cancel(guest)).status).toBe(404)
    expect([(await cancel(owner)).body, (await cancel(owner)).body]).toMatchObject([
      { state: 'Stopped' },
      { state: 'Stopped' },
    ])
    expect(await ids('?unfinished=true')).toEqual([second.id])
    for (const path of ['/0', '/999999', '/99999999999999999']) expect((await get(path)).status).not.toBe(200)
  })

  it('of a robot are not those of the user with its number', async () => {
    const access = [{ resource: 'artifact', action: 'delete' }]
    const permissions = [{ kind: 'project', namespace: 'shop', access }]
    const made = await core.admin('POST', '/robots', { name: 'ci', level: 'system', duration: -1, permissions })
    const { name, secret, id } = made.body as { name: string; secret: string; id: number }
    const robot = { name, password: secret }
    const { id: operation } = (await ask(robot, all)).body as Operation
    expect((await get(`/${operation}`, robot)).status).toBe(200)
    await core.db.prisma.execution.updateMany({ data: { vendorId: BigInt(owner.id) } })
    expect([id > 0, (await get(`/${operation}`)).status]).toEqual([true, 404])
  })
})
