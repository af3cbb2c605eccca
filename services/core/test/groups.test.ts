import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
beforeAll(async () => {
  core = await startCore()
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const as = (who: Credentials, method: string, path: string, body?: unknown) =>
  core.send(method, `/api/v2.0${path}`, { as: who, ...(body !== undefined && { body }) })
const idOf = (reply: { headers: Headers }) => Number(reply.headers.get('location')?.split('/').at(-1))
const newGroup = async (group_name: string, group_type = 3) =>
  idOf(await core.admin('POST', '/usergroups', { group_name, group_type }))
/** What the provider says when the user signs in. */
const putInto = (groupId: number, userId: number) => core.db.prisma.groupMember.create({ data: { groupId, userId } })

describe('user groups', () => {
  it('are made, read without their id, renamed and deleted', async () => {
    const made = await core.admin('POST', '/usergroups', { group_name: 'builders', group_type: 3 })
    expect([made.status, made.headers.get('location')]).toEqual([
      201,
      expect.stringMatching(/^\/api\/v2\.0\/usergroups\/\d+$/),
    ])
    const path = `/usergroups/${idOf(made)}`
    expect((await core.admin('GET', path)).body).toEqual({ group_name: 'builders', group_type: 3 })
    expect((await core.admin('PUT', path, { group_name: 'makers' })).status).toBe(200)
    expect((await core.admin('GET', path)).body).toEqual({ group_name: 'makers', group_type: 3 })
    expect((await core.admin('DELETE', path)).status).toBe(200)
    expect((await core.admin('GET', path)).status).toBe(404)
    expect((await core.admin('PUT', path, { group_name: 'x' })).status).toBe(404)
    expect((await core.admin('DELETE', path)).status).toBe(200)
  })

  it('have a name once of each kind, whoever is faster', async () => {
    const many = Array.from({ length: 5 }, () =>
      core.admin('POST', '/usergroups', { group_name: 'race', group_type: 2 }),
    )
    expect((await Promise.all(many)).map(({ status }) => status).sort()).toEqual([201, 409, 409, 409, 409])
    expect(await newGroup('race', 3)).toBeGreaterThan(0)
    expect(await newGroup('Race', 3)).toBeGreaterThan(0)
    const other = await newGroup('race-2', 3)
    expect((await core.admin('PUT', `/usergroups/${other}`, { group_name: 'race' })).status).toBe(409)
  })

  it('keep a kind that has no name', async () => {
    const id = await newGroup('odd', 7)
    expect((await core.admin('GET', `/usergroups/${id}`)).body).toEqual({ group_name: 'odd', group_type: 7 })
  })

  it.each([
    [{ group_name: '', group_type: 3 }, 400, expect.stringContaining('1 to 255')],
    [{ group_type: 3 }, 400, expect.stringContaining('1 to 255')],
    [{ group_name: 'x'.repeat(256), group_type: 3 }, 400, expect.stringContaining('1 to 255')],
    [{ group_name: 'a\u0007b', group_type: 3 }, 400, expect.stringContaining('control character')],
    [{ group_name: 'x', group_type: 'oidc' }, 422, expect.anything()],
    [{ group_name: 'x', group_type: 1, ldap_group_dn: 'cn=x,dc=example,dc=com' }, 400, expect.stringContaining('LDAP')],
  ])('refuse %j', async (body, status, text) => {
    const reply = await core.admin('POST', '/usergroups', body)
    expect([reply.status, reply.text]).toEqual([status, text])
  })

  it('are listed to administrators, a part of the name at a time; anybody may look up names', async () => {
    const ann = await core.user('ann')
    for (const name of ['list-a', 'list-b', 'list-c', 'list%d']) await newGroup(name)
    const page = await core.admin('GET', '/usergroups?group_name=LIST&page=2&page_size=2')
    expect([page.headers.get('x-total-count'), page.body]).toMatchObject([
      '4',
      [{ group_name: 'list-c', id: expect.any(Number) }, { group_name: 'list%d' }],
    ])
    expect((await core.admin('GET', '/usergroups?group_name=t%25')).body).toMatchObject([{ group_name: 'list%d' }])
    const found = await as(ann, 'GET', '/usergroups/search?groupname=list-b')
    expect([found.status, found.body]).toEqual([200, [{ id: expect.any(Number), group_name: 'list-b', group_type: 3 }]])
  })

  it('A12 A27: are nobody’s business but administrators’', async () => {
    const eve = await core.user('eve')
    const id = await newGroup('wanted')
    const calls: [string, string, unknown?][] = [
      ['GET', '/usergroups'],
      ['POST', '/usergroups', { group_name: 'mine', group_type: 3 }],
      ['GET', `/usergroups/${id}`],
      ['PUT', `/usergroups/${id}`, { group_name: 'mine' }],
      ['DELETE', `/usergroups/${id}`],
      ['GET', '/usergroups/999999'],
    ]
    for (const [method, path, body] of calls) {
      expect((await as(eve, method, path, body)).status).toBe(403)
      expect((await as(null, method, path, body)).status).toBe(401)
    }
    expect((await as(null, 'GET', '/usergroups/search?groupname=a')).status).toBe(401)
  })
})

describe('groups as members', () => {
  it('give each of their members the role, and take it with them', async () => {
    const bob = await core.user('bob')
    const id = await newGroup('team')
    const project = await core.project('team-a')
    await putInto(id, bob.id)
    expect((await as(bob, 'GET', '/projects/team-a')).status).toBe(403)
    const added = await core.admin('POST', '/projects/team-a/members', { role_id: 2, member_group: { id } })
    expect(added.status).toBe(201)
    const mid = idOf(added)
    expect((await core.admin('GET', `/projects/team-a/members/${mid}`)).body).toMatchObject({
      entity_id: id,
      entity_name: 'team',
      entity_type: 'g',
      role_id: 2,
      role_name: 'developer',
    })
    expect((await as(bob, 'GET', '/projects/team-a')).body).toMatchObject({ current_user_role_id: 2 })
    expect((await as(bob, 'GET', '/projects?name=team-a')).body).toMatchObject([
      { project_id: project, current_user_role_id: 2, current_user_role_ids: [2] },
    ])
    const allowed = await as(bob, 'GET', `/users/current/permissions?scope=/project/${project}&relative=true`)
    expect(allowed.body).toContainEqual({ resource: 'repository', action: 'push' })
    expect((await core.admin('DELETE', `/usergroups/${id}`)).status).toBe(200)
    expect((await as(bob, 'GET', '/projects/team-a')).status).toBe(403)
    expect((await core.admin('GET', '/projects/team-a/members?entityname=team')).body).toEqual([])
  })

  it('unite their roles with those of the user himself, the strongest first', async () => {
    const cleo = await core.user('cleo')
    const [guests, masters] = [await newGroup('guests'), await newGroup('masters')]
    await core.project('mixed')
    for (const group of [guests, masters]) await putInto(group, cleo.id)
    const add = (body: object) => core.admin('POST', '/projects/mixed/members', body)
    expect((await add({ role_id: 3, member_group: { group_name: 'guests', group_type: 3 } })).status).toBe(201)
    expect((await add({ role_id: 4, member_group: { group_name: 'masters' } })).status).toBe(201)
    expect((await add({ role_id: 2, member_user: { username: 'cleo' } })).status).toBe(201)
    expect((await as(cleo, 'GET', '/projects/mixed')).body).toMatchObject({
      current_user_role_id: 4,
      current_user_role_ids: [4, 2, 3],
    })
    expect((await add({ role_id: 2, member_group: { id: guests } })).status).toBe(409)
  })

  it('A08: are given no more than the giver has', async () => {
    const dora = await core.user('dora')
    const id = await newGroup('climbers')
    await core.project('steep')
    await putInto(id, dora.id)
    await core.admin('POST', '/projects/steep/members', { role_id: 4, member_group: { id } })
    const other = await newGroup('others')
    const reply = await as(dora, 'POST', '/projects/steep/members', { role_id: 1, member_group: { id: other } })
    expect(reply.status).toBe(403)
  })

  it('are found by name only where there are some, and made where a provider will answer for them', async () => {
    await core.project('named-groups')
    const add = (member_group: object) =>
      core.admin('POST', '/projects/named-groups/members', { role_id: 2, member_group })
    expect(await add({ group_name: 'nobody', group_type: 3 })).toMatchObject({
      status: 404,
      body: { errors: [{ message: 'nobody not found: not supported' }] },
    })
    await core.db.prisma.setting.create({ data: { key: 'auth_mode', value: 'oidc_auth' } })
    try {
      core.settings.forget()
      expect((await add({ group_name: 'nobody' })).status).toBe(201)
      const list = await core.admin('GET', '/usergroups?group_name=nobody')
      expect(list.body).toMatchObject([{ group_name: 'nobody', group_type: 3 }])
    } finally {
      await core.db.prisma.setting.deleteMany({ where: { key: 'auth_mode' } })
      core.settings.forget()
    }
  })

  it('R8: are not the only ones: no user leaves a grant behind either', async () => {
    await core.project('hasty')
    for (let round = 0; round < 5; round++) {
      const { id } = await core.user(`hasty-${round}`)
      await Promise.all([
        core.admin('POST', '/projects/hasty/members', { role_id: 2, member_user: { user_id: id } }),
        core.admin('DELETE', `/users/${id}`),
      ])
    }
    expect((await core.admin('GET', '/projects/hasty/members')).body).toMatchObject([{ entity_name: 'admin' }])
  })

  it('R8: leave no grant behind when they are deleted while they become members', async () => {
    await core.project('busy')
    for (let round = 0; round < 5; round++) {
      const id = await newGroup(`brief-${round}`)
      await Promise.all([
        core.admin('POST', '/projects/busy/members', { role_id: 2, member_group: { id } }),
        core.admin('DELETE', `/usergroups/${id}`),
      ])
    }
    expect((await core.admin('GET', '/projects/busy/members')).body).toMatchObject([{ entity_name: 'admin' }])
  })
})

describe('a renamed group of an issuer', () => {
  it('is that of another claim, and empty until the issuer says who is in it', async () => {
    const finn = await core.user('finn')
    const id = await newGroup('old-claim')
    await core.project('claimed')
    await putInto(id, finn.id)
    await core.admin('POST', '/projects/claimed/members', { role_id: 2, member_group: { id } })
    expect((await as(finn, 'GET', '/projects/claimed')).status).toBe(200)
    expect((await core.admin('PUT', `/usergroups/${id}`, { group_name: 'new-claim' })).status).toBe(200)
    expect((await as(finn, 'GET', '/projects/claimed')).status).toBe(403)
    expect(await core.db.prisma.group.findUnique({ where: { id } })).toMatchObject({ externalId: 'new-claim' })
  })
})
