import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN, startCore, type Credentials, type TestCore } from './harness.ts'

const COLLECTOR_SECRET = 'l'.repeat(40)
const digest = (text: string) => `sha256:${text.repeat(64)}`
const day = 24 * 60 * 60 * 1000

let core: TestCore
let collector: Awaited<ReturnType<typeof startCollector>>
let owner: Credentials & { id: number }
let guest: Credentials
let stranger: Credentials
let groupie: Credentials & { id: number }
let shopId: number

/** Something that answers as the log collector is told to. */
async function startCollector() {
  let answer: RequestListener = (_req, res) => res.end()
  const asked: { url: string; authorization: string | undefined }[] = []
  const server = createServer((req, res) => {
    asked.push({ url: req.url!, authorization: req.headers.authorization })
    answer(req, res)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    answers: (next: RequestListener) => (answer = next),
    close: () => new Promise((resolve) => server.close(resolve).closeAllConnections()),
  }
}

beforeAll(async () => {
  collector = await startCollector()
  core = await startCore({ LOG_COLLECTOR_URL: collector.url, LOG_COLLECTOR_SECRET: COLLECTOR_SECRET })
  owner = await core.user('owner')
  guest = await core.user('guest')
  stranger = await core.user('stranger')
  groupie = await core.user('groupie')
  shopId = await core.project('shop', owner)
  await core.project('open', ADMIN, { metadata: { public: 'true' } })
  const added = await core.send('POST', '/api/v2.0/projects/shop/members', {
    as: owner,
    body: { role_id: 3, member_user: { username: 'guest' } },
  })
  expect(added.status).toBe(201)
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
  await collector.close()
})

const explain = (what: string, as: Credentials) => core.send('GET', `/api/haven/v1/gc/explain/${what}`, { as })

/** A blob that repositories link, with a tagged manifest in each that uses it. */
async function hold(blobDigest: string, manifestDigest: string, repositories: { projectId: number; path: string }[]) {
  const { prisma } = core.db
  const blob = await prisma.blob.create({
    data: { digest: blobDigest, sizeBytes: 3, promisedUntil: new Date(Date.now() + day) },
  })
  for (const place of repositories) {
    const { id: repositoryId } = await prisma.repository.create({ data: place })
    await prisma.blobLink.create({ data: { repositoryId, blobId: blob.id, promisedUntil: new Date(0) } })
    const manifest = await prisma.manifest.create({
      data: {
        repositoryId,
        digest: manifestDigest,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        kind: 'image',
        payload: Buffer.from('{}'),
        payloadBytes: 2,
        totalBytes: 5,
        edges: {
          create: { position: 0, repositoryId, kind: 'layer', digest: blobDigest, mediaType: 'x/y', sizeBytes: 3 },
        },
      },
    })
    await prisma.tag.create({ data: { repositoryId, name: 'latest', manifestId: manifest.id } })
  }
}

describe('explaining a digest', () => {
  const blob = digest('a')
  const manifest = digest('b')
  beforeAll(async () => {
    const { id: openId } = (await core.db.prisma.project.findFirstOrThrow({ where: { name: 'open' } })) as {
      id: number
    }
    await hold(blob, manifest, [
      { projectId: shopId, path: 'cart' },
      { projectId: openId, path: 'base' },
    ])
  })
  const uses = (project: string, path: string) => ({
    kind: 'manifest',
    project,
    repository: `${project}/${path}`,
    reference: manifest,
  })

  it('tells an administrator everything', async () => {
    const reply = await explain(blob, ADMIN)
    expect([reply.status, reply.body]).toEqual([
      200,
      {
        digest: blob,
        exists: true,
        keptBy: [uses('shop', 'cart'), uses('open', 'base'), { kind: 'grace', until: expect.any(String) as unknown }],
        erasures: [],
        removals: [],
      },
    ])
    expect((await explain(manifest, ADMIN)).body).toMatchObject({
      keptBy: [
        { kind: 'tag', repository: 'shop/cart', reference: 'latest' },
        { kind: 'tag', repository: 'open/base', reference: 'latest' },
      ],
    })
  })

  it('tells others what is in repositories that they may pull from, a visitor included', async () => {
    for (const who of [owner, guest]) {
      expect((await explain(blob, who)).body).toMatchObject({
        keptBy: [uses('shop', 'cart'), uses('open', 'base'), {}],
      })
    }
    for (const who of [stranger, null]) {
      const { status, text, body } = await explain(blob, who)
      expect([status, (body as { keptBy: unknown[] }).keptBy.length]).toEqual([200, 2])
      expect(text).not.toContain('shop')
    }
  })

  it('answers a stranger as for what never was', async () => {
    const secret = digest('c')
    await hold(secret, digest('d'), [{ projectId: shopId, path: 'hidden' }])
    const never = digest('e')
    for (const what of [secret, digest('d')]) {
      const there = await explain(what, stranger)
      const absent = await explain(never, stranger)
      expect([there.status, there.text.replace(what, '')]).toEqual([404, absent.text.replace(never, '')])
      expect((await explain(what, null)).status).toBe(401)
      expect((await explain(what, owner)).status).toBe(200)
    }
    expect([(await explain(never, ADMIN)).status, (await explain(never, null)).status]).toEqual([404, 401])
  })

  it('says what removed it, but not to those who came into a project of the same name later', async () => {
    const before = digest('1')
    const after = digest('2')
    const removal = { kind: 'link', repository: 'shop/cart', actor: 'gc', reason: 'unreferenced', executionId: 7 }
    const removals = core.db.prisma.removal
    await removals.create({ data: { ...removal, digest: before, removedAt: new Date(Date.now() - day) } })
    await removals.create({ data: { ...removal, digest: after } })
    await removals.create({ data: { ...removal, kind: 'blob', repository: null, digest: after } })

    expect((await explain(before, owner)).status).toBe(404)
    expect((await explain(after, owner)).body).toEqual({
      digest: after,
      exists: false,
      keptBy: [],
      removals: [
        {
          kind: 'link',
          repository: 'shop/cart',
          execution: 7,
          at: expect.any(String) as unknown,
          because: 'unreferenced',
        },
      ],
    })
    expect((await explain(after, ADMIN)).body).toMatchObject({
      removals: [{ kind: 'blob', by: 'gc' }, { kind: 'link' }],
    })
    expect((await explain(after, stranger)).status).toBe(404)
  })

  it('refuses what is no digest', async () => {
    expect((await explain('latest', ADMIN)).status).toBe(422)
  })
})

describe('explaining a permission', () => {
  const ask = (as: Credentials, query: Record<string, string>) =>
    core.send('GET', `/api/haven/v1/permissions/explain?${new URLSearchParams(query).toString()}`, { as })
  const push = { project: 'shop', resource: 'repository', action: 'push' }

  it('says why somebody may', async () => {
    expect((await ask(owner, push)).body).toEqual({
      allowed: true,
      reasons: [
        {
          code: 'role',
          message: 'owner is projectAdmin of project shop, which includes repository:push',
          grants: true,
          role: 'projectAdmin',
          grant: { id: expect.any(Number) as unknown, node: 'project' },
        },
      ],
      wouldAllow: [],
    })
    expect((await ask(ADMIN, { resource: 'user', action: 'create' })).body).toMatchObject({
      allowed: true,
      reasons: [{ code: 'system-admin' }],
    })
  })

  it('says why not, and what would allow it', async () => {
    expect((await ask(guest, push)).body).toEqual({
      allowed: false,
      reasons: [{ code: 'no-grant', message: 'nothing gives repository:push on project shop to guest', grants: false }],
      wouldAllow: [
        { kind: 'role', role: 'developer', message: 'the role Developer, or a stronger one, in project shop' },
        { kind: 'role', role: 'systemAdmin', message: 'being a system administrator' },
      ],
    })
    const pull = { ...push, action: 'pull' }
    expect((await ask(owner, { ...pull, principal: 'anonymous' })).body).toMatchObject({
      allowed: false,
      wouldAllow: [{ kind: 'public-project', message: 'project shop made public' }],
    })
    expect((await ask(stranger, { ...pull, project: 'open' })).body).toMatchObject({
      allowed: true,
      reasons: [{ code: 'public-project' }],
    })
  })

  it('sees a grant on one repository when that is named', async () => {
    await core.db.prisma.grant.create({
      data: {
        principalKind: 'user',
        principalId: (await core.db.prisma.user.findFirstOrThrow({ where: { username: 'guest' } })).id,
        resource: 'repository',
        action: 'push',
        nodeKind: 'repository',
        projectId: shopId,
        repository: 'cart',
      },
    })
    core.authorities.forget()
    expect((await ask(guest, push)).body).toMatchObject({ allowed: false })
    expect((await ask(guest, { ...push, repository: 'cart' })).body).toMatchObject({
      allowed: true,
      reasons: [{ code: 'permission', message: 'guest was given repository:push on a part of project shop' }],
    })
  })

  it('tells of others only to who administers them', async () => {
    const about = (name: string) => ({ ...push, principal: `user:${name}` })
    expect((await ask(guest, about('guest'))).status).toBe(200)
    expect((await ask(guest, about('owner'))).status).toBe(403)
    expect((await ask(owner, about('guest'))).status).toBe(200)
    expect((await ask(owner, { resource: 'user', action: 'list', principal: 'user:guest' })).status).toBe(403)
    expect((await ask(ADMIN, about('nobody'))).status).toBe(404)
    expect((await ask(guest, about('nobody'))).status).toBe(403)
    await core.db.prisma.robot.create({ data: { name: 'ci', nameKey: 'open+ci', projectId: shopId + 1 } })
    expect((await ask(ADMIN, { ...push, principal: 'robot:robot$open+ci' })).body).toMatchObject({
      allowed: false,
      wouldAllow: [], // a robot of another project can be given nothing here
    })
    expect((await ask(ADMIN, { ...push, project: 'open', principal: 'robot:robot$open+ci' })).body).toMatchObject({
      allowed: false,
      wouldAllow: [{ kind: 'permission' }],
    })
    expect((await ask(owner, { ...push, principal: 'robot:robot$open+ci' })).status).toBe(404)
  })

  it('tells what a group gives its members, and which grant it is', async () => {
    const { id } = await core.db.prisma.group.create({
      data: { name: 'devs', provider: 'ldap', externalId: 'cn=devs' },
    })
    await core.db.prisma.groupMember.create({ data: { groupId: id, userId: Number(groupie.id) } })
    const about = { ...push, principal: 'group:devs' }
    expect((await ask(owner, about)).body).toMatchObject({
      allowed: false,
      reasons: [{ code: 'no-grant', message: 'nothing gives repository:push on project shop to devs' }],
      wouldAllow: [{ kind: 'role', role: 'developer' }],
    })
    const granted = await core.db.prisma.grant.create({
      data: { principalKind: 'group', principalId: id, roleId: 2, nodeKind: 'project', projectId: shopId },
    })
    core.authorities.forget()
    const grant = { id: granted.id, node: 'project' }
    expect((await ask(owner, about)).body).toMatchObject({
      allowed: true,
      reasons: [{ code: 'role', message: 'devs is developer of project shop, which includes repository:push', grant }],
    })
    expect((await ask(owner, { ...push, principal: 'user:groupie' })).body).toMatchObject({
      allowed: true,
      reasons: [{ code: 'role', via: 'group', grant }],
    })
    expect((await ask(owner, { ...push, principal: 'group:none' })).status).toBe(404)
    expect((await ask(guest, about)).status).toBe(403)
  })

  it('shows a stranger no project, and a visitor nothing', async () => {
    const there = await ask(stranger, push)
    const absent = await ask(stranger, { ...push, project: 'absent' })
    expect([there.status, there.text]).toEqual([403, absent.text])
    expect((await ask(null, { ...push, project: 'open' })).status).toBe(401)
    expect((await ask(ADMIN, { ...push, project: 'absent' })).status).toBe(404)
  })

  it.each([
    ['a permission that there is not', { ...push, action: 'fly' }, 'repository:fly is no permission in a project'],
    ['one of another level', { resource: 'repository', action: 'push' }, 'is no permission on the system'],
    ['a principal that is none', { ...push, principal: 'ada' }, 'user:<name>'],
    ['a repository without a project', { resource: 'user', action: 'list', repository: 'x' }, 'name that too'],
  ])('refuses %s', async (_what, query, message) => {
    const reply = await ask(ADMIN, query)
    expect([reply.status, reply.text]).toEqual([400, expect.stringContaining(message)])
  })
})

describe('searching the logs', () => {
  const search = (as: Credentials, query = '') => core.send('GET', `/api/haven/v1/logs${query}`, { as })
  const line = (n: number, more: object = {}) =>
    `${JSON.stringify({ level: 'info', time: '2026-03-04T05:06:07.890Z', service: 'registry', msg: `line ${n}`, ...more })}\n`

  it('hands the question on with the secret, and the lines back', async () => {
    collector.answers((_req, res) => {
      res.write(line(1, { request: 'r-1', bytes: 7 }))
      res.end(`${line(2)}{"truncated":true}\n`)
    })
    const reply = await search(ADMIN, '?service=registry&level=warn&text=a%26b&requestId=r-1&limit=2')
    expect(reply.body).toEqual({
      lines: [
        {
          time: '2026-03-04T05:06:07.890Z',
          service: 'registry',
          level: 'info',
          message: 'line 1',
          requestId: 'r-1',
          fields: { bytes: 7 },
        },
        { time: '2026-03-04T05:06:07.890Z', service: 'registry', level: 'info', message: 'line 2' },
      ],
      truncated: true,
    })
    const { url, authorization } = collector.asked.at(-1)!
    expect(authorization).toBe(`Bearer ${COLLECTOR_SECRET}`)
    expect(Object.fromEntries(new URL(url, collector.url).searchParams)).toEqual({
      limit: '2',
      service: 'registry',
      level: 'warn',
      text: 'a&b',
      request: 'r-1',
    })
  })

  it('answers nothing found as an empty page, a hundred by default', async () => {
    collector.answers((_req, res) => res.end())
    expect((await search(ADMIN)).body).toEqual({ lines: [], truncated: false })
    expect(collector.asked.at(-1)!.url).toContain('limit=100')
  })

  it('is for administrators: others do not reach the collector', async () => {
    const before = collector.asked.length
    expect([(await search(owner)).status, (await search(null)).status]).toEqual([403, 401])
    expect((await search(ADMIN, '?limit=1001')).status).toBe(422)
    expect(collector.asked.length).toBe(before)
  })

  it('passes a refusal on in its words, and says when the collector fails', async () => {
    collector.answers((_req, res) => {
      res.writeHead(400, { 'Content-Type': 'application/json' })
      res.end(JSON.stringify({ errors: [{ code: 'BAD_REQUEST', message: 'service is not the name of a service' }] }))
    })
    const refused = await search(ADMIN, '?service=..')
    expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('is not the name of a service')])
    collector.answers((_req, res) => res.writeHead(500).end())
    expect((await search(ADMIN)).status).toBe(503)
    collector.answers((req) => req.socket.destroy())
    expect((await search(ADMIN)).status).toBe(503)
  })

  it('never makes a part look whole', async () => {
    collector.answers((req, res) => {
      res.write(line(1))
      setTimeout(() => req.socket.destroy(), 50)
    })
    await expect(search(ADMIN)).rejects.toThrow(/terminated|fetch failed/)
  })
})
