import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { ADMIN, Client, send, until, type Account, type Reply } from '../flows/client.ts'

const PASSWORD_RULE = 'Passw0rd-of-tests'

let haven: HavenInstallation
let client: Client
let alice: Account & { id: number }
let pids: Record<string, number | null>

beforeAll(async () => {
  haven = await startHaven()
  client = new Client(haven.url)
  alice = await client.user('alice')
  await client.user('a_b')
  await client.user('axb')
  for (const name of ['team_a', 'team-a', 'teamxa']) await client.project(name, alice)
  pids = haven.processes()
}, 120_000)
afterAll(async () => haven?.[Symbol.asyncDispose](), 60_000)

const q = (text: string) => `q=${encodeURIComponent(text)}`
const totalOf = async (path: string, as: Account = ADMIN) => {
  const { status, headers } = await client.api('GET', path, as)
  return status === 200 ? Number(headers.get('x-total-count')) : status
}
/** An answer of ours, with nothing of what is behind it. */
function expectPlain(reply: Reply, statuses: number[], what: string): void {
  expect([what, statuses.includes(reply.status), reply.status]).toEqual([what, true, reply.status])
  expect(reply.text).not.toMatch(/select |syntax error|postgres|prisma|\bat \S+\.ts/i)
}

describe('lists', () => {
  it.each([
    'sort=id;select pg_sleep(5)',
    'sort=(case when 1=1 then name else id end)',
    'sort=-password',
    'sort=last_login',
    'sort=name,password_hash',
    "sort=name' or 1=1--",
    'sort=__proto__',
    'page_size=1000',
    'page_size=-1',
    'page=-1',
    'page=1e3',
    'page=9223372036854775808',
    'page=1&page=2',
    q("name=~' or 1=1--"),
    q('name=[1~2);--]'),
    q('name={a b'),
    q('name=~(((('),
    q('='),
    q(`name=~${'a'.repeat(3000)}`),
    q(Array.from({ length: 50 }, (_, i) => `k${i}=1`).join()),
  ])('A71 %s shows no more than alice may see, and nothing of the database', async (query) => {
    const path = `/projects?${query.includes('%') ? query : query.replaceAll(' ', '%20').replaceAll("'", '%27')}`
    const reply = await client.api('GET', path, alice)
    expectPlain(reply, [200, 400, 422], query)
    if (reply.status === 200) {
      const names = (reply.json as { name: string }[]).map(({ name }) => name)
      expect(names.every((name) => ['library', 'team_a', 'team-a', 'teamxa'].includes(name))).toBe(true)
    }
    expectPlain(await client.api('GET', path.replace('/projects', '/users')), [200, 400, 422], query)
  })

  it('A72 what is not shown cannot be asked for either', async () => {
    const all = await totalOf('/users')
    expect(all).toBeGreaterThan(2)
    for (const field of [
      'password',
      'password_hash',
      'salt',
      'secret',
      'credentials',
      'owner.password',
      'identities__issuer',
      'username__startswith',
      'deleted_at',
      'name_key',
      'constructor',
    ])
      for (const operator of ['=', '=~']) {
        const found = await Promise.all(
          ['a', 'zzzz', '1'].map((value) => totalOf(`/users?${q(`${field}${operator}${value}`)}`)),
        )
        // Ignored or refused, but never an answer that depends on the value.
        expect([field, operator, new Set(found).size, [all, 400, 422].includes(found[0]!)]).toEqual([
          field,
          operator,
          1,
          true,
        ])
      }
    for (const query of [
      'username[contains]=a',
      'username[not]=',
      'where[password]=a',
      'select=password',
      'include=credentials',
    ])
      expect([query, await totalOf(`/users?${query}`)]).toEqual([query, all])
    const objects = { username: { contains: 'a' }, project_name: { not: '' }, role_id: { gt: 0 } }
    for (const [method, path, body] of [
      ['POST', '/users', { ...objects, password: PASSWORD_RULE, email: { contains: '@' }, realname: 'x' }],
      ['POST', '/projects', { project_name: { startsWith: 't' } }],
      ['POST', '/projects', { project_name: ['x'] }],
      ['POST', '/projects/team_a/members', { role_id: { gt: 0 }, member_user: { username: { contains: 'a' } } }],
      ['PUT', `/users/${alice.id}/password`, { old_password: { not: '' }, new_password: PASSWORD_RULE }],
    ] as const)
      expectPlain(await client.api(method, path, alice, body), [400, 403, 422], `${method} ${path}`)
    expect(await totalOf('/users')).toBe(all)
  })

  it('A73 a wildcard of LIKE is a character like any other', async () => {
    const names = async (path: string) =>
      ((await client.mustApi('GET', path)).json as { name?: string; username?: string }[])
        .map((row) => row.name ?? row.username)
        .sort()
    expect(await names(`/projects?${q('name=~team_a')}`)).toEqual(['team_a'])
    expect(await names(`/projects?name=team_a`)).toEqual(['team_a'])
    expect(await names(`/users?${q('username=~a_b')}`)).toEqual(['a_b'])
    expect(await names('/users/search?username=a_b')).toEqual(['a_b'])
    // The value of a term is decoded once more than the query is.
    for (const wild of ['%', '\\', '_%']) {
      expect(await names(`/projects?${q(`name=~${encodeURIComponent(wild)}`)}`)).toEqual([])
      expect(await names(`/users/search?username=${encodeURIComponent(wild)}`)).toEqual([])
    }
  })
})

