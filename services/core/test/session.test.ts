import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN, Browser, PASSWORD, PROXY_SECRET, startCore, type TestCore } from './harness.ts'

let core: TestCore
beforeAll(async () => {
  core = await startCore()
  await core.user('una')
})
afterAll(() => core[Symbol.asyncDispose]())

const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }
const form = (fields: Record<string, string>) => ({ raw: new URLSearchParams(fields).toString(), headers: FORM })

describe('signing in on a page', () => {
  it('begins a session under a new id, and the one before is dead (A59)', async () => {
    const browser = new Browser(core)
    await browser.login('una', PASSWORD)
    const first = browser.cookies.get('sid') ?? ''
    const reply = await browser.login('una@example.com', PASSWORD)
    expect([reply.status, reply.text]).toEqual([200, ''])
    expect(browser.cookies.get('sid')).not.toBe(first)
    const current = (sid: string) => core.send('GET', '/api/v2.0/users/current', { headers: { Cookie: `sid=${sid}` } })
    expect((await current(first)).status).toBe(401)
    expect((await current(browser.cookies.get('sid') ?? '')).body).toMatchObject({ username: 'una' })
  })

  it('takes no id that somebody else chose', async () => {
    const browser = new Browser(core)
    browser.cookies.set('sid', 'chosen-by-an-attacker')
    await browser.login('una', PASSWORD)
    expect(browser.cookies.get('sid')).not.toBe('chosen-by-an-attacker')
    const attacker = await core.send('GET', '/api/v2.0/users/current', {
      headers: { Cookie: 'sid=chosen-by-an-attacker' },
    })
    expect(attacker.status).toBe(401)
  })

  it('sets cookies that scripts and other sites cannot use', async () => {
    const browser = new Browser(core)
    const reply = await browser.send('GET', '/c/log_out')
    for (const cookie of reply.cookies) expect(cookie).toMatch(/; Path=\/; HttpOnly; SameSite=Strict/)
    const headers = { 'X-Haven-Proxy': PROXY_SECRET, 'X-Forwarded-Proto': 'https' }
    const overTls = await core.send('GET', '/c/log_out', { headers })
    for (const cookie of overTls.cookies) expect(cookie).toContain('; Secure')
  })

  it.each([
    ['a wrong password', form({ principal: 'una', password: 'Wrong1234' })],
    ['an unknown name', form({ principal: 'nobody', password: PASSWORD })],
    ['nothing', form({})],
    [
      'JSON',
      {
        raw: JSON.stringify({ principal: 'una', password: PASSWORD }),
        headers: { 'Content-Type': 'application/json' },
      },
    ],
    ['a form as plain text', { raw: `principal=una&password=${PASSWORD}`, headers: { 'Content-Type': 'text/plain' } }],
  ])('refuses %s without a word', async (_what, sent) => {
    const browser = new Browser(core)
    await browser.send('GET', '/c/log_out')
    const reply = await browser.send('POST', '/c/login', sent)
    expect([reply.status, reply.text]).toEqual([401, ''])
    expect((await browser.send('GET', '/api/v2.0/users/current')).status).toBe(401)
  })

  it('ends at log-out, also for whoever copied the cookie', async () => {
    const browser = new Browser(core)
    await browser.login('una', PASSWORD)
    const sid = browser.cookies.get('sid')
    expect((await browser.send('GET', '/c/log_out')).status).toBe(200)
    expect(browser.cookies.has('sid')).toBe(false)
    const copied = await core.send('GET', '/api/v2.0/users/current', { headers: { Cookie: `sid=${sid}` } })
    expect(copied.status).toBe(401)
  })

  it('is told of in the outbox, a failure too', async () => {
    const browser = new Browser(core)
    await browser.login('una', 'Wrong1234')
    await browser.login('una', PASSWORD)
    await browser.send('GET', '/c/log_out')
    const events = await core.db.prisma.outboxEvent.findMany({ orderBy: { id: 'desc' }, take: 3 })
    expect(events.map((event) => event.type.split('.').at(-1))).toEqual([
      'UserSignedOut',
      'UserSignedIn',
      'UserSignedIn',
    ])
    expect(events[2]?.payload).toMatchObject({ user: { name: 'una' } })
    expect(events[2]?.payload).not.toHaveProperty('succeeded', true)
    expect(JSON.stringify(events.map((event) => event.payload))).not.toContain('Wrong1234')
  })
})

