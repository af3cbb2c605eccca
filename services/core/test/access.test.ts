import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { readFileSync } from 'node:fs'
import { formatNotYet, operations, type Operation } from '@haven/proto'
import { startExecution } from '@haven/queue'
import { handlers } from '../src/handlers/index.ts'
import { ADMIN, SERVICE_SECRET, startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
let stranger: Credentials
beforeAll(async () => {
  core = await startCore()
  stranger = await core.user('stranger')
  await core.project('private')
})
afterAll(() => core[Symbol.asyncDispose]())

const served = Object.values(operations).filter(
  (operation) => operation.api !== 'oci' && Object.hasOwn(handlers, operation.operationId),
)
const describeOne = (operation: Operation) => [`${operation.method} ${operation.path}`, operation] as const

/** A path to something that exists where a stranger may know of it: the private project, the first user. */
const queries: Record<string, string> = {
  headProject: '?project_name=private',
  searchUsers: '?username=a',
  searchUserGroups: '?groupname=a',
  CopyArtifact: '?from=private/a:1',
  listRobotUses: '?ids=1',
}
const values: Record<string, string> = { meta_name: 'public', addition: 'build_history' }
const pathOf = (operation: Operation) =>
  operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
    name.startsWith('project_name') ? 'private' : (values[name] ?? '1'),
  ) + (queries[operation.operationId] ?? '')

const bodies: Record<string, unknown> = { actionPendingJobs: { action: 'stop' }, createTag: { name: 'v1' } }
const bodyOf = (operation: Operation) => operation.body && { body: bodies[operation.operationId] ?? {} }
const call = (operation: Operation, as: Credentials) =>
  core.send(operation.method, pathOf(operation), {
    as,
    ...bodyOf(operation),
  })

describe('operations that are served', () => {
  it('are all but those in test/api/not-yet.txt', () => {
    const list = readFileSync(new URL('../../../test/api/not-yet.txt', import.meta.url), 'utf8')
    expect(formatNotYet(new Set(Object.keys(handlers)))).toBe(list)
  })

  it('are all of our own', () => {
    const own = Object.values(operations).filter(({ api }) => api === 'haven')
    expect(own.map(({ operationId }) => operationId).filter((id) => !Object.hasOwn(handlers, id))).toEqual([])
    expect(own.length).toBeGreaterThan(2)
  })

  it('answer 501 in the envelope where they are not', async () => {
    const reply = await core.admin('GET', '/scanners')
    expect(reply.status).toBe(501)
    expect(reply.body).toMatchObject({ errors: [{ message: expect.stringContaining('listScanners') as unknown }] })
  })
})

const guarded = served.filter(({ permission }) =>
  ['system', 'project', 'self-or-system', 'authenticated'].includes(permission.scope),
)

describe('an operation for our own services', () => {
  const internal = served.filter(({ permission }) => permission.scope === 'solution')

  it.each(internal.map(describeOne))('%s is 401 for everybody else', async (_name, operation) => {
    for (const as of [null, stranger, ADMIN]) {
      const reply = await call(operation, as)
      expect([reply.status, reply.text]).toEqual([401, expect.stringContaining('only internal service')])
    }
  })
})

describe('a visitor who did not sign in', () => {
  it.each(guarded.map(describeOne))('%s is 401', async (_name, operation) => {
    const reply = await call(operation, null)
    expect([reply.status, operation.method === 'HEAD' ? 'none' : reply.text]).toEqual([
      401,
      operation.method === 'HEAD' ? 'none' : '{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized"}]}',
    ])
  })
})

describe('somebody without a right', () => {
  const refused = guarded.filter(({ permission }) => permission.scope !== 'authenticated')

  it.each(refused.map(describeOne))('%s is 403', async (_name, operation) => {
    expect((await call(operation, stranger)).status).toBe(403)
  })

  it.each(refused.filter(({ permission }) => permission.scope === 'project').map(describeOne))(
    '%s of a project that is not there answers the same',
    async (_name, operation) => {
      const sent = { as: stranger, ...bodyOf(operation) }
      const there = await core.send(operation.method, pathOf(operation), sent)
      const absent = await core.send(operation.method, pathOf(operation).replace('private', 'absent'), sent)
      expect([absent.status, absent.text]).toEqual([there.status, there.text])
    },
  )
})

describe('an administrator', () => {
  const ofProject = served.filter(({ permission }) => permission.scope === 'project')
  it.each(ofProject.map(describeOne))('%s of a project that is not there is 404', async (_name, operation) => {
    const path = pathOf(operation).replace('private', 'absent')
    const reply = await core.send(operation.method, path, { as: ADMIN, ...bodyOf(operation) })
    expect([reply.status, reply.body]).toEqual([
      404,
      { errors: [{ code: 'NOT_FOUND', message: 'project absent not found' }] },
    ])
  })
})

describe('a child of another parent', () => {
  it('is 404 for a member, and nothing happens to it', async () => {
    const alice = await core.user('alice')
    const bob = await core.user('bob')
    await core.project('of-alice', alice)
    await core.project('of-bob', bob)
    const added = await core.send('POST', '/api/v2.0/projects/of-bob/members', {
      as: bob,
      body: { role_id: 3, member_user: { username: 'stranger' } },
    })
    expect(added.status).toBe(201)
    const mid = added.headers.get('location')?.split('/').at(-1)
    const path = `/api/v2.0/projects/of-alice/members/${mid}`
    expect((await core.send('GET', path, { as: alice })).status).toBe(404)
    expect((await core.send('PUT', path, { as: alice, body: { role_id: 1 } })).status).toBe(404)
    expect((await core.send('DELETE', path, { as: alice })).status).toBe(404)
    const kept = await core.send('GET', `/api/v2.0/projects/of-bob/members/${mid}`, { as: bob })
    expect(kept.body).toMatchObject({ entity_name: 'stranger', role_id: 3, role_name: 'guest' })
  })

  it('is 404 for an execution of another kind', async () => {
    const { id } = await core.db.transaction((tx) =>
      startExecution(tx, { vendorType: 'REPLICATION', trigger: 'MANUAL', tasks: [] }),
    )
    for (const [method, path] of [
      ['GET', `/system/gc/${id}`],
      ['PUT', `/system/gc/${id}`],
      ['GET', `/system/gc/${id}/log`],
    ] as const) {
      expect([path, (await core.admin(method, path)).status]).toEqual([path, 404])
    }
  })
})

describe('our own services', () => {
  it('are known by their secret, and only by the right one', async () => {
    const users = (authorization: string) =>
      core.send('GET', '/api/v2.0/users', { headers: { Authorization: authorization } })
    expect((await users(`Harbor-Secret ${SERVICE_SECRET}`)).status).toBe(200)
    for (const wrong of ['Harbor-Secret wrong', 'Harbor-Secret ', `Bearer ${SERVICE_SECRET}`]) {
      expect((await users(wrong)).status).toBe(401)
    }
  })
})
