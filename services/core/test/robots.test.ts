import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN, startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let owner: Credentials
let other: Credentials
let shopId: number
beforeAll(async () => {
  core = await startCore()
  owner = await core.user('owner')
  other = await core.user('other')
  shopId = await core.project('shop', owner)
  await core.project('other-shop', other)
})
afterAll(() => core[Symbol.asyncDispose]())

type Access = { resource: string; action: string; effect?: string }
type Body = Record<string, unknown>
const pull: Access = { resource: 'repository', action: 'pull' }
const push: Access = { resource: 'repository', action: 'push' }
const list: Access = { resource: 'repository', action: 'list' }

const as = (who: Credentials, method: string, path: string, body?: unknown) =>
  core.send(method, `/api/v2.0${path}`, { as: who, ...(body !== undefined && { body }) })
const ofProject = (name: string, access: readonly unknown[] = [pull, push], namespace = 'shop', more: Body = {}) => ({
  name,
  level: 'project',
  duration: 30,
  permissions: [{ kind: 'project', namespace, access }],
  ...more,
})
const ofSystem = (name: string, permissions: readonly unknown[], more: Body = {}) => ({
  name,
  level: 'system',
  duration: -1,
  permissions,
  ...more,
})
type Made = { id: number; name: string; secret: string; credentials: { name: string; password: string } }
async function make(body: object, who: Credentials = ADMIN): Promise<Made> {
  const reply = await as(who, 'POST', '/robots', body)
  if (reply.status !== 201) throw new Error(`no robot: ${reply.status} ${reply.text}`)
  const made = reply.body as { id: number; name: string; secret: string }
  return { ...made, credentials: { name: made.name, password: made.secret } }
}
const projects = async (who: Credentials) => {
  const { body } = await as(who, 'GET', '/projects?public=false')
  return (body as { name: string }[]).map(({ name }) => name)
}
const message = ({ body }: { body: unknown }) => (body as { errors: { message: string }[] }).errors[0]?.message

