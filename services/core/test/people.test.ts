import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN, Browser, PASSWORD, startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
beforeAll(async () => {
  core = await startCore()
})
afterAll(() => core[Symbol.asyncDispose]())

const as = (who: Credentials, method: string, path: string, body?: unknown) =>
  core.send(method, `/api/v2.0${path}`, { as: who, ...(body !== undefined && { body }) })
const current = (who: Credentials) => as(who, 'GET', '/users/current')

describe('accounts', () => {
  it('never become administrators by fields of their own (A01, A02)', async () => {
    const extra = {
      sysadmin_flag: true,
      has_admin_role: true,
      admin_role_in_auth: true,
      role_id: 1,
      user_id: 1,
      salt: 'x',
      password_version: 'sha1',
    }
    const made = await core.admin('POST', '/users', {
      username: 'eve',
      email: 'eve@example.com',
      realname: 'Eve',
      password: PASSWORD,
      ...extra,
    })
    expect(made.status).toBe(201)
    const eve = { name: 'eve', password: PASSWORD }
    const id = Number(made.headers.get('location')?.match(/^\/api\/v2\.0\/users\/(\d+)$/)?.[1])
    expect((await current(eve)).body).toMatchObject({ user_id: id, sysadmin_flag: false, admin_role_in_auth: false })

    const changed = await as(eve, 'PUT', `/users/${id}`, {
      email: 'eve2@example.com',
      realname: 'E',
      comment: 'c',
      username: 'admin2',
      password: 'Other1234',
      ...extra,
    })
    expect(changed.status).toBe(200)
    expect((await current(eve)).body).toEqual({
      user_id: id,
      username: 'eve',
      email: 'eve2@example.com',
      realname: 'E',
      comment: 'c',
      sysadmin_flag: false,
      admin_role_in_auth: false,
      creation_time: expect.any(String) as unknown,
      update_time: expect.any(String) as unknown,
    })
    expect((await as(ADMIN, 'GET', '/users/1')).body).toMatchObject({ username: 'admin', sysadmin_flag: true })
  })

  it('have no password against the rule, whoever sets it, and not the same again (A68)', async () => {
    const account = (password: string) => ({
      username: 'rita',
      email: 'rita@example.com',
      realname: 'Rita',
      password,
    })
    const wrong = [
      'Passw0r',
      `Aa1${'x'.repeat(126)}`,
      'passw0rd',
      'PASSW0RD',
      'Password',
      '',
      'ÄÖÜß1234',
      'a'.repeat(100_000),
    ]
    const huge = `Aa1${'x'.repeat(10 * 1024 * 1024)}`
    const statuses = async (set: (password: string) => Promise<{ status: number }>) => {
      const answered: [string, number][] = []
      for (const password of wrong) answered.push([password.slice(0, 10), (await set(password)).status])
      return [...answered, ['huge', (await set(huge)).status]]
    }
    const refused = [...wrong.map((password) => [password.slice(0, 10), 400]), ['huge', 413]]
    expect(await statuses((password) => core.admin('POST', '/users', account(password)))).toEqual(refused)
    const made = await core.admin('POST', '/users', account(PASSWORD))
    const path = `${made.headers.get('location')!.slice('/api/v2.0'.length)}/password`
    const rita = { name: 'rita', password: PASSWORD }
    const change = (new_password: string) => as(rita, 'PUT', path, { old_password: PASSWORD, new_password })
    expect(await statuses((password) => core.admin('PUT', path, { new_password: password }))).toEqual(refused)
    expect(await statuses(change)).toEqual(refused)
    expect((await change(PASSWORD)).status).toBe(400)
    expect((await change(`${PASSWORD}\0after`)).status).toBe(422)
    // As it was typed: nothing is trimmed, and letters that look alike are not the same.
    for (const password of [` ${PASSWORD} `, `${PASSWORD}\u00e9`]) {
      expect((await core.admin('PUT', path, { new_password: password })).status).toBe(200)
      expect((await current({ name: 'rita', password })).status).toBe(200)
      for (const other of [PASSWORD, `${PASSWORD}e\u0301`]) {
        expect((await current({ name: 'rita', password: other })).status).toBe(401)
      }
    }
  })

  it('are changed by nobody else (A03, A04, A05, A15)', async () => {
    const ann = await core.user('ann')
    const ben = await core.user('ben')
    for (const [method, path, body] of [
      ['PUT', `/users/${ben.id}`, { email: 'x@example.com', realname: 'x' }],
      ['PUT', `/users/${ben.id}/password`, { old_password: PASSWORD, new_password: 'Other1234' }],
      ['PUT', `/users/${ben.id}/sysadmin`, { sysadmin_flag: true }],
      ['PUT', `/users/${ann.id}/sysadmin`, { sysadmin_flag: true }],
      ['DELETE', `/users/${ben.id}`, undefined],
      ['GET', `/users/${ben.id}`, undefined],
      ['GET', '/users/99999', undefined],
      ['GET', '/users', undefined],
      ['POST', '/users', { username: 'x', email: 'y@example.com', realname: 'x', password: PASSWORD }],
    ] as const) {
      expect([path, (await as(ann, method, path, body)).body]).toEqual([
        path,
        { errors: [{ code: 'FORBIDDEN', message: 'ann' }] },
      ])
    }
    expect((await current(ben)).body).toMatchObject({ email: 'ben@example.com', sysadmin_flag: false })
    const found = await as(ann, 'GET', '/users/search?username=en')
    expect(found.body).toEqual([{ user_id: ben.id, username: 'ben' }])
  })

  it('change their own password with the old one only; sessions and the old password end (A05, A69)', async () => {
    const cal = await core.user('cal')
    const browser = new Browser(core)
    expect((await browser.login('cal', PASSWORD)).status).toBe(200)
    const change = (old: string, next: string) =>
      as(cal, 'PUT', `/users/${cal.id}/password`, { old_password: old, new_password: next })
    expect((await change('Wrong1234', 'Newpass123')).status).toBe(403)
    expect((await change(PASSWORD, PASSWORD)).status).toBe(400)
    expect((await change(PASSWORD, 'weak')).status).toBe(400)
    expect((await browser.send('GET', '/api/v2.0/users/current')).status).toBe(200)
    expect((await change(PASSWORD, 'Newpass123')).status).toBe(200)
    expect((await browser.send('GET', '/api/v2.0/users/current')).status).toBe(401)
    expect((await current(cal)).status).toBe(401)
    expect((await current({ name: 'cal', password: 'Newpass123' })).status).toBe(200)
  })

  it('lose what they were the moment it is taken (A13)', async () => {
    const dan = await core.user('dan')
    const browser = new Browser(core)
    await browser.login('dan', PASSWORD)
    await core.admin('PUT', `/users/${dan.id}/sysadmin`, { sysadmin_flag: true })
    expect((await as(dan, 'GET', '/users')).status).toBe(200)
    expect((await browser.send('GET', '/api/v2.0/users')).status).toBe(200)
    await core.admin('PUT', `/users/${dan.id}/sysadmin`, { sysadmin_flag: false })
    expect((await as(dan, 'GET', '/users')).status).toBe(403)
    expect((await browser.send('GET', '/api/v2.0/users')).status).toBe(403)
    await core.admin('DELETE', `/users/${dan.id}`)
    expect((await current(dan)).status).toBe(401)
    expect((await browser.send('GET', '/api/v2.0/users/current')).status).toBe(401)
    expect((await core.admin('DELETE', `/users/${dan.id}`)).status).toBe(404)
    await core.user('dan') // the name is free again
  })

  it('keep one administrator whatever is tried (A16)', async () => {
    expect((await core.admin('DELETE', '/users/1')).status).toBe(403)
    expect((await core.admin('PUT', '/users/1/sysadmin', { sysadmin_flag: false })).status).toBe(412)
    expect((await core.send('POST', '/api/internal/renameadmin', { as: ADMIN })).status).toBe(404)
    expect((await current(ADMIN)).body).toMatchObject({ sysadmin_flag: true })
  })

  it('answer the same for every refusal to sign in', async () => {
    await core.user('fay')
    const replies = await Promise.all(
      [
        { name: 'fay', password: 'Wrong1234' },
        { name: 'nobody', password: 'Wrong1234' },
      ].map((who) => current(who)),
    )
    expect(new Set(replies.map((reply) => `${reply.status} ${reply.text}`)).size).toBe(1)
    expect((await as({ name: 'fay', password: 'Wrong1234' }, 'GET', '/projects')).status).toBe(200)
  })

  it('are held up after too many wrong passwords (A60)', async () => {
    await core.user('gus')
    const statuses: number[] = []
    for (let i = 0; i < 8; i++) statuses.push((await current({ name: 'gus', password: `Wrong${i}` })).status)
    expect(statuses.at(0)).toBe(401)
    expect(statuses.at(-1)).toBe(429)
    const held = await current({ name: 'gus', password: 'Wrong9' })
    expect(Number(held.headers.get('retry-after'))).toBeGreaterThan(0)
  })
})