describe('a change that a browser asks for (A58)', () => {
  const change = { body: { email: 'una@example.com', realname: 'Una' } }
  let signedIn: Browser
  let other: Browser
  let path: string
  beforeAll(async () => {
    signedIn = new Browser(core)
    other = new Browser(core)
    await core.user('vic')
    await signedIn.login('una', PASSWORD)
    await other.login('vic', PASSWORD)
    const me = (await signedIn.send('GET', '/api/v2.0/users/current')).body as { user_id: number }
    path = `/api/v2.0/users/${me.user_id}`
  })

  it('needs the token of the last answer', async () => {
    expect((await signedIn.send('PUT', path, change)).status).toBe(200)
  })

  it.each<[string, () => Record<string, string>, string]>([
    ['no token', () => ({}), 'CSRF token not found in request'],
    ['a made-up token', () => ({ 'X-Harbor-CSRF-Token': 'AAAA' }), 'CSRF token invalid'],
    ["another session's token", () => ({ 'X-Harbor-CSRF-Token': other.token ?? '' }), 'CSRF token invalid'],
  ])('is refused with %s', async (_what, headers, message) => {
    const reply = await signedIn.send('PUT', path, { ...change, withToken: false, headers: headers() })
    expect([reply.status, reply.body]).toEqual([403, { errors: [{ code: 'FORBIDDEN', message }] }])
    expect(reply.headers.get('x-harbor-csrf-token')).toMatch(/^[\w+/]{64}$/)
  })

  it('is refused as soon as there is a session cookie, whatever it holds, Basic or not', async () => {
    const reply = await core.send('POST', '/api/v2.0/projects', {
      as: ADMIN,
      body: { project_name: 'crossed' },
      headers: { Cookie: 'sid=anything' },
    })
    expect(reply.status).toBe(403)
    expect((await core.admin('GET', '/projects/crossed')).status).toBe(404)
  })

  it('is refused when it comes as a form, with the token or without', async () => {
    const reply = await signedIn.send('POST', '/api/v2.0/projects', { raw: '{"project_name":"formed"}', headers: FORM })
    expect(reply.status).toBe(422)
    expect((await core.admin('GET', '/projects/formed')).status).toBe(404)
  })

  it('is refused under /c without a token, cookie or not', async () => {
    const reply = await core.send('POST', '/c/login', form({ principal: 'una', password: PASSWORD }))
    expect(reply.status).toBe(403)
  })

  it('is not hidden in a GET (A53)', async () => {
    for (const headers of [{ 'X-HTTP-Method-Override': 'DELETE' }, { 'X-Original-Method': 'DELETE' }]) {
      await core.project('kept').catch(() => undefined)
      await core.send('GET', '/api/v2.0/projects/kept?_method=DELETE', { as: ADMIN, headers })
      expect((await core.admin('GET', '/projects/kept')).status).toBe(200)
    }
  })
})