describe('robots', () => {
  it('are made with a secret that is told once, and prove themselves with it (A14)', async () => {
    const reply = await as(owner, 'POST', '/robots', ofProject('ci', [pull, push], 'shop', { secret: 'Chosen12345' }))
    expect(reply.status).toBe(201)
    const made = reply.body as { id: number; name: string; secret: string; expires_at: number; creation_time: string }
    expect(made.name).toBe('robot$shop+ci')
    expect(made.secret).toMatch(/^[A-Za-z0-9]{32}$/)
    expect(made.expires_at).toBe(Math.floor(Date.parse(made.creation_time) / 1000) + 30 * 86_400)
    expect(reply.headers.get('location')).toBe(`/api/v2.0/robots/${made.id}`)
    expect(await projects({ name: made.name, password: made.secret })).toEqual(['shop'])
    expect(await projects({ name: made.name, password: 'Chosen12345' })).toEqual([])
    const shown = await as(owner, 'GET', `/robots/${made.id}`)
    expect(shown.text).not.toContain(made.secret)
    expect(shown.body).toEqual({
      id: made.id,
      name: 'robot$shop+ci',
      level: 'project',
      duration: 30,
      editable: true,
      disable: false,
      expires_at: made.expires_at,
      permissions: [{ kind: 'project', namespace: 'shop', access: [pull, push] }],
      creator_type: 'local',
      creator_ref: expect.any(Number) as unknown,
      creation_time: made.creation_time,
      update_time: expect.any(String) as unknown,
    })
    const events = await core.db.prisma.outboxEvent.findMany({ where: { type: { contains: 'Robot' } } })
    expect(JSON.stringify(events.map(({ payload }) => payload))).not.toContain(made.secret)
    expect(events.at(-1)).toMatchObject({ projectId: shopId })
  })

  it.each([
    [{ name: 'Upper' }, 'robot name is not in lower case or contains illegal characters'],
    [{ name: 'robot$core' }, 'robot name is not in lower case'],
    [{ name: 'shop+ci' }, 'robot name is not in lower case'],
    [{ name: 'two words' }, 'robot name is not in lower case'],
    [{ name: 'line\nline' }, 'robot name is not in lower case'],
    [{ name: 'x'.repeat(250) }, 'longer than 255 characters with its prefix'],
    [{ duration: 0 }, 'bad request error duration input: 0'],
    [{ duration: -2 }, 'bad request error duration input: -2'],
    [{ duration: 2 ** 31 }, 'bad request error duration input'],
    [{ level: 'both' }, 'bad request error level input: both'],
    [{ permissions: [] }, 'bad request empty permission'],
    [{ permissions: null }, 'bad request empty permission'],
    [{ permissions: [{ kind: 'project', namespace: 'shop', access: null }] }, 'bad request empty access'],
    [{ permissions: [{ kind: 'project', namespace: 'shop', access: [] }] }, 'bad request empty access'],
    [{ permissions: [{ kind: 'all', namespace: 'shop', access: [pull] }] }, 'bad request permission level: all'],
    [
      { permissions: [{ kind: 'project', namespace: 'shop', access: [{ resource: '*', action: '*' }] }] },
      'bad request permission: *:*',
    ],
    [
      { permissions: [{ kind: 'project', namespace: 'shop', access: [{ ...pull, action: 'scanner-pull' }] }] },
      'bad request permission: repository:scanner-pull',
    ],
    [
      { permissions: [{ kind: 'project', namespace: 'shop', access: [{ ...pull, effect: 'grant' }] }] },
      'bad request permission effect: grant',
    ],
    [
      {
        permissions: [
          { kind: 'project', namespace: 'shop', access: [pull] },
          { kind: 'project', namespace: 'other-shop', access: [pull] },
        ],
      },
      'bad request permission',
    ],
    [{ description: 'x'.repeat(1025) }, 'description is longer than 1024'],
  ] as [Body, string][])('are not made of what is wrong, case %# (A09, A11)', async (wrong, text) => {
    const reply = await as(owner, 'POST', '/robots', ofProject('bad', [pull], 'shop', wrong))
    expect([reply.status, message(reply)]).toEqual([400, expect.stringContaining(text)])
  })

  it('are made by nobody with more than he has (A09)', async () => {
    const all = { kind: 'project', namespace: '*', access: [pull] }
    const ruling = { kind: 'system', namespace: '/', access: [{ resource: 'project', action: 'create' }] }
    for (const [what, body] of [
      ['a system robot', ofSystem('esc', [ruling])],
      ['all projects by a system robot', ofSystem('esc', [all])],
      ['all projects by a robot of a project', ofProject('esc', [pull], '*')],
      ['another project', ofProject('esc', [pull], 'other-shop')],
      ['a project that is not there', ofProject('esc', [pull], 'nowhere')],
      ['the system by a robot of a project', { ...ofProject('esc'), permissions: [ruling] }],
    ] as const) {
      expect([what, (await as(owner, 'POST', '/robots', body)).status]).toEqual([what, 403])
      expect([what, (await as(null, 'POST', '/robots', body)).status]).toEqual([what, 401])
    }
    expect((await as(ADMIN, 'POST', '/robots', ofProject('esc', [pull], 'nowhere'))).status).toBe(404)
    // Everything that the catalogue has, as a page with all boxes ticked sends it, an administrator of a project may give.
    const { body } = await as(owner, 'GET', '/permissions')
    const everything = (body as { project: Access[] }).project
    expect((await as(owner, 'POST', '/robots', ofProject('everything', everything))).status).toBe(201)
  })

  it('make robots with what they have and no more, nor themselves stronger (A10)', async () => {
    const making = ['create', 'read', 'list', 'delete'].map((action) => ({ resource: 'robot', action }))
    const maker = await make(ofProject('maker', [...making, pull]), owner)
    const child = await make(ofProject('child', [pull]), maker.credentials)
    expect((await as(owner, 'GET', `/robots/${child.id}`)).body).toMatchObject({
      creator_type: 'robot',
      creator_ref: maker.id,
    })
    const more = await as(maker.credentials, 'POST', '/robots', ofProject('more', [pull, push]))
    expect([more.status, more.body]).toEqual([
      403,
      { errors: [{ code: 'DENIED', message: expect.stringContaining('repository:push') as unknown }] },
    ])
    for (const robot of [maker, child]) {
      const stronger = { ...ofProject('x', [pull, push]), name: robot.name }
      expect((await as(maker.credentials, 'PUT', `/robots/${robot.id}`, stronger)).status).toBe(403)
      expect((await as(maker.credentials, 'PATCH', `/robots/${robot.id}`, { secret: '' })).status).toBe(403)
    }
    expect((await as(maker.credentials, 'DELETE', `/robots/${child.id}`)).status).toBe(200)

    const systemMaker = await make(
      ofSystem('system-maker', [
        { kind: 'system', namespace: '/', access: making },
        { kind: 'project', namespace: 'shop', access: [pull] },
        { kind: 'project', namespace: '*', access: [list] },
      ]),
    )
    const tried = async (name: string, namespace: string, access: Access[]) =>
      (await as(systemMaker.credentials, 'POST', '/robots', ofSystem(name, [{ kind: 'project', namespace, access }])))
        .status
    expect(await tried('a', 'shop', [pull, list])).toBe(201)
    expect(await tried('b', '*', [list])).toBe(201)
    expect(await tried('c', '*', [pull])).toBe(403)
    expect(await tried('d', 'other-shop', [pull])).toBe(403)
    expect(await tried('e', 'other-shop', [list])).toBe(201)
    // What everybody has while a project is public is nobody's to give.
    await core.project('open-shop', ADMIN, { metadata: { public: 'true' } })
    expect(await tried('f', 'open-shop', [pull])).toBe(403)
  })

  it('pass on no more than a deny leaves them', async () => {
    const making = { kind: 'system', namespace: '/', access: [{ resource: 'robot', action: 'create' }] }
    const denied = await make(
      ofSystem('denied', [
        making,
        { kind: 'project', namespace: '*', access: [pull] },
        { kind: 'project', namespace: 'shop', access: [{ ...pull, effect: 'deny' }] },
      ]),
    )
    const give = (name: string, namespace: string) =>
      as(denied.credentials, 'POST', '/robots', ofSystem(name, [{ kind: 'project', namespace, access: [pull] }]))
    expect((await give('around', '*')).status).toBe(403)
    expect((await give('shop-only', 'shop')).status).toBe(403)
    expect((await give('elsewhere', 'other-shop')).status).toBe(201)
    expect((await as(ADMIN, 'GET', `/robots/${denied.id}`)).body).toMatchObject({
      permissions: expect.arrayContaining([
        { kind: 'project', namespace: 'shop', access: [{ ...pull, effect: 'deny' }] },
      ]) as unknown,
    })
  })

  it('tell the effect of a permission when it was given, and then only, as Terraform compares it', async () => {
    const [said, left] = [
      { ...pull, effect: 'allow' },
      { resource: 'repository', action: 'push' },
    ]
    const { id, name } = await make(ofProject('effects', [said, left]), owner)
    const shown = async () =>
      ((await as(owner, 'GET', `/robots/${id}`)).body as { permissions: { access: Access[] }[] }).permissions[0]!.access
    expect(await shown()).toEqual([said, left])
    const body = { ...ofProject('effects', [pull, { ...left, effect: 'allow' }]), name }
    expect((await as(owner, 'PUT', `/robots/${id}`, body)).status).toBe(200)
    expect(await shown()).toEqual([pull, { ...left, effect: 'allow' }])
  })

  it('belong to their project: another’s administrator learns nothing and changes nothing (A19)', async () => {
    const { id, name, credentials } = await make(ofProject('mine'), owner)
    const system = await make(ofSystem('ruler', [{ kind: 'project', namespace: '*', access: [pull] }]))
    const body = { ...ofProject('mine', [pull], 'other-shop'), name }
    for (const who of [id, system.id, 99_999_999, 2 ** 40]) {
      const replies = await Promise.all([
        as(other, 'GET', `/robots/${who}`),
        as(other, 'PUT', `/robots/${who}`, body),
        as(other, 'PATCH', `/robots/${who}`, { secret: '' }),
        as(other, 'DELETE', `/robots/${who}`),
      ])
      expect([who, ...replies.map((reply) => `${reply.status} ${message(reply)}`)]).toEqual([
        who,
        ...Array<string>(4).fill('403 forbidden'),
      ])
      expect((await as(null, 'GET', `/robots/${who}`)).status).toBe(401)
    }
    expect((await as(ADMIN, 'GET', '/robots/99999999')).status).toBe(404)
    expect(await projects(credentials)).toEqual(['shop'])
    // A body that names the other project does not move it there.
    const moved = await as(owner, 'PUT', `/robots/${id}`, body)
    expect([moved.status, message(moved)]).toEqual([400, 'cannot update the project id of robot'])
  })

  it('change as they are told, and only what may change (A10)', async () => {
    const robot = await make(ofProject('changing'), owner)
    const put = (more: Body, who = owner) =>
      as(who, 'PUT', `/robots/${robot.id}`, { ...ofProject('x', [pull]), name: robot.name, ...more })
    expect((await put({ description: 'new', duration: 10 })).status).toBe(200)
    const shown = (await as(owner, 'GET', `/robots/${robot.id}`)).body as Record<string, unknown>
    expect(shown).toMatchObject({ description: 'new', duration: 10, permissions: [{ access: [pull] }] })
    expect(shown.expires_at).toBe(Math.floor(Date.parse(String(shown.creation_time)) / 1000) + 10 * 86_400)
    for (const [wrong, text] of [
      [{ name: 'robot$shop+renamed' }, 'cannot update the level or name of robot'],
      [{ level: 'system' }, 'cannot update the level or name of robot'],
      [{ duration: 0 }, 'bad request error duration input: 0'],
      [{ duration: -2 }, 'bad request error duration input: -2'],
    ] as const) {
      const reply = await put(wrong)
      expect([reply.status, message(reply)]).toEqual([400, expect.stringContaining(text)])
    }
    const fields = async () =>
      (
        await core.db.prisma.outboxEvent.findMany({
          where: { type: { endsWith: 'RobotUpdated' } },
          orderBy: { id: 'asc' },
        })
      ).map(({ payload }) => (payload as { fields?: string[] }).fields)
    expect((await fields()).at(-1)).toEqual(['description', 'duration', 'permissions'])
    const before = (await fields()).length
    expect((await put({ description: 'new', duration: 10 })).status).toBe(200)
    expect(await fields()).toHaveLength(before)
  })

  it('never end with what two changes at once gave together', async () => {
    const robot = await make(ofProject('raced', [pull]), owner)
    const put = (access: Access[]) =>
      as(owner, 'PUT', `/robots/${robot.id}`, { ...ofProject('x', access), name: robot.name })
    const accesses = [[push], [list], [pull, list], [pull, push]]
    for (let round = 0; round < 3; round++) {
      await Promise.all(accesses.map(put))
      const { permissions } = (await as(owner, 'GET', `/robots/${robot.id}`)).body as {
        permissions: { access: Access[] }[]
      }
      const key = (all: Access[]) =>
        all
          .map(({ action }) => action)
          .sort()
          .join()
      expect(accesses.map(key)).toContain(key(permissions[0]!.access))
    }
  })

  it('of a Harbor 1.x can only be deleted', async () => {
    const old = await core.db.prisma.robot.create({
      data: { name: 'shop+old', nameKey: 'shop+old', projectId: shopId, editable: false },
    })
    const body = { ...ofProject('old', [pull]), name: 'robot$shop+old' }
    const reply = await as(owner, 'PUT', `/robots/${old.id}`, body)
    expect([reply.status, message(reply)]).toEqual([403, 'editing of legacy robot is not allowed'])
    expect((await as(owner, 'DELETE', `/robots/${old.id}`)).status).toBe(200)
  })

  it('get another secret, made or chosen, and the old one ends', async () => {
    const robot = await make(ofProject('secretive'), owner)
    const works = async (password: string) => (await projects({ name: robot.name, password })).length === 1
    expect(await works(robot.secret)).toBe(true)
    const made = ((await as(owner, 'PATCH', `/robots/${robot.id}`, { secret: '' })).body as { secret: string }).secret
    expect([await works(made), await works(robot.secret)]).toEqual([true, false])
    for (const secret of ['Ab1', 'alllowercase1', 'NOLOWER123', `Aa1${'x'.repeat(126)}`]) {
      expect((await as(owner, 'PATCH', `/robots/${robot.id}`, { secret })).status).toBe(400)
    }
    const chosen = await as(owner, 'PATCH', `/robots/${robot.id}`, { secret: 'Chosen12345' })
    expect([chosen.status, chosen.body]).toEqual([200, {}])
    expect([await works('Chosen12345'), await works(made)]).toEqual([true, false])
    const [stored] = await core.db.prisma.credential.findMany({ where: { robotId: robot.id } })
    expect(stored?.version).toBe('argon2id')
  })

  it('are out when they are disabled, expired or deleted, and their names are free again (A13)', async () => {
    const robot = await make(ofProject('switched', [pull]), owner)
    const put = (disable: boolean) =>
      as(owner, 'PUT', `/robots/${robot.id}`, { ...ofProject('x', [pull]), name: robot.name, disable })
    expect(await projects(robot.credentials)).toEqual(['shop'])
    expect((await put(true)).status).toBe(200)
    expect(await projects(robot.credentials)).toEqual([])
    expect((await put(false)).status).toBe(200)
    expect(await projects(robot.credentials)).toEqual(['shop'])
    // Its time comes with no statement that anybody would hear of, while its sign-in is remembered.
    await core.db.prisma.$transaction([
      core.db.prisma.$executeRaw`set local session_replication_role = replica`,
      core.db.prisma.robot.update({ where: { id: robot.id }, data: { expiresAt: new Date(0) } }),
    ])
    core.authorities.forget()
    expect((await as(robot.credentials, 'GET', '/users/current')).status).toBe(401)
    expect((await as(robot.credentials, 'GET', '/projects/shop')).status).toBe(401)
    expect((await as(owner, 'DELETE', `/robots/${robot.id}`)).status).toBe(200)
    expect((await as(owner, 'DELETE', `/robots/${robot.id}`)).status).toBe(404)
    const again = await make(ofProject('switched', [pull]), owner)
    expect(await projects(robot.credentials)).toEqual([])
    expect(await projects(again.credentials)).toEqual(['shop'])
  })

  it('go with their project, and a later one of its name has none of them', async () => {
    const gone = await core.project('short-lived', owner)
    const robot = await make(ofProject('ci', [pull], 'short-lived'), owner)
    const wide = await make(
      ofSystem(
        'wide',
        ['short-lived', 'shop'].map((namespace) => ({ kind: 'project', namespace, access: [pull] })),
      ),
    )
    expect((await as(owner, 'DELETE', '/projects/short-lived')).status).toBe(200)
    await core.project('short-lived', owner)
    expect(await projects(robot.credentials)).toEqual([])
    expect(await projects(wide.credentials)).toEqual(['shop'])
    expect((await as(owner, 'GET', `/robots/${robot.id}`)).status).toBe(403)
    expect((await as(ADMIN, 'GET', `/robots/${robot.id}`)).status).toBe(404)
    expect((await as(ADMIN, 'GET', `/robots?q=Level%3Dproject,ProjectID%3D${gone}`)).status).toBe(404)
    await make(ofProject('ci', [pull], 'short-lived'), owner)
  })

  it('are listed by level, in pages', async () => {
    const names = async (path: string, who: Credentials = owner) =>
      ((await as(who, 'GET', path)).body as { name: string }[]).map(({ name }) => name)
    await core.project('listed', owner)
    const listed = ((await as(owner, 'GET', '/projects/listed')).body as { project_id: number }).project_id
    for (const name of ['b', 'a', 'c_x']) await make(ofProject(name, [pull], 'listed'), owner)
    const of = `/robots?q=Level%3Dproject,ProjectID%3D${listed}`
    expect(await names(of)).toEqual(['robot$listed+a', 'robot$listed+b', 'robot$listed+c_x'])
    expect(await names(`${of}&sort=-name&page_size=2`)).toEqual(['robot$listed+c_x', 'robot$listed+b'])
    expect(await names(`${of},name%3D~_`)).toEqual(['robot$listed+c_x'])
    expect((await as(owner, 'GET', `${of}&page_size=2`)).headers.get('x-total-count')).toBe('3')
    expect((await as(other, 'GET', of)).status).toBe(403)
    expect((await as(null, 'GET', of)).status).toBe(401)
    expect((await as(owner, 'GET', '/robots')).status).toBe(403)
    expect(await names('/robots?page_size=100', ADMIN)).toContain('robot$ruler')
    expect((await names('/robots?page_size=100', ADMIN)).some((name) => name.includes('+'))).toBe(false)
  })

  it('take the prefix that is set now', async () => {
    const robot = await make(ofProject('prefixed', [pull]), owner)
    const person = await core.user('bot_person')
    expect((await core.admin('PUT', '/configurations', { robot_name_prefix: 'bot_' })).status).toBe(200)
    try {
      expect(await projects(robot.credentials)).toEqual([])
      expect(await projects({ name: 'bot_shop+prefixed', password: robot.secret })).toEqual(['shop'])
      expect((await as(owner, 'GET', `/robots/${robot.id}`)).body).toMatchObject({ name: 'bot_shop+prefixed' })
      expect((await as(person, 'GET', '/users/current')).body).toMatchObject({ username: 'bot_person' })
    } finally {
      await core.admin('PUT', '/configurations', { robot_name_prefix: 'robot$' })
    }
  })
})