describe('projects', () => {
  it('take nothing from their maker that is not his to say (A06)', async () => {
    const hal = await core.user('hal')
    const refused = await as(hal, 'POST', '/projects', { project_name: 'hal-proxy', registry_id: 1 })
    expect(refused.body).toEqual({
      errors: [{ code: 'FORBIDDEN', message: 'Only system admin can create proxy cache project' }],
    })
    const id = await core.project('hal-a', hal, {
      storage_limit: 5,
      owner_id: 1,
      deleted: true,
      creation_time: '2001-01-01T00:00:00Z',
    })
    expect((await as(hal, 'GET', `/projects/${id}`)).body).toMatchObject({
      owner_id: hal.id,
      owner_name: 'hal',
      current_user_role_id: 1,
      current_user_role_ids: [1],
      metadata: { public: 'false' },
    })
    expect((await as(hal, 'GET', '/projects/hal-a/summary')).body).toEqual({
      repo_count: 0,
      project_admin_count: 1,
      quota: { hard: { storage: -1 }, used: { storage: 0 } },
    })
    const withPolicy = { project_name: 'hal-b', metadata: { retention_id: '1' } }
    expect((await as(hal, 'POST', '/projects', withPolicy)).status).toBe(400)
  })

  it('let only their administrators change them, and only what may be changed (A07)', async () => {
    const ida = await core.user('ida')
    const jon = await core.user('jon')
    await core.project('ida-a', ida)
    await as(ida, 'POST', '/projects/ida-a/members', { role_id: 4, member_user: { username: 'jon' } })
    const update = (who: Credentials, body: object) => as(who, 'PUT', '/projects/ida-a', body)
    expect((await update(jon, { metadata: { public: 'true' } })).status).toBe(403)
    expect((await update(ida, { metadata: { retention_id: '7' } })).status).toBe(400)
    expect((await update(ida, { owner_id: jon.id, quota: 1, metadata: { proxy_speed_kb: '1', x: 'y' } })).status).toBe(
      200,
    )
    for (const body of [{ retention_id: '7' }, { owner_id: '1' }, { proxy_speed_kb: '1' }, { quota: '1' }]) {
      expect((await as(ida, 'POST', '/projects/ida-a/metadatas/', body)).status).toBe(400)
    }
    expect((await as(ida, 'GET', '/projects/ida-a')).body).toMatchObject({
      owner_id: ida.id,
      metadata: { public: 'false' },
    })
    expect((await update(ida, { metadata: { public: 'true' } })).status).toBe(200)
    expect((await core.send('GET', '/api/v2.0/projects/ida-a')).status).toBe(200)
  })

  it('hide from strangers, in lists, by name and by number', async () => {
    const kim = await core.user('kim')
    const lea = await core.user('lea')
    const id = await core.project('kim-secret', kim)
    const listed = async (who: Credentials) => {
      const reply = await as(who, 'GET', '/projects?name=kim-secret')
      return [reply.headers.get('x-total-count'), (reply.body as unknown[]).length]
    }
    expect(await listed(kim)).toEqual(['1', 1])
    expect(await listed(ADMIN)).toEqual(['1', 1])
    expect(await listed(lea)).toEqual(['0', 0])
    expect(await listed(null)).toEqual(['0', 0])
    for (const path of [`/projects/${id}`, '/projects/kim-secret', '/projects/999999', '/projects/no-such']) {
      expect((await as(lea, 'GET', path)).body).toEqual({ errors: [{ code: 'FORBIDDEN', message: 'forbidden' }] })
    }
    expect((await as(lea, 'HEAD', '/projects?project_name=kim-secret')).status).toBe(404)
    expect((await as(kim, 'HEAD', '/projects?project_name=kim-secret')).status).toBe(200)
  })

  it('are found by name where the name is digits and the client says so', async () => {
    await core.project('20240')
    const get = (headers: Record<string, string>) =>
      core.send('GET', '/api/v2.0/projects/20240', { as: ADMIN, headers })
    expect((await get({})).status).toBe(404)
    expect((await get({ 'X-Is-Resource-Name': 'true' })).body).toMatchObject({ name: '20240' })
  })

  it('go, and their names may be used again', async () => {
    const id = await core.project('short-lived')
    expect((await core.admin('GET', '/projects/short-lived/_deletable')).body).toEqual({ deletable: true })
    expect((await core.admin('DELETE', '/projects/short-lived')).status).toBe(200)
    expect((await core.admin('GET', `/projects/${id}`)).status).toBe(404)
    expect(await core.project('short-lived')).not.toBe(id)
  })
})

