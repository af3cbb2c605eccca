import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { Authorities } from './authorities.ts'
import { Authority, heldRole, type GrantFacts, type RoleFacts } from './authority.ts'
import { decide, type Question } from './decide.ts'
import { printOperations } from './operation-table.ts'
import {
  isPublic,
  permissionsOf,
  printPermissions,
  projectPermissions,
  projectRoles,
  publicPermissions,
  robotCatalogue,
  roles,
  systemPermissions,
  type RoleName,
} from './permissions.ts'
import { ensurePresets } from './presets.ts'
import { anonymous, type Principal, type ProjectNode } from './principal.ts'

const presets: ReadonlyMap<number, RoleFacts> = new Map(
  (Object.keys(roles) as RoleName[]).map((name) => [
    roles[name].id,
    { id: roles[name].id, name, weight: roles[name].weight, permissions: permissionsOf(name) },
  ]),
)
const held = new Map([...presets].map(([id, role]) => [id, heldRole(role)]))
const closed: ProjectNode = { id: 7, name: 'closed', public: false, createdAt: new Date(0) }
const open: ProjectNode = { ...closed, id: 8, name: 'open', public: true }
const ann: Principal = { kind: 'user', id: 3, name: 'ann' }

let nextGrant = 1
const grant = (facts: Partial<GrantFacts>): GrantFacts => ({
  id: nextGrant++,
  principalKind: 'user',
  roleId: null,
  resource: null,
  action: null,
  effect: 'allow',
  nodeKind: 'project',
  projectId: closed.id,
  repository: null,
  tagPattern: null,
  ...facts,
})
const holding = (principal: Principal, ...grants: Partial<GrantFacts>[]) =>
  new Authority(principal, { active: true, grants: grants.map(grant) }, held)
const may = (authority: Authority, resource: string, action: string, on: Question['on'] = { project: closed }) =>
  decide(authority, { resource, action, on }).allowed

describe('the permission tables', () => {
  it('are what permissions.txt shows', () => {
    const printed = readFileSync(new URL('../permissions.txt', import.meta.url), 'utf8')
    expect(printPermissions()).toBe(printed)
  })

  it('say of each operation who may call it, as operations.txt shows', () => {
    expect(printOperations()).toBe(readFileSync(new URL('../operations.txt', import.meta.url), 'utf8'))
  })

  it('have as many entries as Harbor’s', () => {
    expect(projectRoles.map((role) => permissionsOf(role).length)).toEqual([75, 53, 36, 20, 14])
    expect([projectPermissions, publicPermissions, systemPermissions].map((p) => p.length)).toEqual([75, 12, 53])
    expect([robotCatalogue('system').length, robotCatalogue('project').length]).toEqual([70, 70])
  })

  it('keep the traps of Harbor’s matrix', () => {
    for (const role of projectRoles)
      expect(may(holding(ann, { roleId: roles[role].id }), 'metadata', 'list')).toBe(false)
    expect(isPublic('repository', 'pull')).toBe(true)
    expect(isPublic('repository', 'read')).toBe(false)
    expect(may(holding(ann, { roleId: roles.limitedGuest.id }), 'member', 'list')).toBe(false)
    expect(may(holding(ann, { roleId: roles.developer.id }), 'tag', 'delete')).toBe(false)
    expect(may(holding(ann, { roleId: roles.maintainer.id }), 'notification-policy', 'create')).toBe(false)
  })
})

