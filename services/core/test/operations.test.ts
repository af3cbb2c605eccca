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
  await core.db.prisma.label.create({ data: { name: 'keep', scope: 'g', projectId: 0 } })
  const { id: projectId } = await core.db.prisma.project.findFirstOrThrow({ where: { name: 'of-admin' } })
  await core.db.prisma.label.create({ data: { name: 'theirs', scope: 'p', projectId } })
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
      failures: [{ code: 'NOT_FOUND', reason: 'gone', count: 2 }],
      undo: { possible: false },
    })
    expect((await get(`/${id}`)).body).toEqual(reply.body)
    const failures = await get(`/${id}/failures?page_size=1&page=2`)
    expect([failures.headers.get('x-total-count'), failures.body]).toEqual([
      '2',
      [{ item: `shop/none@sha256:${'0'.repeat(64)}`, code: 'NOT_FOUND', reason: 'gone', message: expect.any(String) }],
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
    // A list passes over both, and shows more than was wanted.
    ['a field that there is not', { ...all, selector: { project: 'shop', q: 'tag=rc' } }, 400, 'no field tag'],
    ['an operator that there is not', { ...all, selector: { project: 'shop', q: 'tags__has=1' } }, 400, 'operator'],
    ['neither project nor search', { kind: 'delete', selector: {} }, 400, 'needs a project'],
    ['a search beside a filter', { ...all, selector: { project: 'shop', search: '1', q: 'tags=1' } }, 400, 'either'],
    ['a search that is none', { ...all, selector: { search: 'colour:red' } }, 400, 'no field'],
    // Whether another project has such a label is nobody's business.
    ['a label that there is not', { ...all, selector: { search: '-label:kepe' } }, 400, 'no label kepe'],
    ['a label of another project', { ...all, selector: { search: '-label:theirs' } }, 400, 'no label theirs'],
    ['a tag that is not named', { ...all, kind: 'tag' }, 400, 'tag is missing'],
    ['a tag that is none', { ...all, kind: 'tag', tag: 'a*' }, 400, 'no tag'],
    ['all tags, but no word of it', { ...all, kind: 'untag' }, 400, 'tag is missing'],
    [
      'a digest where a tag goes',
      {
        kind: 'untag',
        selector: { project: 'shop', references: [{ repository: 'app', reference: `sha256:${'0'.repeat(64)}` }] },
      },
      400,
      'each reference is a tag',
    ],
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

  it('begin with a search, in one project or in all where the caller may list and do it (A13, A26)', async () => {
    await push('of-admin/app', '1')
    const search = 'tag:1 pushed:>-1h -label:keep'
    const reply = await ask(owner, { kind: 'delete', dryRun: true, selector: { search } })
    expect([reply.status, reply.body]).toMatchObject([201, { total: 2, dryRun: true, sample: [] }])
    expect(reply.body).not.toHaveProperty('project')
    const { projectIds, found } = (await parameters()) as { projectIds: string[]; found: object }
    expect([projectIds.length, found]).toEqual([2, { search, labels: { keep: { ids: [1] } } }])
    expect((await ask(owner, { kind: 'delete', selector: { project: 'shop', search: 'tag:2' } })).body).toMatchObject({
      project: 'shop',
      total: 1,
    })
    // Whoever may read a project and delete nothing in it finds nothing to delete.
    expect((await ask(guest, { kind: 'delete', selector: { search } })).body).toMatchObject({ total: 0 })
    expect((await ask(guest, { kind: 'delete', selector: { project: 'shop', search } })).status).toBe(403)
    expect((await ask(ADMIN, { kind: 'delete', selector: { search } })).body).toMatchObject({ total: 3 })
  })

  it('begin to take off the tags that were named', async () => {
    const references = ['1', '2'].map((reference) => ({ repository: 'app', reference }))
    expect((await ask(owner, { kind: 'untag', selector: { project: 'shop', references } })).status).toBe(201)
    const { tags } = (await parameters()) as { tags: Record<string, { names: string[] }> }
    expect(Object.values(tags).flatMap(({ names }) => names)).toEqual(['1', '2'])
    const developer = await core.user('developer')
    await core.admin('POST', '/projects/shop/members', { role_id: 2, member_user: { username: 'developer' } })
    const tag = { kind: 'tag', tag: 'x', selector: { project: 'shop' } }
    expect([(await ask(developer, tag)).status, (await ask(guest, tag)).status]).toEqual([201, 403])
    expect((await ask(developer, { ...tag, kind: 'untag' })).status).toBe(403)
  })

  describe('that are over', () => {
    const asked = { kind: 'untag', tag: '*', selector: { project: 'shop', repository: 'app' } }
    const post = (path: string, as: Credentials = owner, key?: string) =>
      core.send('POST', `${PATH}${path}`, { as, ...(key !== undefined && { headers: { 'Idempotency-Key': key } }) })

    /** As its job leaves it. */
    async function over(body: object, { failed = 0, effects = 0 } = {}): Promise<number> {
      const { id } = (await ask(owner, body)).body as Operation
      const artifacts = await core.db.prisma.manifest.findMany({ take: failed + effects, orderBy: { id: 'asc' } })
      const executionId = BigInt(id)
      const cursor = { done: 3, failed, codes: failed > 0 ? { 'PRECONDITION immutable': failed } : {}, effects }
      const failures = artifacts
        .slice(0, failed)
        .map(({ id: itemId }) => ({ itemId, item: 'a', code: 'b', message: 'c' }))
      await core.db.prisma.itemFailure.createMany({
        data: [...failures, { item: 'none', code: 'NOT_FOUND', message: '', itemId: null }].map((one) => ({
          ...one,
          executionId,
        })),
      })
      const changed = artifacts.slice(failed).map(({ id: itemId }) => ({ executionId, itemId, detail: 'v1' }))
      await core.db.prisma.itemEffect.createMany({ data: changed })
      await core.db.prisma.task.updateMany({ where: { executionId }, data: { status: 'Success', cursor } })
      await core.db.prisma.execution.update({ where: { id: executionId }, data: { status: 'Success' } })
      return id
    }

    it('are tried again on what failed, once for a key, by who may still do it', async () => {
      const id = await over(asked, { failed: 2 })
      const again = await post(`/${id}/retry`, owner, 'again')
      expect([again.status, again.body]).toMatchObject([
        201,
        { kind: 'untag', retries: id, total: 2, done: 0, failed: 0 },
      ])
      expect(await parameters()).toMatchObject({ chosen: { artifacts: expect.any(Array) }, tag: '*' })
      const replies = await Promise.all([post(`/${id}/retry`, owner, 'again'), post(`/${id}/retry`, owner, 'again')])
      const { id: tried } = again.body as Operation
      expect(replies.map(({ status, body }) => ({ status, id: (body as Operation).id }))).toEqual([
        { status: 200, id: tried },
        { status: 200, id: tried },
      ])
      expect((await post(`/${id}/retry`, ADMIN)).status).toBe(404)
      expect((await post(`/${tried}/retry`)).status).toBe(409)
      expect((await post(`/${await over(asked)}/retry`)).text).toContain('no artifact failed')
      const members = (await core.admin('GET', '/projects/shop/members?entityname=owner')).body as { id: number }[]
      const member = `/projects/shop/members/${members[0]!.id}`
      await core.admin('PUT', member, { role_id: 3 })
      const lost = await post(`/${id}/retry`)
      await core.admin('PUT', member, { role_id: 1 })
      expect(lost.status).toBe(403)
    })

    it('are undone once, and say why they cannot be', async () => {
      const id = await over(asked, { effects: 2 })
      expect((await get(`/${id}`)).body).toMatchObject({ undo: { possible: true } })
      const replies = await Promise.all([post(`/${id}/undo`), post(`/${id}/undo`), post(`/${id}/undo`)])
      expect(replies.map(({ status }) => status).toSorted()).toEqual([200, 200, 201])
      expect(replies[0]?.body).toMatchObject({ kind: 'tag', undoes: id, total: 2 })
      const { tags, kind } = (await parameters()) as { tags: Record<string, { names: string[] }>; kind: string }
      expect([kind, Object.values(tags)]).toEqual(['tag', [{ names: ['v1'] }, { names: ['v1'] }]])
      expect((await post(`/${id}/undo`, ADMIN)).status).toBe(404)
      await core.db.prisma.execution.deleteMany()

      const refusals = [
        [await over(all), 'deleted cannot be brought back'],
        [await over({ ...asked, dryRun: true }, { effects: 1 }), 'a dry run does nothing'],
        [await over(asked), 'changed nothing'],
        [
          await over(asked, { effects: 1 }).then(async (one) => {
            await core.db.prisma.task.updateMany({
              where: { executionId: BigInt(one) },
              data: { cursor: { effects: 100_001, codes: {} } },
            })
            return one
          }),
          'was not kept',
        ],
        [((await ask(owner, asked)).body as Operation).id, 'not over'],
      ] as const
      for (const [one, reason] of refusals) {
        const refused = await post(`/${one}/undo`)
        expect([refused.status, refused.text]).toEqual([409, expect.stringContaining(reason)])
      }
    })
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
