import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { testDatabase, testRedis, type TestDatabase } from '@haven/testkit'
import { Redis } from 'ioredis'
import { Authorities } from './authorities.ts'
import { forgetProject, memberGrants, requireProjectRole } from './member-grants.ts'
import { ensurePresets } from './presets.ts'
import type { Principal } from './principal.ts'
import { Sessions } from './sessions.ts'
import { signIn, signInDeps } from './sign-in.ts'
import {
  changePassword,
  createUser,
  deleteUser,
  ensureAdmin,
  findUser,
  findUserByName,
  isTaken,
  listUsers,
  ownerFor,
  setSysadmin,
  updateUser,
  userIdsNamed,
  userNames,
  type UserDeps,
} from './users.ts'

const admin = { principal: { kind: 'user', id: 1, name: 'admin' } } as const
const address = '192.0.2.1'
const everything = { number: 1, size: 0 }

const LIFETIME_MS = 600_000

describe('users', () => {
  let database: TestDatabase
  let authorities: Authorities
  let deps: UserDeps & { signIn: ReturnType<typeof signInDeps> }
  let redis: Redis
  let sessions: Sessions
  let keys: () => Promise<string[]>

  beforeAll(async () => {
    database = await testDatabase()
    await ensurePresets(database.db)
    authorities = new Authorities(database.db)
    deps = { db: database.db, authorities, signIn: signInDeps(database.db) }
    const { url, prefix } = testRedis()
    redis = new Redis(url)
    keys = () => redis.keys(`${prefix}:*`)
    sessions = new Sessions(redis, authorities, { prefix, lifetimeMs: () => Promise.resolve(LIFETIME_MS) })
    await ensureAdmin(database.db, 'Harbor12345')
  })
  afterAll(async () => {
    authorities[Symbol.dispose]()
    deps.signIn[Symbol.dispose]()
    redis.disconnect()
    await database[Symbol.asyncDispose]()
  })

  let made = 0
  const someone = (more: Record<string, unknown> = {}) => {
    const name = `user-${++made}`
    return createUser(deps, admin, {
      username: name,
      email: `${name}@example.com`,
      realname: name,
      password: 'Secret-1',
      ...more,
    })
  }
  const signsIn = (name: string, password: string) =>
    signIn(deps.signIn, { name, password, address }).then(
      () => true,
      (error: { status?: number }) => (error.status === 401 ? false : Promise.reject(error as Error)),
    )
  const principalOf = (user: { id: number; username: string }) =>
    ({ kind: 'user', id: user.id, name: user.username }) as const
  const events = async (type: string) => {
    const rows = await database.db.prisma.outboxEvent.findMany({
      where: { type: `haven.events.v1.${type}` },
      orderBy: { id: 'asc' },
    })
    return rows.map((row) => row.payload)
  }

  describe('the first administrator', () => {
    it('is made once, keeps its password, and the next user has id 3 as in Harbor', async () => {
      expect(await ensureAdmin(database.db, 'Another-11')).toBe('present')
      expect([await signsIn('admin', 'Harbor12345'), await signsIn('admin', 'Another-11')]).toEqual([true, false])
      expect(await findUser(deps, 1)).toMatchObject({ username: 'admin', systemAdmin: true })
      expect((await someone()).id).toBe(3)
    })

    it('is made by one of many replicas, and not with a password against the rule', async () => {
      await using fresh = await testDatabase()
      await ensurePresets(fresh.db)
      await expect(ensureAdmin(fresh.db, 'short')).rejects.toMatchObject({ status: 400 })
      const outcomes = await Promise.all(Array.from({ length: 4 }, () => ensureAdmin(fresh.db, 'Harbor12345')))
      expect(outcomes.sort()).toEqual(['created', 'present', 'present', 'present'])
    })

    it('cannot be deleted, and the last administrator cannot stop being one (A16)', async () => {
      await expect(deleteUser(deps, { principal: { kind: 'service', name: 'core' } }, 1)).rejects.toMatchObject({
        status: 403,
      })
      await expect(setSysadmin(deps, admin, 1, false)).rejects.toMatchObject({ status: 412 })
      const other = await someone()
      await setSysadmin(deps, admin, other.id, true)
      await setSysadmin(deps, admin, 1, false)
      await expect(deleteUser(deps, admin, other.id)).rejects.toMatchObject({ status: 412 })
      const both = await Promise.allSettled([
        setSysadmin(deps, admin, 1, true),
        setSysadmin(deps, admin, other.id, false),
      ])
      expect(both.map((one) => one.status)).toContain('fulfilled')
      await setSysadmin(deps, admin, 1, true)
      await setSysadmin(deps, admin, other.id, false)
    })
  })

  it('are made from an allow-list: what else a body holds does nothing (A01)', async () => {
    const user = await someone({ sysadmin_flag: true, systemAdmin: true, id: 1, userId: 1, role_id: 1, salt: 'x' })
    expect(user.id).not.toBe(1)
    expect(await findUser(deps, user.id)).toEqual(
      expect.objectContaining({ systemAdmin: false, username: user.username }),
    )
    expect((await authorities.of(principalOf(user))).systemAdmin).toBe(false)
    expect(Object.keys(user).sort()).toEqual([
      'comment',
      'createdAt',
      'disabled',
      'email',
      'id',
      'realname',
      'systemAdmin',
      'updatedAt',
      'username',
    ])
    expect(await events('UserCreated')).toContainEqual(
      expect.objectContaining({ user: { id: String(user.id), name: user.username } }),
    )
  })

  it('are refused with a name or e-mail that is taken, in whatever spelling, or a wrong field', async () => {
    await someone({ username: 'Grace', email: 'grace@example.com' })
    for (const again of [
      { username: 'grace' },
      { username: 'ＧＲＡＣＥ' },
      { email: 'GRACE@example.com' },
      { username: 'Admin' },
    ]) {
      await expect(someone(again)).rejects.toMatchObject({ status: 409 })
    }
    for (const wrong of [
      { username: 'robot$x' },
      { email: 'none' },
      { realname: 'a,b' },
      { comment: 'x'.repeat(31) },
      { password: 'weak' },
    ]) {
      await expect(someone(wrong)).rejects.toMatchObject({ status: 400 })
    }
    expect(await findUserByName(deps, 'GRACE')).toMatchObject({ username: 'Grace' })
  })

  it('change their profile and nothing else (A02)', async () => {
    const user = await someone()
    const other = await someone()
    const body = { email: 'new@example.com', comment: 'hello', username: 'x', id: 1, password: 'Secret-2' }
    await updateUser(deps, admin, user.id, body)
    expect(await findUser(deps, user.id)).toMatchObject({
      username: user.username,
      email: 'new@example.com',
      comment: 'hello',
    })
    expect(await signsIn(user.username, 'Secret-1')).toBe(true)
    await expect(updateUser(deps, admin, user.id, { email: other.email! })).rejects.toMatchObject({ status: 409 })
    await expect(updateUser(deps, admin, 999_999, { comment: '' })).rejects.toMatchObject({ status: 404 })
    const told = (await events('UserUpdated')).at(-1)
    expect(told).toMatchObject({ user: { name: user.username }, fields: ['email', 'comment'] })
    expect(JSON.stringify(told)).not.toContain('new@example.com')
  })

  it('change their password with the old one; the old one and its sessions end at once (A05, A69)', async () => {
    const user = await someone()
    expect(await signsIn(user.username, 'Secret-1')).toBe(true)
    const session = await sessions.create(principalOf(user))
    await expect(changePassword(deps, admin, user.id, { old: 'Wrong-11', password: 'Secret-2' })).rejects.toMatchObject(
      { status: 403 },
    )
    await expect(changePassword(deps, admin, user.id, { old: 'Secret-1', password: 'Secret-1' })).rejects.toMatchObject(
      { status: 400 },
    )
    await expect(changePassword(deps, admin, user.id, { old: 'Secret-1', password: 'weak' })).rejects.toMatchObject({
      status: 400,
    })
    expect(await sessions.load(session.id, { renew: true })).toEqual(session)

    await changePassword(deps, admin, user.id, { old: 'Secret-1', password: 'Secret-2' })
    expect(await sessions.load(session.id, { renew: true })).toBeNull()
    expect([await signsIn(user.username, 'Secret-1'), await signsIn(user.username, 'Secret-2')]).toEqual([false, true])

    await changePassword(deps, admin, user.id, { password: 'Secret-3' })
    expect(await signsIn(user.username, 'Secret-3')).toBe(true)
    await expect(changePassword(deps, admin, 999_999, { password: 'Secret-3' })).rejects.toMatchObject({ status: 404 })
  })

  it('become administrators and stop being it, seen by the next request (A04, A13)', async () => {
    const user = await someone()
    const is = async () => (await authorities.of(principalOf(user))).systemAdmin
    expect(await is()).toBe(false)
    await setSysadmin(deps, admin, user.id, true)
    await setSysadmin(deps, admin, user.id, true)
    expect(await is()).toBe(true)
    await setSysadmin(deps, admin, user.id, false)
    expect(await is()).toBe(false)
    const told = (await events('UserSysadminChanged')).filter((event) =>
      JSON.stringify(event).includes(`"${user.username}"`),
    )
    expect(told).toHaveLength(2)
  })

  it('leave nothing that opens anything when deleted, and free their name', async () => {
    const user = await someone({ username: 'Leaver', email: 'leaver@example.com' })
    const session = await sessions.create(principalOf(user))
    await memberGrants.add(database.db.writes, { projectId: 7, kind: 'user', memberId: user.id, roleId: 1 })
    await expect(deleteUser(deps, { principal: principalOf(user) }, user.id)).rejects.toMatchObject({ status: 403 })
    await deleteUser(deps, admin, user.id)
    expect(await signsIn('Leaver', 'Secret-1')).toBe(false)
    expect(await sessions.load(session.id, { renew: true })).toBeNull()
    expect((await authorities.of(principalOf(user))).active).toBe(false)
    expect((await memberGrants.list(database.db, 7, { page: everything })).members).toEqual([])
    expect([await findUser(deps, user.id), await isTaken(deps, 'username', 'leaver')]).toEqual([null, false])
    expect(await userNames(deps, [user.id, 1])).toEqual(
      new Map([
        [1, 'admin'],
        [user.id, 'Leaver'],
      ]),
    )
    expect((await someone({ username: 'Leaver', email: 'leaver@example.com' })).id).not.toBe(user.id)
    await expect(deleteUser(deps, admin, user.id)).rejects.toMatchObject({ status: 404 })
  })

  it('are listed by page and query, without the first administrator and the deleted', async () => {
    const [a, b] = [await someone({ username: 'list_a' }), await someone({ username: 'listxb' })]
    await setSysadmin(deps, admin, b.id, true)
    const page = { number: 1, size: 0 }
    const listed = await listUsers(deps, {
      page,
      conditions: [{ field: 'username', match: 'contains', value: 'LIST' }],
    })
    expect([listed.total, listed.users.map((u) => [u.id, u.systemAdmin])]).toEqual([
      2,
      [
        [a.id, false],
        [b.id, true],
      ],
    ])
    const names = async (condition: Parameters<typeof listUsers>[1]['conditions']) =>
      (await listUsers(deps, { page, conditions: condition! })).users.map((u) => u.username)
    expect(await names([{ field: 'username', match: 'contains', value: 'list_' }])).toEqual(['list_a'])
    expect(await names([{ field: 'user_id', match: 'range', min: a.id, max: a.id }])).toEqual(['list_a'])
    expect(await names([{ field: 'user_id', match: 'in', values: [String(b.id)] }])).toEqual(['listxb'])
    expect(await names([{ field: 'username', match: 'exact', value: 'admin' }])).toEqual([])
    expect(await names([{ field: 'credentials', match: 'exact', value: 'x' }])).toContain('list_a')
    await expect(names([{ field: 'user_id', match: 'exact', value: '{"not":1}' }])).rejects.toMatchObject({
      status: 400,
    })
    await expect(names([{ field: 'creation_time', match: 'exact', value: 'soon' }])).rejects.toMatchObject({
      status: 400,
    })
    const second = await listUsers(deps, {
      page: { number: 2, size: 1 },
      sort: [{ field: 'username', descending: true }],
      conditions: [{ field: 'username', match: 'contains', value: 'list' }],
    })
    expect([second.total, second.users.map((u) => u.username)]).toEqual([2, ['list_a']])
    await setSysadmin(deps, admin, b.id, false)
  })

  it('are the same on pages deep in a long list as at its ends, whoever left, and are counted as they are', async () => {
    const { prisma } = database.db
    await prisma.$executeRaw`
      insert into identity.users (id, username, username_key, email_key, created_at)
      select 100000 + n * 3, name, name, name, now() - n % 700 * interval '1 minute'
        from generate_series(1, 1800) n, lateral (select 'crowd-' || md5(n::text) as name) names`
    await prisma.$executeRaw`
      update identity.users set deleted_at = now(), username_key = null where username like 'crowd-%' and id % 5 = 0`
    await prisma.$executeRaw`delete from identity.users where username like 'crowd-%' and id % 7 = 0`
    await prisma.$executeRaw`
      update identity.users set deleted_at = null where username like 'crowd-%' and id % 10 = 0`
    const real = await prisma.user.count({ where: { deletedAt: null, id: { not: 1 } } })
    const orders = [
      [],
      ...['user_id', 'username', 'creation_time'].flatMap((field) => [
        [{ field, descending: false }],
        [{ field, descending: true }],
      ]),
    ]
    for (const sort of orders) {
      const ids = async (number: number, size: number) => {
        const { total, users } = await listUsers(deps, { sort, page: { number, size } })
        expect(total).toBe(real)
        return users.map(({ id }) => id)
      }
      const all = await ids(1, 0)
      expect(new Set(all).size).toBe(real)
      const pages: number[] = []
      for (let number = 1; number <= Math.ceil(real / 90); number++) pages.push(...(await ids(number, 90)))
      expect([sort, pages]).toEqual([sort, all])
      expect(await ids(Math.ceil(real / 90) + 1, 90)).toEqual([])
    }
    await prisma.$executeRaw`delete from identity.users where username like 'crowd-%'`
    expect((await listUsers(deps, { page: { number: 1, size: 1 } })).total).toBe(
      await prisma.user.count({ where: { deletedAt: null, id: { not: 1 } } }),
    )
  })

  it('are found by those who present them', async () => {
    const user = await someone()
    expect(await userIdsNamed(deps, [user.username.toUpperCase(), 'nobody'])).toEqual([user.id])
    expect(await ownerFor(deps, principalOf(user))).toBe(user.id)
    for (const program of [
      { kind: 'service', name: 'core' },
      { kind: 'robot', id: 1, name: 'robot$x', projectId: null },
    ] as Principal[]) {
      expect(await ownerFor(deps, program)).toBe(1)
    }
    expect([
      await isTaken(deps, 'email', user.email!.toUpperCase()),
      await isTaken(deps, 'username', 'admin'),
      await isTaken(deps, 'x', ''),
    ]).toEqual([true, false, true])
  })

  describe('sessions', () => {
    it('live as long as they are used, each under an id of its own that Redis does not hold', async () => {
      const user = await someone()
      const begun = async () => {
        const others = await keys()
        const session = await sessions.create(principalOf(user))
        const [key] = (await keys()).filter((each) => !others.includes(each))
        return { session, key: key! }
      }
      const [{ session: one, key }, { session: two, key: another }] = [await begun(), await begun()]
      expect(one.id).not.toBe(two.id)
      expect((await keys()).join()).not.toContain(one.id)
      for (const each of [key, another]) expect(await redis.pexpire(each, LIFETIME_MS / 2)).toBe(1)
      expect(await sessions.load(one.id, { renew: true })).toEqual(one)
      expect(await sessions.load(two.id, { renew: false })).toEqual(two)
      expect(await redis.pttl(key)).toBeGreaterThan(LIFETIME_MS / 2)
      expect(await redis.pttl(another)).toBeLessThanOrEqual(LIFETIME_MS / 2)
      await redis.pexpire(another, 1)
      while ((await redis.exists(another)) === 1) await new Promise((resolve) => setTimeout(resolve, 5))
      expect(await sessions.load(two.id, { renew: false })).toBeNull()
      expect(await sessions.load(one.id, { renew: true })).toEqual(one)
      await sessions.destroy(one.id)
      expect(await sessions.load(one.id, { renew: true })).toBeNull()
      expect(await sessions.load('made-up', { renew: true })).toBeNull()
    })

    it('end with a user that is disabled, and carry a name that changed', async () => {
      const user = await someone()
      const session = await sessions.create(principalOf(user))
      await database.db.prisma.user.update({ where: { id: user.id }, data: { username: 'Renamed' } })
      authorities.forget()
      expect((await sessions.load(session.id, { renew: true }))?.principal.name).toBe('Renamed')
      await database.db.prisma.user.update({ where: { id: user.id }, data: { disabledAt: new Date() } })
      authorities.forget()
      expect(await sessions.load(session.id, { renew: true })).toBeNull()
    })

    it('say when Redis is away', async () => {
      const gone = new Redis({
        port: 1,
        lazyConnect: true,
        maxRetriesPerRequest: 0,
        retryStrategy: () => null,
        disconnectTimeout: 50,
      })
      gone.on('error', () => undefined)
      await expect(new Sessions(gone, authorities).check()).rejects.toMatchObject({
        kind: { name: 'redisUnreachable' },
      })
      await sessions.check()
      gone.disconnect()
    })
  })

  describe('members of a project', () => {
    it('are added once, changed and removed in their own project only', async () => {
      const { prisma } = database.db
      const [user, group] = [
        await someone({ username: 'zoe' }),
        await prisma.group.create({ data: { name: 'crew', provider: 'oidc', externalId: 'crew' } }),
      ]
      const id = await memberGrants.add(database.db.writes, {
        projectId: 20,
        kind: 'user',
        memberId: user.id,
        roleId: 2,
        createdBy: 'admin',
      })
      await memberGrants.add(database.db.writes, { projectId: 20, kind: 'group', memberId: group.id, roleId: 3 })
      await expect(
        memberGrants.add(database.db.writes, { projectId: 20, kind: 'user', memberId: user.id, roleId: 3 }),
      ).rejects.toMatchObject({ status: 409 })
      expect(
        (await memberGrants.list(database.db, 20, { page: everything })).members.map((m) => [m.name, m.kind, m.roleId]),
      ).toEqual([
        ['crew', 'group', 3],
        ['zoe', 'user', 2],
      ])
      expect(await memberGrants.find(prisma, 21, id)).toBeNull()
      expect([await memberGrants.setRole(prisma, 21, id, 1), await memberGrants.remove(prisma, 21, id)]).toEqual([
        false,
        false,
      ])
      expect(await memberGrants.setRole(prisma, 20, id, 4)).toBe(true)
      expect(await memberGrants.find(prisma, 20, id)).toMatchObject({ roleId: 4, memberId: user.id })
      expect(await memberGrants.counts(prisma, 20)).toEqual(
        new Map([
          [3, 1],
          [4, 1],
        ]),
      )
      expect(await memberGrants.remove(prisma, 20, id)).toBe(true)
    })

    it('hold only roles of projects (A08)', async () => {
      const own = await database.db.prisma.role.create({ data: { name: 'puller', title: 'Puller' } })
      for (const good of [1, 2, 3, 4, 5, own.id]) await requireProjectRole(database.db.prisma, good)
      for (const bad of [0, -1, 6, 99, 100, 1.5, NaN, 2 ** 40]) {
        await expect(requireProjectRole(database.db.prisma, bad)).rejects.toMatchObject({ status: 400 })
      }
    })

    it('and its robots go with the project', async () => {
      const { prisma } = database.db
      const robot = await prisma.robot.create({ data: { name: 'p+ci', nameKey: 'p+ci', projectId: 30 } })
      await memberGrants.add(database.db.writes, { projectId: 30, kind: 'user', memberId: 1, roleId: 1 })
      await prisma.$transaction((tx) => forgetProject(tx, 30))
      authorities.forget()
      expect((await memberGrants.list(database.db, 30, { page: everything })).members).toEqual([])
      expect((await authorities.of({ kind: 'robot', id: robot.id, name: 'robot$p+ci', projectId: 30 })).active).toBe(
        false,
      )
      await prisma.robot.create({ data: { name: 'p+ci', nameKey: 'p+ci', projectId: 31 } })
    })
  })
})