describe('bodies', () => {
  const post = (body: string | Uint8Array, headers: Record<string, string> = {}) =>
    send(`${haven.url}/api/v2.0/projects`, 'POST', {
      as: ADMIN,
      headers: { 'Content-Type': 'application/json', ...headers },
      body,
    })

  it('A74 names of JavaScript are names like others, and change nobody’s objects', async () => {
    for (const text of [
      '{"project_name":"polluted","__proto__":{"public":true,"polluted":1}}',
      '{"project_name":"polluted2","constructor":{"prototype":{"polluted":1}}}',
      '{"project_name":"polluted3","metadata":{"__proto__":"true","public":"false"}}',
      '{"project_name":"__proto__"}',
      '{"project_name":"constructor"}',
    ])
      expectPlain(await post(text), [201, 400, 422], text)
    for (const key of ['__proto__', 'constructor', 'toString'])
      expectPlain(
        await client.api('POST', '/projects/team_a/metadatas', alice, JSON.parse(`{"${key}":"true"}`) as object),
        [200, 400, 422],
        key,
      )
    for (const path of [
      '/projects/__proto__',
      '/projects/constructor',
      '/projects/team_a/metadatas/__proto__',
      '/users/__proto__',
      '/__proto__',
      '/constructor',
    ])
      expectPlain(await client.api('GET', path, alice), [200, 400, 403, 404, 422], path)
    const plain = await client.mustApi('GET', '/projects/team_a', alice)
    expect(plain.text).not.toContain('polluted')
  })

  it.each<[string, string | Uint8Array, number[]]>([
    ['nested 100 000 deep', '['.repeat(100_000), [400, 413, 422]],
    ['objects nested 100 000 deep', '{"a":'.repeat(100_000), [400, 413, 422]],
    ['500 000 keys', `{${Array.from({ length: 80_000 }, (_, i) => `"k${i}":1`).join()}}`, [400, 413, 422]],
    ['two megabytes', `"${'a'.repeat(2 * 1024 * 1024)}"`, [413]],
    ['1e400', '{"project_name":"x1","storage_limit":1e400}', [400, 422]],
    ['2^63', '{"project_name":"x2","storage_limit":9223372036854775808}', [400, 422]],
    ['half a byte of storage', '{"project_name":"x3","storage_limit":1.5}', [400, 422]],
    ['a number as a text', '{"project_name":"x4","storage_limit":"1"}', [400, 422]],
    ['NaN', '{"project_name":NaN}', [400, 422]],
    ['half a character', String.raw`{"project_name":"\ud800"}`, [400, 422]],
    ['a BOM', '\ufeff{"project_name":"x5"}', [201, 400, 422]],
    ['UTF-16', Buffer.from('{"project_name":"x6"}', 'utf16le'), [400, 422]],
    ['invalid UTF-8', Buffer.from('{"project_name":"\xff\xfe"}', 'latin1'), [400, 422]],
    ['nothing', '', [400, 422]],
    ['null', 'null', [400, 422]],
    ['a list', '[]', [400, 422]],
  ])('A76 %s is refused by a process that goes on', async (what, body, statuses) => {
    expectPlain(await post(body), statuses, what)
    expect(haven.processes()).toEqual(pids)
    expect((await client.api('GET', '/ping', null)).status).toBe(200)
  })

  it('A76 ids are whole numbers of their own length', async () => {
    for (const id of [
      '1.5',
      '-0',
      '-1',
      '0',
      '1e3',
      '0x1',
      '9223372036854775808',
      '99999999999999999999999',
      'NaN',
      '%22%31%22',
      '1%20or%201=1',
      '１',
    ])
      for (const path of [`/users/${id}`, `/projects/team_a/members/${id}`, `/system/gc/${id}`])
        expectPlain(await client.api('GET', encodeURI(decodeURI(path)), ADMIN), [400, 403, 404, 422], path)
  })

  it('A77 NUL is refused wherever it may stand, by visitors and others, and is nobody’s name', async () => {
    const nul = 'a\0b'
    const refused: [string, string, object?][] = [
      ['GET', '/projects?name=%00'],
      ['GET', `/projects?${q('name=~\0')}`],
      ['GET', `/users?${q('username=~\0')}`],
      ['GET', '/users/search?username=%00'],
      ['HEAD', '/projects?project_name=%00'],
      ['GET', '/projects/team_a/members?entityname=%00'],
      ['POST', '/projects', { project_name: nul }],
      ['PUT', '/projects/team_a', { cve_allowlist: { items: [{ cve_id: nul }] } }],
      ['POST', '/projects/team_a/members', { role_id: 2, member_user: { username: nul } }],
      [
        'POST',
        '/users',
        { username: 'nul', password: PASSWORD_RULE, email: 'nul@example.test', realname: 'x', comment: nul },
      ],
      [
        'POST',
        '/users',
        { username: 'nul', password: PASSWORD_RULE, email: 'n\0@example.test', realname: 'x', comment: '' },
      ],
    ]
    for (const [method, path, body] of refused)
      expectPlain(await client.api(method, path, ADMIN, body), [400, 422], `${method} ${path}`)
    const as = { name: nul, password: 'x' }
    const form = { 'Content-Type': 'application/x-www-form-urlencoded' }
    for (const name of [nul, `robot$${nul}`]) {
      const login = new URLSearchParams({
        service: 'harbor-registry',
        grant_type: 'password',
        username: name,
        password: 'x',
      })
      const replies = [
        await send(`${haven.url}/v2/`, 'GET', { as: { ...as, name } }),
        await send(`${haven.url}/service/token?service=harbor-registry`, 'GET', { as: { ...as, name } }),
        await send(`${haven.url}/service/token`, 'POST', { headers: form, body: login.toString() }),
        await send(`${haven.url}/api/v2.0/users/current`, 'GET', { as: { ...as, name } }),
      ]
      expect(replies.map(({ status }) => status)).toEqual([401, 401, 401, 401])
    }
  })

  it('A77 odd texts are kept as texts', async () => {
    const comment = '\u202e😀 <img onerror=1> {{1}} %s'
    await client.mustApi('PUT', `/users/${alice.id}`, ADMIN, { email: 'alice@example.test', realname: 'a', comment })
    expect((await client.mustApi('GET', `/users/${alice.id}`)).json).toMatchObject({ comment })
    for (const username of ['a\nb', 'a\tb', 'a\u202eb', 'x'.repeat(256), ''])
      expectPlain(
        await client.api('POST', '/users', ADMIN, {
          username,
          password: PASSWORD_RULE,
          email: 'odd@example.test',
          realname: 'x',
        }),
        [400, 422],
        JSON.stringify(username),
      )
  })
})