describe('self-registration', () => {
  it('is for nobody while it is off, or while accounts are kept elsewhere (A68)', async () => {
    const elsewhere = await startCore({
      CONFIG_OVERWRITE_JSON: '{"self_registration": true, "auth_mode": "ldap_auth"}',
    })
    try {
      for (const [where, status] of [
        [core, 401],
        [elsewhere, 403],
      ] as const) {
        const browser = new Browser(where)
        await browser.send('GET', '/c/log_out')
        await browser.send('GET', '/api/v2.0/systeminfo')
        const account = { username: 'zoe', email: 'zoe@example.com', realname: 'Zoe', password: PASSWORD }
        expect((await browser.send('POST', '/api/v2.0/users', { body: account })).status).toBe(status)
        expect(await where.db.prisma.user.findFirst({ where: { username: 'zoe' } })).toBeNull()
      }
    } finally {
      await elsewhere[Symbol.asyncDispose]()
    }
  })

  it('is for pages, when it is on, and for no program (A68)', async () => {
    const open = await startCore({ CONFIG_OVERWRITE_JSON: '{"self_registration": true}' })
    try {
      const account = {
        username: 'wes',
        email: 'wes@example.com',
        realname: 'Wes',
        password: PASSWORD,
        sysadmin_flag: true,
      }
      const program = await open.send('POST', '/api/v2.0/users', { body: account })
      expect(program.body).toEqual({
        errors: [{ code: 'FORBIDDEN', message: 'self-registration cannot be triggered via API' }],
      }) // and 401 would say that signing in could help
      const browser = new Browser(open)
      await browser.send('GET', '/c/log_out')
      await browser.send('GET', '/api/v2.0/systeminfo')
      const exists = async () =>
        (await browser.send('POST', '/c/userExists', form({ target: 'username', value: 'wes' }))).body
      expect(await exists()).toBe(false)
      expect((await browser.send('POST', '/api/v2.0/users', { body: account })).status).toBe(201)
      expect(await exists()).toBe(true)
      await browser.login('wes', PASSWORD)
      expect((await browser.send('GET', '/api/v2.0/users/current')).body).toMatchObject({ sysadmin_flag: false })
    } finally {
      await open[Symbol.asyncDispose]()
    }
  })

  it('tells nobody who has an account while it is off (A61)', async () => {
    const browser = new Browser(core)
    await browser.send('GET', '/c/log_out')
    const replies = await Promise.all(
      ['una', 'nobody'].map((value) => browser.send('POST', '/c/userExists', form({ target: 'username', value }))),
    )
    expect(replies.map((reply) => reply.status)).toEqual([412, 412])
    expect(replies[0]?.text).toBe(replies[1]?.text)
  })
})

describe('the read-only mode', () => {
  it('refuses every change before it asks who calls, and lets people read and sign in', async () => {
    const frozen = await startCore({ CONFIG_OVERWRITE_JSON: '{"read_only": true}' })
    try {
      for (const as of [null, ADMIN]) {
        const reply = await frozen.send('POST', '/api/v2.0/projects', { as, body: { project_name: 'x' } })
        expect([reply.status, reply.body]).toEqual([
          403,
          {
            errors: [{ code: 'DENIED', message: 'The system is in read only mode. Any modification is prohibited.' }],
          },
        ])
      }
      expect((await frozen.admin('GET', '/projects')).status).toBe(200)
      expect((await new Browser(frozen).login(ADMIN.name, ADMIN.password)).status).toBe(200)
    } finally {
      await frozen[Symbol.asyncDispose]()
    }
  })
})

