import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import type { Operation } from '@haven/proto'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, idIn, send, type Account } from '../flows/client.ts'
import { exampleBody, exampleQuery, servedOperations } from './examples.ts'

/**
 * Every operation that is served, as the contract declares it: who may not call it (threats.md R1), and what it says of a child that is
 * another parent's (R2). An operation that comes joins by itself; one that works on a new kind of resource needs an example of that.
 */
const served = servedOperations()

/** Path parameters of one thing of a kind. */
type Example = { readonly [parameter: string]: string }
/** By kind of resource, as `x-haven-parents` names it. */
type Examples = { [kind: string]: Example }

/** What is alice's, and of each kind that lies below another one, what has another parent and is hers, too. */
let hers: Examples
let sibling: Examples
let haven: HavenInstallation
let client: Client
let alice: Account
let stranger: Account
let foreignRobot: Account

beforeAll(async () => {
  haven = await startHaven()
  client = new Client(haven.url)
  const owner = await client.user('alice')
  alice = owner
  stranger = await client.user('stranger')
  const made = { hers: await client.project('hers', alice), second: await client.project('second', alice) }
  await client.project('his', stranger)
  foreignRobot = await robotOfEverything('his')
  hers = {
    ...named('hers', made.hers),
    member: { mid: String(await client.member('hers', (await client.user('member')).name, 3, alice)) },
    robot: { robot_id: String(await idOfRobot('hers')) },
    user: { user_id: String(owner.id) },
    metadata: { meta_name: 'public' },
    label: { label_id: await create('/labels', { name: 'l', scope: 'p', project_id: made.hers }) },
    'immutable-rule': { immutable_rule_id: await create('/projects/hers/immutabletagrules', immutableRule) },
    repository: { repository_name: 'app' },
    artifact: { reference: await image('hers/app', 'one') },
    tag: { tag_name: 'one' },
    addition: { addition: 'build_history' },
    // The icon of images: everybody may see it. As a blob it is nowhere, and that is told, too.
    icon: { digest: 'sha256:0048162a053eef4d4ce3fe7518615bef084403614f8bca43b40ae2e762e11e06' },
  }
  await client.mustApi('POST', `/projects/hers/repositories/app/artifacts/one/labels`, alice, {
    id: Number(hers.label!.label_id),
  })
  sibling = {
    ...named('second', made.second),
    repository: { repository_name: 'other' },
    artifact: { reference: await image('hers/app', 'two') },
  }
  await image('hers/other', 'three')
  hers.execution = { gc_id: await create('/system/gc/schedule', { schedule: { type: 'Manual' } }, ADMIN) }
}, 180_000)
afterAll(async () => haven?.[Symbol.asyncDispose](), 60_000)

const named = (name: string, id: number): Examples => ({
  project: { project_name_or_id: name, project_name: name, project_id: String(id) },
})
const immutableRule = {
  template: 'immutable_template',
  action: 'immutable',
  tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: 'v*' }],
  scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: '**' }] },
}

async function create(path: string, body: object, as: Account = alice): Promise<string> {
  return String(idIn(await client.mustApi('POST', path, as, body)))
}

const robotBody = (project: string, access: unknown[]) => ({
  name: 'ci',
  level: 'project',
  duration: 30,
  permissions: [{ kind: 'project', namespace: project, access }],
})

/** Pushes one, and answers its digest. */
async function image(repository: string, tag: string): Promise<string> {
  return (await client.pushImage(repository, tag, await client.token(alice, repository))).digest
}

const idOfRobot = async (project: string) =>
  create('/robots', robotBody(project, [{ resource: 'repository', action: 'pull' }]))

/** A robot that may do in its project everything that robots can be given. */
async function robotOfEverything(project: string): Promise<Account> {
  const { json } = await client.mustApi('GET', '/permissions')
  const body = robotBody(project, (json as { project: unknown[] }).project)
  const made = (await client.mustApi('POST', '/robots', ADMIN, body)).json as { name: string; secret: string }
  return { name: made.name, password: made.secret }
}

/** The path of an operation on these things; what no example says is 1. */
const pathOf = (operation: Operation, things: Examples): string => {
  const known = Object.assign({}, ...Object.values(things)) as Example
  const path = operation.path.replaceAll(/\{(\w+)\}/g, (_, name: string) => known[name] ?? '1')
  return path + exampleQuery(operation, { ...known, project_name: known.project_name ?? '1' })
}

const hasExamples = (operation: Operation): boolean => {
  const known = Object.assign({}, ...Object.values(hers)) as Example
  return operation.parameters.every(({ in: where, name }) => where !== 'path' || Object.hasOwn(known, name))
}

const call = (operation: Operation, things: Examples, as: Account | null) => {
  const path = pathOf(operation, things)
  const body = exampleBody(operation, path.split('/').at(-1))
  return send(haven.url + path, operation.method, { as, ...(body && { body }) })
}

