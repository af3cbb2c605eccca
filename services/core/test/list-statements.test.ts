import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { operations } from '@haven/proto'
import { statementsOf } from '@haven/testkit'
import { ADMIN, PASSWORD, startCore, type Credentials, type TestCore } from './harness.ts'

/** A page of each list, by its operation. Each shows the rows that `grow` makes. */
const lists: Record<string, string> = {
  listUsers: '/users',
  searchUsers: '/users/search?username=crowd',
  listUserGroups: '/usergroups',
  searchUserGroups: '/usergroups/search?groupname=crowd',
  listProjects: '/projects?name=crowd',
  listProjectMembers: '/projects/home/members',
  ListRobot: '/robots?q=Level%3Dproject%2CProjectID%3DHOME',
  ListLabels: '/labels?scope=p&project_id=HOME',
  listQuotas: '/quotas',
  ListImmuRules: '/projects/home/immutabletagrules',
  listRegistries: '/registries',
  listAuditLogExts: '/auditlog-exts?q=operation%3Dcrowd',
  getLogExts: '/projects/home/auditlog-exts?q=username%3D~crowd',
  listArtifactsOfProject: '/projects/home/artifacts',
}
/** Harbor's log from before 2.13, which nobody writes; and the list of scanners, which is none of accounts. */
const without = new Set(['listAuditLogs', 'getLogs', 'listScannerCandidatesOfProject'])
const tags = new Set(
  'user usergroup member project projectMetadata robot label immutable auditlog quota registry'.split(' '),
)

let core: TestCore
let home: number