describe('what a robot was last used for', () => {
  const uses = (who: Credentials, ids: (number | string)[]) =>
    core.send('GET', `/api/haven/v1/robots/uses?ids=${ids.join(',')}`, { as: who })

  it('is shown to who may read the robot, and survives another secret', async () => {
    const robot = await make(ofProject('used', [pull]), owner)
    const foreign = await make(ofProject('foreign', [pull], 'other-shop'), other)
    expect((await uses(owner, [robot.id])).body).toEqual([{ id: robot.id, name: robot.name, state: 'active' }])
    await core.send('GET', '/api/v2.0/projects', { as: robot.credentials, headers: { 'User-Agent': 'docker/29' } })
    await core.signIn.uses.flush()
    await as(owner, 'PATCH', `/robots/${robot.id}`, { secret: '' })
    expect((await uses(owner, [robot.id, foreign.id, 99_999_999])).body).toEqual([
      {
        id: robot.id,
        name: robot.name,
        state: 'active',
        lastUsedAt: expect.any(String) as unknown,
        address: expect.any(String) as unknown,
        agent: 'docker/29',
      },
    ])
    expect((await uses(null, [robot.id])).status).toBe(401)
    expect((await uses(owner, ['x'])).status).toBe(422)
  })
})

describe('a robot that is refused', () => {
  it('answers a stranger the same whatever the reason, and tells its owner which', async () => {
    const robot = await make(ofProject('refused', [pull]), owner)
    const wrong = { name: robot.name, password: 'Wrong1234' }
    const replies = [await as(wrong, 'GET', '/users/current')]
    const body = { ...ofProject('x', [pull]), name: robot.name, disable: true }
    await as(owner, 'PUT', `/robots/${robot.id}`, body)
    replies.push(await as(robot.credentials, 'GET', '/users/current'))
    await core.db.prisma.robot.update({ where: { id: robot.id }, data: { disabledAt: null, expiresAt: new Date(0) } })
    core.authorities.forget()
    replies.push(await as(robot.credentials, 'GET', '/users/current'))
    replies.push(await as({ name: 'robot$shop+nobody', password: 'Wrong1234' }, 'GET', '/users/current'))
    expect(new Set(replies.map(({ status, text }) => `${status} ${text}`)).size).toBe(1)

    const events = await core.db.prisma.outboxEvent.findMany({
      where: { type: { endsWith: 'RobotSignInRefused' }, payload: { path: ['robot', 'name'], equals: robot.name } },
      orderBy: { id: 'asc' },
    })
    expect(events.map(({ payload, projectId }) => [(payload as { reason: string }).reason, projectId])).toEqual([
      ['ROBOT_REFUSAL_WRONG_SECRET', shopId],
      ['ROBOT_REFUSAL_DISABLED', shopId],
      ['ROBOT_REFUSAL_EXPIRED', shopId],
    ])
    const query = { principal: `robot:${robot.name}`, project: 'shop', resource: 'repository', action: 'pull' }
    const explained = await core.send(
      'GET',
      `/api/haven/v1/permissions/explain?${new URLSearchParams(query).toString()}`,
      { as: owner },
    )
    expect(explained.body).toEqual({
      allowed: false,
      reasons: [{ code: 'inactive', message: `${robot.name} is expired, and may do nothing`, grants: false }],
      wouldAllow: [{ kind: 'enable', message: `${robot.name} given a longer duration` }],
    })
  })
})