describe('members', () => {
  it('get no role above that of who gives it (A08)', async () => {
    const max = await core.user('max')
    const ned = await core.user('ned')
    const oda = await core.user('oda')
    await core.project('max-a', max)
    const members = '/projects/max-a/members'
    const add = (who: Credentials, role_id: unknown, username: string) =>
      as(who, 'POST', members, { role_id, member_user: { username } })
    for (const role of [0, -1, 9, 99, 100, undefined]) expect((await add(max, role, 'ned')).status).toBe(400)
    expect((await add(max, '1', 'ned')).status).toBe(422)
    expect((await add(max, 4, 'ned')).status).toBe(201)
    expect((await add(max, 4, 'ned')).body).toEqual({
      errors: [{ code: 'CONFLICT', message: 'The project member specified already exist' }],
    })
    expect((await add(ned, 1, 'oda')).status).toBe(403)
    expect((await add(oda, 1, 'oda')).status).toBe(403)
    const list = (await as(ned, 'GET', members)).body as { entity_name: string; id: number; role_id: number }[]
    expect(list.map((member) => [member.entity_name, member.role_id])).toEqual([
      ['max', 1],
      ['ned', 4],
    ])
    const mine = list.find((member) => member.entity_name === 'ned')?.id
    expect((await as(ned, 'PUT', `${members}/${mine}`, { role_id: 1 })).status).toBe(403)
    expect((await as(max, 'PUT', `${members}/${mine}`, { role_id: 3 })).status).toBe(200)
    expect((await as(ned, 'GET', '/projects/max-a')).body).toMatchObject({ current_user_role_id: 3 })
    expect((await as(max, 'DELETE', `${members}/${mine}`)).status).toBe(200)
    expect((await as(ned, 'GET', '/projects/max-a')).status).toBe(403)
  })

  it('are named in many ways, and wrongly in as many', async () => {
    await core.project('named')
    const post = async (body: object) => {
      const reply = await core.admin('POST', '/projects/named/members', { role_id: 2, ...body })
      return [reply.status, (reply.body as { errors?: { message: string }[] } | undefined)?.errors?.[0]?.message]
    }
    expect(await post({})).toEqual([400, 'at least one of member_user or member_group must be provided'])
    expect(await post({ member_user: { username: 'ghost' } })).toEqual([404, 'user ghost is not found'])
    expect(await post({ member_user: { user_id: 99999 } })).toEqual([
      400,
      'Failed to get user 99999: user 99999 not found',
    ])
    expect(await post({ member_group: { id: 999 } })).toEqual([400, 'Group 999 not found'])
    expect(await post({ member_group: { group_name: 'g' } })).toEqual([404, 'g not found: not supported'])
  })
})