beforeAll(async () => {
  core = await startCore()
  home = await core.project('home')
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

const page = (path: string) =>
  `/api/v2.0${path.replace('HOME', String(home))}${path.includes('?') ? '&' : '?'}page_size=100`

/** Nothing that was known before helps, and nothing that happens beside it counts: the least of some tries. */
async function countOf(path: string, as: Credentials): Promise<{ statements: number; rows: number }> {
  const tries: number[] = []
  let rows = 0
  for (let n = 0; n < 3; n++) {
    core.authorities.forget()
    core.db.lists.forget()
    const texts = await statementsOf(async () => {
      const reply = await core.send('GET', path, { as })
      expect([path, reply.status]).toEqual([path, 200])
      rows = Array.isArray(reply.body) ? reply.body.length : Object.values(reply.body as object).flat().length
    })
    expect(texts).not.toEqual([])
    tries.push(texts.filter((text) => !text.includes('system"."settings') && !text.includes('last_used_at')).length)
  }
  return { statements: Math.min(...tries), rows }
}

const numbers = (first: number, last: number) => Array.from({ length: last - first + 1 }, (_, n) => first + n)

/** The rows first to last of everything that is listed. */
async function grow(first: number, last: number): Promise<void> {
  const { prisma } = core.db
  for (const n of numbers(first, last)) {
    const name = `crowd-${n}`
    const user = await prisma.user.create({
      data: { username: name, usernameKey: name, email: `${name}@example.com`, emailKey: `${name}@example.com` },
    })
    const group = await prisma.group.create({ data: { name, provider: 'http', externalId: name } })
    const owner = await prisma.user.create({ data: { username: `owner-${n}`, usernameKey: `owner-${n}` } })
    const project = await prisma.project.create({
      data: {
        name,
        nameKey: name,
        ownerId: owner.id,
        quota: { create: {} },
        metadata: { create: { name: 'public', value: 'true' } },
      },
    })
    const member = { roleId: 2, nodeKind: 'project', projectId: home }
    await prisma.grant.createMany({
      data: [
        { ...member, principalKind: 'user', principalId: user.id },
        { ...member, principalKind: 'group', principalId: group.id },
      ],
    })
    const robot = await prisma.robot.create({
      data: { name, nameKey: `home+${name}`, projectId: home, creatorKind: 'local', creatorId: user.id },
    })
    await prisma.grant.createMany({
      data: ['pull', 'push'].map((action) => ({
        principalKind: 'robot',
        principalId: robot.id,
        nodeKind: 'project',
        projectId: project.id,
        resource: 'repository',
        action,
      })),
    })
    await prisma.label.create({ data: { name, scope: 'p', projectId: home } })
    await prisma.immutableRule.create({ data: { projectId: home, rule: {} } })
    await prisma.registryEndpoint.create({
      data: { name, type: 'docker-registry', url: `https://${name}.example.com`, health: 'healthy' },
    })
    await prisma.auditEntry.create({
      data: { projectId: home, operation: 'crowd', resourceType: 'artifact', resource: name, actor: name },
    })
    const repository = await prisma.repository.create({
      data: { projectId: home, path: name, firstPushedAt: new Date() },
    })
    await prisma.manifest.create({
      data: {
        repositoryId: repository.id,
        digest: `sha256:${String(n).padStart(64, '0')}`,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        kind: 'image',
        type: 'IMAGE',
        payload: Buffer.from('{}'),
        payloadBytes: 2,
        totalBytes: 2n,
      },
    })
  }
}

describe('a page of a list', () => {
  const known = Object.values(operations).filter(
    ({ method, tag, responses }) =>
      method === 'GET' && tags.has(tag) && responses['200']?.headers.includes('X-Total-Count'),
  )

  it('is counted here for every operation that has pages', () => {
    expect(known.map(({ operationId }) => operationId).filter((id) => !without.has(id) && !(id in lists))).toEqual([])
  })

  it('costs no more statements with thirty rows than with one', async () => {
    await grow(1, 1)
    const few: Record<string, { statements: number; rows: number }> = {}
    for (const [operation, path] of Object.entries(lists)) few[operation] = await countOf(page(path), ADMIN)
    await grow(2, 30)
    const many: typeof few = {}
    for (const [operation, path] of Object.entries(lists)) many[operation] = await countOf(page(path), ADMIN)
    for (const [operation, { statements, rows }] of Object.entries(many)) {
      const before = few[operation]!
      expect([operation, before.statements, statements > before.statements]).toEqual([
        operation,
        before.statements,
        false,
      ])
      expect([operation, rows - before.rows >= 29]).toEqual([operation, true])
    }
  })
})

describe('a member', () => {
  it('of 300 projects lists, searches and is checked in as many statements as one of three', async () => {
    const { prisma } = core.db
    const made = await prisma.project.createManyAndReturn({
      data: numbers(1, 300).map((n) => ({ name: `wide-${n}`, nameKey: `wide-${n}`, ownerId: 1 })),
    })
    await prisma.quota.createMany({ data: made.map(({ id }) => ({ projectId: id })) })
    const memberOf = async (name: string, projects: typeof made) => {
      const user = await core.user(name)
      await prisma.grant.createMany({
        data: projects.map(({ id }) => ({
          principalKind: 'user',
          principalId: user.id,
          roleId: 2,
          nodeKind: 'project',
          projectId: id,
        })),
      })
      return { name, password: PASSWORD }
    }
    const [narrow, wide] = [await memberOf('narrow', made.slice(0, 3)), await memberOf('wide', made)]
    const paths = [
      '/projects',
      '/projects?name=wide',
      '/search?q=wide',
      '/projects/wide-2',
      '/auditlog-exts',
      '/statistics',
      '/repositories',
      '/users/current/permissions?scope=/project/wide-2',
    ].map(page)
    const count = async (as: Credentials) => {
      const counts: [string, number][] = []
      for (const path of paths) counts.push([path, (await countOf(path, as)).statements])
      return counts
    }
    // Repositories of few projects are counted by the statement that reads the page.
    const ofRepositories = page('/repositories')
    const expected = (await count(narrow)).map(([path, n]) => [path, path === ofRepositories ? n + 1 : n])
    expect(await count(wide)).toEqual(expected)
    expect((await countOf(page('/projects?name=wide'), wide)).rows).toBe(100)
  })
})