describe('decide', () => {
  it('gives a role on a project, there and nowhere else', () => {
    const developer = holding(ann, { roleId: roles.developer.id })
    expect(decide(developer, { resource: 'repository', action: 'push', on: { project: closed } })).toMatchObject({
      allowed: true,
      reasons: [{ code: 'role', facts: { role: 'developer', node: 'project', through: 'user' } }],
    })
    expect(may(developer, 'repository', 'push', { project: open })).toBe(false)
    expect(may(developer, 'project', 'create', 'system')).toBe(false)
  })

  it('lets everybody pull from a public project, and push nobody who has no grant (A42)', () => {
    for (const principal of [
      anonymous,
      ann,
      { kind: 'robot', id: 1, name: 'robot$x', projectId: null },
    ] as Principal[]) {
      const nobody = holding(principal)
      expect(decide(nobody, { resource: 'repository', action: 'pull', on: { project: open } }).reasons).toEqual([
        { code: 'public-project', facts: { project: 'open' } },
      ])
      expect(may(nobody, 'repository', 'pull')).toBe(false)
      expect(may(nobody, 'repository', 'push', { project: open })).toBe(false)
    }
  })

  it('gives the system administrator everything except pulling as a scanner, and no deny takes it', () => {
    const admin = holding(
      ann,
      { roleId: roles.systemAdmin.id, nodeKind: 'system', projectId: null },
      { resource: '*', action: '*', effect: 'deny', projectId: null },
    )
    for (const p of projectPermissions) expect(may(admin, p.resource, p.action)).toBe(true)
    for (const p of systemPermissions) expect(may(admin, p.resource, p.action, 'system')).toBe(true)
    expect(decide(admin, { resource: 'repository', action: 'scanner-pull', on: { project: closed } }).allowed).toBe(
      false,
    )
    const plain = holding(ann, { roleId: roles.systemAdmin.id, nodeKind: 'system', projectId: null })
    expect(decide(plain, { resource: 'repository', action: 'scanner-pull', on: { project: closed } }).reasons).toEqual([
      { code: 'not-for-administrators', facts: { resource: 'repository', action: 'scanner-pull' } },
    ])
  })

  it('makes nobody an administrator through the role on a project (A08)', () => {
    const authority = holding(ann, { roleId: roles.systemAdmin.id, nodeKind: 'project' })
    expect(authority.systemAdmin).toBe(false)
    expect(may(authority, 'user', 'create', 'system')).toBe(false)
    expect(may(authority, 'repository', 'scanner-pull')).toBe(false)
  })

  it('keeps a permission on the system out of projects that use the same word', () => {
    const robot = holding(
      { kind: 'robot', id: 1, name: 'robot$x', projectId: null },
      { principalKind: 'robot', resource: 'label', action: 'create', nodeKind: 'system', projectId: null },
    )
    expect(may(robot, 'label', 'create', 'system')).toBe(true)
    expect(may(robot, 'label', 'create')).toBe(false)
  })

  it('lets a deny win over role, robot permission and publicness', () => {
    const authority = holding(
      ann,
      { roleId: roles.projectAdmin.id, projectId: open.id },
      {
        resource: 'repository',
        action: 'pull',
        effect: 'deny',
        nodeKind: 'repository',
        projectId: open.id,
        repository: 'secret/**',
      },
    )
    const verdict = decide(authority, {
      resource: 'repository',
      action: 'pull',
      on: { project: open, repository: 'secret/a' },
    })
    expect(verdict).toMatchObject({ allowed: false, reasons: [{ code: 'denied', facts: { node: 'repository' } }] })
    expect(may(authority, 'repository', 'pull', { project: open, repository: 'plain' })).toBe(true)
    expect(may(authority, 'repository', 'pull', { project: open })).toBe(true)
  })

  it('narrows a grant to repositories and tags', () => {
    const authority = holding(
      ann,
      { resource: 'repository', action: 'push', nodeKind: 'repository', repository: 'team-a/**' },
      { resource: 'tag', action: 'delete', nodeKind: 'tag', repository: 'team-a/*', tagPattern: 'pr-*' },
    )
    expect(may(authority, 'repository', 'push', { project: closed, repository: 'team-a/app/web' })).toBe(true)
    expect(may(authority, 'repository', 'push', { project: closed, repository: 'team-b/app' })).toBe(false)
    expect(may(authority, 'repository', 'push')).toBe(false)
    expect(may(authority, 'tag', 'delete', { project: closed, repository: 'team-a/app', tag: 'pr-7' })).toBe(true)
    expect(may(authority, 'tag', 'delete', { project: closed, repository: 'team-a/app', tag: 'v1' })).toBe(false)
    expect(may(authority, 'tag', 'delete', { project: closed, repository: 'team-a/app' })).toBe(false)
  })

  it('fails closed on a pattern that cannot be read', () => {
    const bad = { nodeKind: 'repository', repository: 'a[', resource: 'repository', action: 'pull' } as const
    expect(may(holding(ann, bad), 'repository', 'pull', { project: closed, repository: 'a' })).toBe(false)
    const denied = holding(ann, { roleId: roles.guest.id }, { ...bad, effect: 'deny' })
    expect(may(denied, 'repository', 'pull', { project: closed, repository: 'a' })).toBe(false)
  })

  it('gives a project’s robot pull with push, and a system robot exactly what it lists', () => {
    const push = { principalKind: 'robot', resource: 'repository', action: 'push' } as const
    const ofProject = holding({ kind: 'robot', id: 1, name: 'robot$closed+ci', projectId: closed.id }, push)
    const ofSystem = holding({ kind: 'robot', id: 2, name: 'robot$ci', projectId: null }, push)
    expect(
      decide(ofProject, { resource: 'repository', action: 'pull', on: { project: closed } }).reasons,
    ).toMatchObject([{ code: 'push-implies-pull' }])
    expect(may(ofSystem, 'repository', 'pull')).toBe(false)
    expect(may(ofSystem, 'repository', 'push')).toBe(true)
    const everywhere = holding(
      { kind: 'robot', id: 3, name: 'robot$all', projectId: null },
      { ...push, projectId: null },
    )
    expect(may(everywhere, 'repository', 'push', { project: open })).toBe(true)
    expect(may(everywhere, 'repository', 'push', 'system')).toBe(false)
  })

  it('refuses the disabled everything, public projects too (A13)', () => {
    const gone = new Authority(ann, { active: false, grants: [grant({ roleId: roles.projectAdmin.id })] }, held)
    expect(decide(gone, { resource: 'repository', action: 'pull', on: { project: open } })).toEqual({
      allowed: false,
      reasons: [{ code: 'inactive', facts: { kind: 'user', name: 'ann', because: 'deleted' } }],
    })
  })

  it('agrees with a naive model on random grants and questions', () => {
    const random = seeded(20_261_125)
    const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!
    const permissions = [
      ...projectPermissions,
      { resource: 'repository', action: 'scanner-pull' },
      { resource: '*', action: '*' },
    ]
    const tally = { allowed: 0, refused: 0 }
    for (let round = 0; round < 4_000; round++) {
      const principal = pick<Principal>([
        anonymous,
        ann,
        { kind: 'robot', id: 1, name: 'robot$a', projectId: null },
        { kind: 'robot', id: 2, name: 'robot$closed+a', projectId: 7 },
      ])
      const grants = Array.from({ length: Math.floor(random() * 5) }, () => {
        const nodeKind = pick(['system', 'project', 'project', 'repository', 'tag'] as const)
        const byRole = random() < 0.5
        const permission = pick(permissions)
        return grant({
          nodeKind,
          projectId: nodeKind === 'system' ? null : pick([7, 8, null]),
          roleId: byRole ? pick([...presets.keys()]) : null,
          resource: byRole ? null : permission.resource,
          action: byRole ? null : permission.action,
          effect: random() < 0.15 ? 'deny' : 'allow',
          repository: nodeKind === 'repository' || nodeKind === 'tag' ? pick([null, 'a', 'a/**', '*']) : null,
          tagPattern: nodeKind === 'tag' ? pick(['v*', 'latest']) : null,
        })
      })
      const active = random() < 0.95
      const asked = pick(permissions.slice(0, -1))
      const on: Question['on'] =
        random() < 0.15
          ? 'system'
          : {
              project: pick([closed, open]),
              ...(random() < 0.7 && { repository: pick(['a', 'a/b', 'b']) }),
              ...(random() < 0.5 && { tag: pick(['v1', 'latest']) }),
            }
      const question = { ...asked, on }
      const expected = naive(principal, active, grants, question)
      const verdict = decide(new Authority(principal, { active, grants }, held), question)
      if (verdict.allowed !== expected)
        throw new Error(JSON.stringify({ principal, active, grants, question, verdict }))
      expect(verdict.reasons.length).toBeGreaterThan(0)
      tally[verdict.allowed ? 'allowed' : 'refused']++
    }
    expect(Math.min(tally.allowed, tally.refused)).toBeGreaterThan(400)
  })
})

