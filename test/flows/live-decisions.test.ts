import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { startReplica, type Replica } from '../faults/harness.ts'
import { ADMIN, Client, send, until, type Account } from './client.ts'

// Every change is made at one process and looked for at the other, which no request has told of it.
let haven: HavenInstallation
let replica: Replica
let here: Client
let there: Client

beforeAll(async () => {
  haven = await startHaven()
  replica = await startReplica(haven)
  here = new Client(haven.url)
  there = new Client(replica.url)
}, 180_000)
afterAll(async () => {
  await replica?.[Symbol.asyncDispose]()
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

const access = (...actions: string[]) => actions.map((action) => ({ resource: 'repository', action }))
type Robot = Account & { id: number; body: object }

async function robot(project: string, actions: string[] = ['list', 'pull', 'push']): Promise<Robot> {
  const permissions = [
    { kind: 'project', namespace: project, access: [...access(...actions), { resource: 'project', action: 'read' }] },
  ]
  const body = { name: 'ci', level: 'project', duration: 30, permissions }
  const made = (await here.mustApi('POST', '/robots', ADMIN, body)).json as { id: number; name: string; secret: string }
  return { id: made.id, name: made.name, password: made.secret, body: { ...body, name: made.name } }
}

/** A project with an image, and somebody in it who holds a token for that. */
async function held(project: string, who: () => Promise<Account>) {
  await here.project(project)
  await here.pushImage(`${project}/app`, '1', await here.token(ADMIN, `${project}/app`))
  const account = await who()
  const token = await here.token(account, `${project}/app`, 'pull')
  return {
    account,
    /** What the other process says: to the password at the API and the registry, and to the token in hand. */
    async sees() {
      const replies = await Promise.all([
        there.api('GET', `/projects/${project}`, account),
        send(`${replica.url}/v2/${project}/app/manifests/1`, 'GET', { as: account }),
        there.pull(`${project}/app`, '1', token),
      ])
      return replies.map(({ status }) => status)
    },
  }
}

// What a process remembers is at most 5 s old; the question that finds out comes a little later.
const WITHIN_MS = 6_000

/** Asks the other process until it says this. */
const becomes = (sees: () => Promise<number[]>, expected: number[]) =>
  until(`it becomes ${expected.join()}`, sees, (statuses) => statuses.join() === expected.join(), WITHIN_MS)

describe('a change at one process is known to the other within 5 s, tokens in hand included (R10, A13)', () => {
  it('a member who was removed', async () => {
    const ann = await here.user('ann')
    let member = 0
    const { sees } = await held('of-ann', async () => {
      member = await here.member('of-ann', 'ann', 2)
      return ann
    })
    expect(await sees()).toEqual([200, 200, 200])
    await here.mustApi('DELETE', `/projects/of-ann/members/${member}`)
    await becomes(sees, [403, 401, 401])
  })

  it('a user who was deleted', async () => {
    const ben = await here.user('ben')
    const { sees } = await held('of-ben', async () => {
      await here.member('of-ben', 'ben', 2)
      return ben
    })
    expect(await sees()).toEqual([200, 200, 200])
    await here.mustApi('DELETE', `/users/${ben.id}`)
    await becomes(sees, [401, 401, 401])
  })

  it('a robot that was disabled, and is back when it is enabled', async () => {
    let ci: Robot
    const { sees } = await held('disabling', async () => (ci = await robot('disabling')))
    expect(await sees()).toEqual([200, 200, 200])
    await here.mustApi('PUT', `/robots/${ci!.id}`, ADMIN, { ...ci!.body, duration: 30, disable: true })
    await becomes(sees, [401, 401, 401])
    await here.mustApi('PUT', `/robots/${ci!.id}`, ADMIN, { ...ci!.body, duration: 30, disable: false })
    await becomes(sees, [200, 200, 200])
  })

  it('a robot that was deleted', async () => {
    let ci: Robot
    const { sees } = await held('deleting', async () => (ci = await robot('deleting')))
    expect(await sees()).toEqual([200, 200, 200])
    await here.mustApi('DELETE', `/robots/${ci!.id}`)
    await becomes(sees, [401, 401, 401])
  })

  it('a robot whose time came, though nothing announces that', async () => {
    let ci: Robot
    const { sees } = await held('expiring', async () => (ci = await robot('expiring')))
    expect(await sees()).toEqual([200, 200, 200])
    // Its expiry passes with no statement that anybody would hear of.
    const session = await haven.session()
    await session.query(`set session_replication_role = replica`)
    await session.query(`update identity.robots set expires_at = now() where id = ${ci!.id}`)
    await session[Symbol.asyncDispose]()
    await becomes(sees, [401, 401, 401])
  })

  it('a robot that was given another secret: the old one is no more, tokens go on with what it may', async () => {
    let ci: Robot
    const { sees } = await held('refreshing', async () => (ci = await robot('refreshing')))
    expect(await sees()).toEqual([200, 200, 200])
    await here.mustApi('PATCH', `/robots/${ci!.id}`, ADMIN, { secret: '' })
    await becomes(sees, [401, 401, 200])
  })

  it('permissions that were taken from a robot', async () => {
    let ci: Robot
    const { sees } = await held('narrowing', async () => (ci = await robot('narrowing')))
    expect(await sees()).toEqual([200, 200, 200])
    const permissions = [{ kind: 'project', namespace: 'narrowing', access: [{ resource: 'label', action: 'list' }] }]
    await here.mustApi('PUT', `/robots/${ci!.id}`, ADMIN, { ...ci!.body, permissions })
    await becomes(sees, [403, 401, 401])
  })

  it('a project that was made again under its name: who was in the old one is not in the new one', async () => {
    await here.project('remade')
    const cal = await here.user('cal')
    await here.member('remade', 'cal', 2)
    const ci = await robot('remade')
    const accounts: Account[] = [cal, ci]
    const tokens = await Promise.all(accounts.map((account) => here.token(account, 'remade/app', 'pull')))
    const sees = async () => {
      const replies = await Promise.all([
        ...accounts.map((account) => there.api('GET', '/projects/remade', account)),
        ...tokens.map((token) => there.pull('remade/app', '1', token)),
      ])
      return replies.map(({ status }) => status)
    }
    expect(await sees()).toEqual([200, 200, 404, 404])
    await here.mustApi('DELETE', '/projects/remade')
    await here.project('remade')
    await here.pushImage('remade/app', '1', await here.token(ADMIN, 'remade/app'))
    await becomes(sees, [403, 401, 401, 401])
  })
})