describe('lines of the log', () => {
  it('A78 stay lines, whatever a client calls itself', async () => {
    const agent = `evil-${Date.now()}`
    const forged = '{"level":"error","service":"core","msg":"forged"}'
    await send(`${haven.url}/api/v2.0/ping?x=%0a${encodeURIComponent(forged)}`, 'GET', {
      headers: { 'User-Agent': `${agent} ${forged}` },
    })
    await send(`${haven.url}/v2/`, 'GET', { as: { name: `${agent}\r\n${forged}`, password: 'x' } })
    type Line = { service: string; level: string; message: string }
    const lines = await until(
      'the line of the request',
      async () =>
        (
          (await send(`${haven.url}/api/haven/v1/logs?limit=1000&text=${agent}`, 'GET', { as: ADMIN })).json as {
            lines: Line[]
          } | null
        )?.lines ?? [],
      (found) => found.length > 0,
      15_000,
    )
    expect(lines.filter(({ message, level }) => message === 'forged' || level === 'error')).toEqual([])
    const all = (
      (await send(`${haven.url}/api/haven/v1/logs?limit=1000&text=forged`, 'GET', { as: ADMIN })).json as {
        lines: Line[]
      }
    ).lines
    expect(all.filter(({ message }) => message === 'forged')).toEqual([])
  })
})