describe('permissions', () => {
  it('are listed as they are decided', async () => {
    const pia = await core.user('pia')
    await core.project('pia-a', pia)
    const id = await core.project('pia-b')
    await core.admin('POST', '/projects/pia-b/members', { role_id: 3, member_user: { username: 'pia' } })
    const of = async (query: string) => (await as(pia, 'GET', `/users/current/permissions${query}`)).body as unknown[]
    expect(await of('')).toEqual([])
    expect(await of('?scope=foo')).toEqual([])
    expect(await of('?scope=/system')).toEqual([])
    expect(await of(`?scope=/project/${id}`)).toHaveLength(20)
    expect(await of(`?scope=/project/${id}&relative=true`)).toContainEqual({ resource: '.', action: 'read' })
    const system = (await core.admin('GET', '/users/current/permissions?scope=/system')).body
    expect(system).toHaveLength(53)
  })

  it('of robots are shown to who may make robots', async () => {
    const quin = await core.user('quin')
    expect((await as(null, 'GET', '/permissions')).status).toBe(401)
    expect((await as(quin, 'GET', '/permissions')).status).toBe(403)
    await core.project('quin-a', quin)
    expect((await as(quin, 'GET', '/permissions')).body).toMatchObject({
      system: null,
      project: expect.any(Array) as unknown,
    })
    const all = (await core.admin('GET', '/permissions')).body as { system: unknown[]; project: unknown[] }
    expect([all.system.length, all.project.length]).toEqual([70, 70])
  })
})