/** The rules written down as plainly as possible: everything is looked at, nothing is indexed. */
function naive(principal: Principal, active: boolean, grants: readonly GrantFacts[], q: Question): boolean {
  if (!active) return false
  const isAdmin = grants.some((g) => g.nodeKind === 'system' && g.roleId === 100 && g.effect === 'allow')
  if (isAdmin && q.action !== 'scanner-pull') return true
  const glob = (pattern: string | null, text: string) =>
    pattern === null ||
    {
      a: text === 'a',
      'a/**': text.startsWith('a/'),
      '*': !text.includes('/'),
      'v*': text.startsWith('v'),
      latest: text === 'latest',
    }[pattern]!
  const reaches = (g: GrantFacts) => {
    if (q.on === 'system') return g.nodeKind === 'system'
    if (g.nodeKind === 'system') return false
    if (g.projectId !== null && g.projectId !== q.on.project.id) return false
    if (g.nodeKind === 'project') return true
    if (q.on.repository === undefined || !glob(g.repository, q.on.repository)) return false
    return g.nodeKind === 'repository' || (q.on.tag !== undefined && glob(g.tagPattern, q.on.tag))
  }
  const says = (g: GrantFacts, action: string) => {
    const list = g.roleId === null ? [{ resource: g.resource!, action: g.action! }] : presets.get(g.roleId)!.permissions
    return list.some(
      (p) =>
        (p.resource === q.resource && p.action === action) ||
        (action !== 'scanner-pull' && p.resource === '*' && p.action === '*'),
    )
  }
  const projectRobot = principal.kind === 'robot' && principal.projectId !== null
  const applies = (g: GrantFacts) =>
    reaches(g) &&
    (says(g, q.action) ||
      (projectRobot && g.effect === 'allow' && q.resource === 'repository' && q.action === 'pull' && says(g, 'push')))
  if (grants.some((g) => g.effect === 'deny' && applies(g))) return false
  if (grants.some((g) => g.effect === 'allow' && applies(g))) return true
  return q.on !== 'system' && q.on.project.public && isPublic(q.resource, q.action)
}