const table = (some: readonly Operation[]) =>
  some.map((operation) => [`${operation.method} ${operation.path}`, operation] as const)
const scoped = (...scopes: Operation['permission']['scope'][]) =>
  served.filter(({ permission }) => scopes.includes(permission.scope))

/** Operations that decide in their handlers and that a stranger may call all the same, with what then keeps him out. */
const openToStrangers: { readonly [operationId: string]: string } = {
  createProject: 'everybody who signed in may make one, of his own',
  ListLabels: 'global labels are everybody’s',
  explainPermission: 'about oneself',
  listAuditLogs: 'of the projects where they may read the log',
  listAuditLogExts: 'of the projects where they may read the log',
  getPermissions: 'who administers any project chooses from them',
}
const openToVisitors: { readonly [operationId: string]: string } = {
  ListLabels: 'global labels are everybody’s',
}

describe('a visitor who did not sign in (R1)', () => {
  const refused = served.filter(
    ({ permission, operationId }) =>
      !['public', 'filtered'].includes(permission.scope) && !Object.hasOwn(openToVisitors, operationId),
  )
  it.each(table(refused))('%s is 401', async (_name, operation) => {
    expect((await call(operation, hers, null)).status).toBe(401)
  })
})

describe('somebody of another project (R1)', () => {
  const refused = [
    ...scoped('system', 'project', 'self-or-system'),
    ...scoped('special').filter(({ operationId }) => !Object.hasOwn(openToStrangers, operationId)),
  ]
  const callers = { 'its administrator': () => stranger, 'a robot that may do everything there': () => foreignRobot }

  it.each(table(refused))('%s is refused', async (_name, operation) => {
    for (const [who, account] of Object.entries(callers)) {
      const { status } = await call(operation, hers, account())
      expect([who, operation.permission.scope === 'special' ? [403, 404].includes(status) : status === 403]).toEqual([
        who,
        true,
      ])
    }
  })

  it.each(table(scoped('solution')))('%s is for services only', async (_name, operation) => {
    for (const account of [stranger, foreignRobot, ADMIN])
      expect((await call(operation, hers, account)).status).toBe(401)
  })
})

describe('what shows to everybody what he may see (R1)', () => {
  const shown = served.filter(
    ({ method, permission, operationId, parents }) =>
      method === 'GET' &&
      parents.length === 0 &&
      (permission.scope === 'filtered' || Object.hasOwn(openToStrangers, operationId)),
  )

  it.each(table(shown))('%s shows nobody else what is private', async (_name, operation) => {
    for (const account of [null, stranger, foreignRobot]) {
      const { status, text } = await call(operation, hers, account)
      // The last: a question that the examples do not complete.
      expect([[200, 401, 403, 400].includes(status), /\bhers\b/.test(text)]).toEqual([true, false])
    }
    if (operation.permission.scope === 'filtered') expect((await call(operation, hers, stranger)).status).toBe(200)
  })
})

/** Kinds whose names are the same in every parent: a key of settings is no thing of its own. */
const nameless = new Set(['metadata'])
/** What a repository that is not there answers to these is no 404, and nothing of another one. */
const withoutRepository: { readonly [operationId: string]: string } = {
  listArtifacts: 'it is an empty list, as in Harbor',
  CopyArtifact: 'a copy makes it',
}

describe('a child of another parent (R2)', () => {
  const nested = served.filter(
    ({ parents, operationId }) =>
      parents.length > 1 &&
      parents[0] === 'project' &&
      !parents.some((kind) => nameless.has(kind)) &&
      !Object.hasOwn(withoutRepository, operationId),
  )

  it.each(table(nested))('%s is 404 for who may do it in both', async (_name, operation) => {
    for (const parent of operation.parents.slice(0, -1)) {
      const other = sibling[parent]
      // Without an example this would be a 404 of something that is not there at all.
      expect([operation.parents.join(), other !== undefined && hasExamples(operation)]).toEqual([
        operation.parents.join(),
        true,
      ])
      const { status } = await call(operation, { ...hers, [parent]: other! }, alice)
      expect([parent, status]).toEqual([parent, 404])
    }
  })

  it('and everything is still there, as it was', async () => {
    const reads = served.filter(
      (operation) => operation.method === 'GET' && operation.parents.length > 0 && hasExamples(operation),
    )
    expect(reads.length).toBeGreaterThan(5)
    for (const operation of reads) {
      expect([operation.operationId, (await call(operation, hers, ADMIN)).status]).toEqual([operation.operationId, 200])
    }
    const { json } = await client.mustApi('GET', `/robots/${hers.robot!.robot_id}`)
    expect(json).toMatchObject({ permissions: [{ access: [{ resource: 'repository', action: 'pull' }] }] })
    expect((await client.mustApi('GET', `/projects/hers/members/${hers.member!.mid}`)).json).toMatchObject({
      role_id: 3,
    })
  })
})