describe('requests that are wrong', () => {
  it.each([
    ['PATCH', '/api/v2.0/projects', 405, 'method PATCH is not allowed, but [GET,HEAD,POST] are'],
    ['OPTIONS', '/api/v2.0/ping', 405, 'method OPTIONS is not allowed, but [GET] are'],
    ['GET', '/api/v2.0/nope', 404, 'path /api/v2.0/nope was not found'],
    ['GET', '/api/v2.0/projects?name=%zz', 400, 'invalid URL escape "%zz"'],
    ['GET', '/api/v2.0/projects?name=a;b', 400, 'invalid semicolon separator in query'],
    [
      'GET',
      '/api/v2.0/projects?page_size=101',
      422,
      'validation failure list:\npage_size in query should be less than or equal to 100',
    ],
    ['GET', '/api/v2.0/users/abc', 422, 'validation failure list:\nuser_id in path must be of type int64: "abc"'],
    ['GET', '/api/v2.0/projects/a%2fb', 400, 'the path holds a percent-encoded slash'],
    ['GET', '/api/v2.0/projects/a%00b', 400, undefined],
  ])('%s %s is %d', async (method, path, status, message) => {
    const reply = await core.send(method, path, { as: ADMIN })
    expect(reply.status).toBe(status)
    const { errors } = reply.body as { errors: { message: string }[] }
    if (message !== undefined) expect(errors).toMatchObject([{ message }])
  })

  it.each([
    ['{bad', 'application/json', 422],
    ['[]', 'application/json', 422],
    ['', 'application/json', 422],
    ['{"project_name":"x"}', 'text/plain', 422],
    ['{"project_name":5}', 'application/json', 422],
    ['null', 'application/json', 400],
    ['{"__proto__":{"project_name":"x"}}', 'application/json', 400],
  ])('the body %.40s as %s is %d', async (raw, type, status) => {
    const reply = await core.send('POST', '/api/v2.0/projects', { as: ADMIN, raw, headers: { 'Content-Type': type } })
    expect(reply.status).toBe(status)
    expect(reply.headers.get('content-type')).toBe('application/json; charset=utf-8')
  })

  it('a body that is nested deep costs nobody anything', async () => {
    const raw = `{"metadata":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}}`
    const headers = { 'Content-Type': 'application/json' }
    expect((await core.send('POST', '/api/v2.0/projects', { as: ADMIN, raw, headers })).status).toBe(422)
  })

  it('a body of more than a megabyte is 413', async () => {
    const raw = JSON.stringify({ project_name: 'x'.repeat(1024 * 1024) })
    const reply = await core.send('POST', '/api/v2.0/projects', {
      as: ADMIN,
      raw,
      headers: { 'Content-Type': 'application/json' },
    })
    expect(reply.status).toBe(413)
  })

  it('keys match whatever their case, and what follows the value is ignored', async () => {
    const reply = await core.send('POST', '/api/v2.0/projects', {
      as: ADMIN,
      raw: '{"Project_Name":"cased"} xx',
      headers: { 'Content-Type': 'application/json; charset=utf-8' },
    })
    expect(reply.status).toBe(201)
    expect(reply.headers.get('location')).toMatch(/^\/api\/v2\.0\/projects\/\d+$/)
  })

  it('nothing in a query gets into a header of its own (A56)', async () => {
    for (let i = 0; i < 3; i++) await core.project(`crlf-${i}`)
    const path = `/api/v2.0/projects?page_size=1&name=crlf&x=${encodeURIComponent('a\r\nX-Evil: 1')}`
    const reply = await core.send('GET', path, { as: ADMIN })
    expect(reply.headers.get('x-evil')).toBeNull()
    expect(reply.headers.get('link')).toContain('%0D%0A')
  })
})

describe('the API explorer', () => {
  it('shows the contract with assets of our own', async () => {
    const page = await core.send('GET', '/devcenter-api-2.0/')
    expect([page.status, page.headers.get('content-type')]).toEqual([200, expect.stringContaining('text/html')])
    expect(page.text).not.toMatch(/(?:src|href)="(?:https?:)?\/\//)
    const assets = [...page.text.matchAll(/(?:src|href)="(\.\/[^"]+)"/g)].map((found) => found[1] ?? '')
    expect(assets.length).toBeGreaterThan(2)
    for (const asset of assets) {
      const reply = await core.send('GET', new URL(asset, 'http://x/devcenter-api-2.0/').pathname)
      expect([asset, reply.status]).toEqual([asset, 200])
    }
    expect((await core.send('GET', '/swagger.json')).body).toMatchObject({
      openapi: expect.stringMatching(/^3\.1/) as unknown,
    })
  })

  it('is found without the slash at the end', async () => {
    const reply = await core.send('GET', '/devcenter-api-2.0')
    expect([301, 302, 308]).toContain(reply.status)
    expect(reply.headers.get('location')).toBe('/devcenter-api-2.0/')
  })
})