/** mulberry32: the same questions on every run. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

describe('Authorities', () => {
  let database: TestDatabase
  let authorities: Authorities

  beforeAll(async () => {
    database = await testDatabase()
    await ensurePresets(database.db)
    authorities = new Authorities(database.db)
  })
  afterAll(async () => {
    authorities[Symbol.dispose]()
    await database[Symbol.asyncDispose]()
  })

  const user = (username: string) => database.db.prisma.user.create({ data: { username, usernameKey: username } })
  const eventually = async (check: () => Promise<boolean>) => {
    const until = Date.now() + 3_000 // below the 5 s after which everything is read again anyway
    while (!(await check())) {
      if (Date.now() > until) throw new Error('the change was not seen within 3 s')
      await new Promise((resolve) => setTimeout(resolve, 5)) // what is cached never waits, so nothing would be heard
    }
  }

  it('finds the presets under Harbor’s ids, and leaves other roles alone', async () => {
    const { prisma } = database.db
    const own = await prisma.role.create({ data: { name: 'puller', title: 'Puller' } })
    expect(own.id).toBeGreaterThanOrEqual(1000)
    await prisma.rolePermission.deleteMany({ where: { roleId: 2, resource: 'repository', action: 'push' } })
    await prisma.rolePermission.create({ data: { roleId: 2, resource: 'member', action: 'delete' } })
    await Promise.all([ensurePresets(database.db), ensurePresets(database.db)])
    const rows = await prisma.role.findMany({
      include: { _count: { select: { permissions: true } } },
      orderBy: { id: 'asc' },
    })
    expect(rows.map((r) => [r.id, r.name, r._count.permissions])).toEqual([
      [1, 'projectAdmin', 75],
      [2, 'developer', 36],
      [3, 'guest', 20],
      [4, 'maintainer', 53],
      [5, 'limitedGuest', 14],
      [100, 'systemAdmin', 1],
      [own.id, 'puller', 0],
    ])
    expect(await prisma.rolePermission.count({ where: { roleId: 2, resource: 'member', action: 'delete' } })).toBe(0)
  })

  it('unites the grants of a user, of his groups and of everyone, and shows the strongest role', async () => {
    const { prisma } = database.db
    const ben = await user('ben')
    const group = await prisma.group.create({ data: { name: 'g', provider: 'ldap', externalId: 'cn=g' } })
    await prisma.groupMember.create({ data: { groupId: group.id, userId: ben.id } })
    const node = { nodeKind: 'project', projectId: closed.id }
    await prisma.grant.createMany({
      data: [
        { principalKind: 'user', principalId: ben.id, roleId: 3, ...node },
        { principalKind: 'group', principalId: group.id, roleId: 2, ...node },
        { principalKind: 'everyone', resource: 'quota', action: 'read', ...node, projectId: 9 },
        { principalKind: 'everyone', resource: 'robot', action: 'delete', ...node, expiresAt: new Date(0) },
      ],
    })
    authorities.forget()
    const authority = await authorities.of({ kind: 'user', id: ben.id, name: 'old name' })
    expect(authority.principal).toMatchObject({ name: 'ben' })
    expect(authority.rolesOn(closed.id).map((r) => r.name)).toEqual(['developer', 'guest'])
    expect(may(authority, 'repository', 'push')).toBe(true)
    expect(may(authority, 'robot', 'delete')).toBe(false)
    expect(may(authority, 'quota', 'read', { project: { ...closed, id: 9 } })).toBe(true)
    expect(may(await authorities.of(anonymous), 'quota', 'read', { project: { ...closed, id: 9 } })).toBe(true)
  })

  it('sees a demotion, a disabled user and a disabled robot at once, with no help from its caller (A13)', async () => {
    const { prisma } = database.db
    const cleo = await user('cleo')
    const principal = { kind: 'user', id: cleo.id, name: 'cleo' } as const
    const held = await prisma.grant.create({
      data: { principalKind: 'user', principalId: cleo.id, roleId: 2, nodeKind: 'project', projectId: closed.id },
    })
    await eventually(async () => may(await authorities.of(principal), 'repository', 'push'))
    await prisma.grant.update({ where: { id: held.id }, data: { roleId: 3 } })
    await eventually(async () => !may(await authorities.of(principal), 'repository', 'push'))
    expect(may(await authorities.of(principal), 'repository', 'pull')).toBe(true)
    await prisma.user.update({ where: { id: cleo.id }, data: { disabledAt: new Date() } })
    await eventually(async () => !(await authorities.of(principal)).active)

    const robot = await prisma.robot.create({ data: { name: 'ci', nameKey: 'ci' } })
    const robotPrincipal = { kind: 'robot', id: robot.id, name: 'robot$ci', projectId: null } as const
    await eventually(async () => (await authorities.of(robotPrincipal)).active)
    await prisma.robot.update({ where: { id: robot.id }, data: { expiresAt: new Date(Date.now() - 1000) } })
    await eventually(async () => !(await authorities.of(robotPrincipal)).active)
  })

  it('is nobody’s for an id that does not exist', async () => {
    expect((await authorities.of({ kind: 'user', id: 999_999, name: 'ghost' })).active).toBe(false)
    expect((await authorities.of({ kind: 'robot', id: 999_999, name: 'ghost', projectId: 1 })).active).toBe(false)
  })

  it('does not keep what was loading while something changed', async () => {
    const dora = await user('dora')
    const principal = { kind: 'user', id: dora.id, name: 'dora' } as const
    authorities.forget()
    const before = authorities.of(principal)
    authorities.forget()
    const first = await before
    expect(await authorities.of(principal)).not.toBe(first)
  })
})
