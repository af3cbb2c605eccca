import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { signIn as prove } from '@haven/identity'
import { SignJWT, UnsecuredJWT } from 'jose'
import { CLIENT, startIssuer, type Claims, type Issuer } from './fake-issuer.ts'
import { ADMIN, Browser, PROXY_SECRET, startCore, type Reply, type TestCore } from './harness.ts'

let core: TestCore
let issuer: Issuer
const EXTERNAL = 'http://haven.example.com'
const settings = () => ({
  oidc_name: 'tests',
  oidc_endpoint: issuer.url,
  oidc_client_id: CLIENT.id,
  oidc_client_secret: CLIENT.secret,
  oidc_scope: 'openid,profile,offline_access',
  oidc_user_claim: 'preferred_username',
  oidc_groups_claim: 'groups',
  oidc_admin_group: 'admins',
  oidc_group_filter: '',
  oidc_auto_onboard: true,
  oidc_verify_cert: true,
  oidc_logout: true,
})

async function configure(change: object): Promise<void> {
  const { status, text } = await core.admin('PUT', '/configurations', change)
  if (status !== 200) throw new Error(text)
}

beforeAll(async () => {
  issuer = await startIssuer()
  core = await startCore({ OUTBOUND_ALLOW: '127.0.0.0/8', HAVEN_EXTERNAL_URL: EXTERNAL })
})
afterAll(async () => {
  await core?.[Symbol.asyncDispose]()
  await issuer?.[Symbol.asyncDispose]()
})

const honest = { down: false, userInfo: null, idToken: null, issuerInAnswer: null, expiresIn: 3600 }
const somebody = (name: string, more: object = {}): Claims => ({
  sub: `sub-of-${name}`,
  preferred_username: name,
  name,
  email: `${name}@example.com`,
  groups: [],
  ...more,
})

/** A browser that went to the provider and is on its way back. */
async function atProvider(claims: Claims, redirectUrl?: string) {
  issuer.state.claims = claims
  const browser = new Browser(core)
  const query = redirectUrl === undefined ? '' : `?redirect_url=${encodeURIComponent(redirectUrl)}`
  const sent = await browser.send('GET', `/c/oidc/login${query}`)
  expect(sent.status).toBe(302)
  const back = issuer.authorize(sent.headers.get('location') ?? '')
  expect(back.origin).toBe(EXTERNAL)
  return { browser, sent, back: `${back.pathname}${back.search}` }
}

async function signIn(claims: Claims, redirectUrl?: string) {
  const { browser, back } = await atProvider(claims, redirectUrl)
  return { browser, reply: await browser.send('GET', back) }
}

const me = async (browser: Browser) => (await browser.send('GET', '/api/v2.0/users/current')).body as Me
type Me = {
  user_id: number
  username: string
  email?: string
  comment: string
  admin_role_in_auth: boolean
  oidc_user_meta?: { secret?: string; subiss: string }
}
const isNobody = async (browser: Browser) => (await browser.send('GET', '/api/v2.0/users/current')).status === 401
const basic = (name: string, password: string, path = '/users/current') =>
  core.send('GET', `/api/v2.0${path}`, { as: { name, password } })
/** Whoever signed in is told that a project needs a name. */
const asCommandLine = async (name: string, password: string) =>
  (await core.send('POST', '/api/v2.0/projects', { as: { name, password }, body: {} })).status
const refused = ({ status, cookies }: Reply) => [status, cookies.some((cookie) => /^sid=(?!v\.)[^;]/.test(cookie))]

describe('outside of the mode', () => {
  it.each(['login', 'callback', 'logout'])('GET /c/oidc/%s says so', async (page) => {
    const { status, text } = await core.send('GET', `/c/oidc/${page}`)
    expect([status, text]).toEqual([412, expect.stringContaining('auth mode: db_auth is not OIDC based')])
  })
})

describe('sign-in by OIDC', () => {
  beforeAll(() => configure({ auth_mode: 'oidc_auth', ...settings() }))
  beforeEach(() => {
    Object.assign(issuer.state, honest, { changeClaims: (claims: object) => claims })
    return configure(settings())
  })

  it('goes to the provider with PKCE, state, nonce and what the settings add, and comes back signed in', async () => {
    await configure({
      oidc_extra_redirect_parms: JSON.stringify({ hd: 'example.com', state: 'chosen', redirect_uri: 'http://evil' }),
    })
    const { browser, sent, back } = await atProvider(somebody('una'), '/harbor/projects?x=1')
    const query = Object.fromEntries(new URL(sent.headers.get('location') ?? '').searchParams)
    expect(query).toMatchObject({
      client_id: CLIENT.id,
      redirect_uri: `${EXTERNAL}/c/oidc/callback`,
      response_type: 'code',
      code_challenge_method: 'S256',
      scope: 'openid profile offline_access',
      hd: 'example.com',
    })
    expect(query.state).not.toBe('chosen')
    const reply = await browser.send('GET', back)
    expect([reply.status, reply.headers.get('location')]).toEqual([302, '/harbor/projects?x=1'])
    expect(await me(browser)).toMatchObject({
      username: 'una',
      email: 'una@example.com',
      comment: 'Onboarded via OIDC provider',
      admin_role_in_auth: false,
      oidc_user_meta: { subiss: `sub-of-una${issuer.url}` },
    })
    await configure({ oidc_extra_redirect_parms: '{}' })
  })

  it('A59: keeps the session cookie from other sites; only the cookie of the way to the provider comes along', async () => {
    const { browser, sent, back } = await atProvider(somebody('una'))
    const flow = sent.cookies.find((cookie) => cookie.startsWith('oidc='))
    expect(flow).toMatch(/; Path=\/c\/oidc; HttpOnly; SameSite=Lax$/)
    const { cookies } = await browser.send('GET', back)
    expect(cookies.find((cookie) => cookie.startsWith('sid='))).toMatch(/; Path=\/; HttpOnly; SameSite=Strict$/)
    expect(cookies.find((cookie) => cookie.startsWith('oidc='))).toContain('Max-Age=0')
  })

  it('A59: a session that the browser had before is over, and one planted in it is not taken', async () => {
    const { browser } = await signIn(somebody('una'))
    const before = browser.cookies.get('sid')
    const again = await browser.send('GET', '/c/oidc/login')
    const back = issuer.authorize(again.headers.get('location') ?? '')
    browser.cookies.delete('sid') // SameSite=Strict: it does not come along from the provider
    await browser.send('GET', `${back.pathname}${back.search}`)
    expect(browser.cookies.get('sid')).not.toBe(before)
    const old = await core.send('GET', '/api/v2.0/users/current', { headers: { Cookie: `sid=${before}` } })
    expect(old.status).toBe(401)
  })

  it('replaces no session cookie of a browser that comes by a link of another site', async () => {
    const linked = await core.send('GET', '/api/v2.0/systeminfo', { headers: { 'Sec-Fetch-Site': 'cross-site' } })
    expect(linked.cookies).toEqual([])
    expect((await core.send('GET', '/api/v2.0/systeminfo')).cookies.join()).toContain('sid=')
  })

  it.each([
    '//evil.example',
    '/\\evil.example',
    '\\/evil.example',
    '/\t/evil.example',
    '/%09/evil.example/..//x\n',
    'https:evil.example',
    'https://evil.example',
    'javascript:alert(1)',
    '@evil.example',
    '/..//evil.example',
    '/.//evil.example',
  ])('A62: redirects to no %j', async (target) => {
    const { status, headers } = await core.send('GET', `/c/oidc/login?redirect_url=${encodeURIComponent(target)}`)
    expect([status, headers.get('location')]).toEqual([400, null])
  })

  it('A62: redirects to none of two targets, nor to a very long one', async () => {
    expect((await core.send('GET', `/c/oidc/login?redirect_url=/${'a'.repeat(5_000)}`)).status).toBe(400)
    expect((await core.send('GET', '/c/oidc/login?redirect_url=/a&redirect_url=//evil')).status).toBe(400)
  })

  it('A63: takes no callback without a sign-in, nor without a state', async () => {
    for (const path of [
      '/c/oidc/callback',
      '/c/oidc/callback?code=x',
      '/c/oidc/callback?code=x&state=',
      '/c/oidc/callback?code=x&state=undefined',
    ]) {
      expect(refused(await core.send('GET', path))).toEqual([400, false])
    }
    const { browser, back } = await atProvider(somebody('una'))
    const { pathname, searchParams } = new URL(back, EXTERNAL)
    expect(refused(await browser.send('GET', `${pathname}?code=${searchParams.get('code')}`))).toEqual([400, false])
  })

  it("A63: takes no other browser's callback, and none a second time", async () => {
    const { browser, back } = await atProvider(somebody('una'))
    const other = new Browser(core)
    expect(refused(await other.send('GET', back))).toEqual([400, false])
    await other.send('GET', '/c/oidc/login')
    expect(refused(await other.send('GET', back))).toEqual([400, false])
    const cookie = `oidc=${browser.cookies.get('oidc')}`
    const twice = await Promise.all([1, 2].map(() => core.send('GET', back, { headers: { Cookie: cookie } })))
    expect(twice.map(({ status }) => status).sort()).toEqual([302, 400])
  })

  it('A63: takes no code that another sign-in got, since it fits another PKCE verifier', async () => {
    const stolen = await atProvider(somebody('una'))
    const mine = await atProvider(somebody('mallory'))
    const at = new URL(mine.back, EXTERNAL)
    at.searchParams.set('code', new URL(stolen.back, EXTERNAL).searchParams.get('code')!)
    expect(refused(await mine.browser.send('GET', `${at.pathname}${at.search}`))).toEqual([400, false])
  })

  it('A63: says what the provider refused by its code alone', async () => {
    const { browser, back } = await atProvider(somebody('una'))
    const state = new URL(back, EXTERNAL).searchParams.get('state')
    const query = new URLSearchParams({ state: state!, error: 'access_denied', error_description: '<b>markup</b>' })
    const reply = await browser.send('GET', `/c/oidc/callback?${query.toString()}`)
    expect(reply.status).toBe(400)
    expect(reply.text).toContain('access_denied')
    expect(reply.text).not.toContain('markup')
  })

  it('A63: takes no answer of another issuer (mix-up)', async () => {
    issuer.state.issuerInAnswer = 'https://other.example'
    expect(refused((await signIn(somebody('una'))).reply)).toEqual([400, false])
  })

  const forged: [string, () => void][] = [
    ['another nonce', () => (issuer.state.changeClaims = (claims) => ({ ...claims, nonce: 'another' }))],
    ['no nonce', () => (issuer.state.changeClaims = (claims) => ({ ...claims, nonce: undefined }))],
    ['another issuer', () => (issuer.state.changeClaims = (claims) => ({ ...claims, iss: 'https://other.example' }))],
    ['another audience', () => (issuer.state.changeClaims = (claims) => ({ ...claims, aud: 'somebody-else' }))],
    [
      'a second audience',
      () => (issuer.state.changeClaims = (claims) => ({ ...claims, aud: [CLIENT.id, 'somebody-else'] })),
    ],
    ['its time over', () => (issuer.state.changeClaims = (claims) => ({ ...claims, exp: 1_000_000 }))],
    ['no signature', () => (issuer.state.idToken = async (claims) => new UnsecuredJWT(claims).encode())],
    [
      'HS256 by the client secret',
      () =>
        (issuer.state.idToken = (claims) =>
          new SignJWT(claims)
            .setProtectedHeader({ alg: 'HS256' })
            .sign(new TextEncoder().encode(CLIENT.secret.padEnd(32, '0')))),
    ],
    [
      'a broken signature',
      () =>
        (issuer.state.idToken = async (claims) => {
          const [head, , signature] = (await issuer.sign({ ...claims, sub: 'other' })).split('.')
          return [head, Buffer.from(JSON.stringify(claims)).toString('base64url'), signature].join('.')
        }),
    ],
    ['a user info of another', () => (issuer.state.userInfo = { sub: 'another' })],
  ]
  it.each(forged)('A63: takes no ID token with %s', async (_what, forge) => {
    forge()
    expect(refused((await signIn(somebody('una'))).reply)).toEqual([400, false])
  })

  it('A63 A93: has the audit log say why a return failed, in no words of the provider, and nothing of who never left', async () => {
    const [last] = await core.db.prisma.outboxEvent.findMany({ orderBy: { id: 'desc' }, take: 1 })
    await core.send('GET', '/c/oidc/callback?code=x&state=x&error=access_denied')
    const denied = await atProvider(somebody('una'))
    const state = new URL(denied.back, EXTERNAL).searchParams.get('state')!
    const query = new URLSearchParams({ state, error: 'access_denied', error_description: 'words-of-the-provider' })
    await denied.browser.send('GET', `/c/oidc/callback?${query.toString()}`)
    const strayed = await atProvider(somebody('una'))
    await strayed.browser.send('GET', `/c/oidc/callback?code=secret-code&state=another`)
    await signIn(somebody('taken'))
    await signIn({ ...somebody('taken'), sub: 'thief' })
    issuer.state.changeClaims = (claims) => ({ ...claims, nonce: 'another' })
    await signIn(somebody('una'))
    const events = await core.db.prisma.outboxEvent.findMany({
      where: { id: { gt: last!.id }, type: { endsWith: 'UserSignedIn' } },
      orderBy: { id: 'asc' },
    })
    const told = events.map(
      ({ payload }) => payload as { user?: { name?: string }; succeeded?: boolean; reason?: string },
    )
    expect(told.map(({ user, succeeded, reason }) => [user?.name ?? '', succeeded ?? false, reason ?? ''])).toEqual([
      ['', false, 'OIDC callback returned error: access_denied'],
      ['', false, 'this sign-in was not begun in this browser, or is over: begin again'],
      ['taken', true, ''],
      ['taken', false, 'another account has that name'],
      ['', false, expect.stringMatching(/^signing in failed: \w+$/)],
    ])
    expect(JSON.stringify(told)).not.toMatch(/secret-code|words-of-the-provider/)
  })

  it("A64: gives nobody's account to who has only its name or address", async () => {
    await signIn(somebody('victim'))
    const thief = await signIn({ ...somebody('victim'), sub: 'thief' })
    expect(refused(thief.reply)).toEqual([409, false])
    expect(refused((await signIn({ ...somebody('admin'), sub: 'another thief' })).reply)).toEqual([409, false])
    const byAddress = await signIn(somebody('thief', { email: 'victim@example.com' }))
    expect(await me(byAddress.browser)).toMatchObject({ username: 'thief' })
    expect((await me(byAddress.browser)).email).toBeUndefined()
    expect(refused((await signIn(somebody('<b>$x'))).reply)).toEqual([400, false])
  })

  it('A64: an issuer and a subject are two things, whatever they look like joined', async () => {
    const { browser } = await signIn({ ...somebody('one'), sub: 'x' })
    const joined = await signIn({ ...somebody('two'), sub: `x${issuer.url}` })
    expect((await me(joined.browser)).user_id).not.toBe((await me(browser)).user_id)
  })

  it('lets somebody new choose a name on a page where that is not automatic', async () => {
    await configure({ oidc_auto_onboard: false })
    const { browser, reply } = await signIn(somebody('new one'), '/harbor')
    expect(reply.headers.get('location')).toBe('/oidc-onboard?username=new_one&redirect_url=%2Fharbor')
    expect(await isNobody(browser)).toBe(true)
    const choose = (username: unknown, who = browser) => who.send('POST', '/c/oidc/onboard', { body: { username } })
    expect((await choose('admin')).status).toBe(409)
    expect((await choose('una')).status).toBe(409)
    expect((await choose('<script>$')).status).toBe(400)
    expect((await choose(7)).status).toBe(400)
    expect(
      (await browser.send('POST', '/c/oidc/onboard', { body: { username: 'neo' }, withToken: false })).status,
    ).toBe(403)
    expect((await choose('neo')).status).toBe(200)
    expect(await me(browser)).toMatchObject({ username: 'neo' })
    expect((await choose('neo2')).status).toBe(400)
    // At the next time there is nothing to choose.
    const next = await signIn(somebody('new one'))
    expect(next.reply.headers.get('location')).toBe('/')
    expect(await me(next.browser)).toMatchObject({ username: 'neo' })
  })

  it('says which claim is missing where names are automatic', async () => {
    await configure({ oidc_user_claim: 'nickname' })
    const { reply } = await signIn(somebody('nameless'))
    expect([reply.status, reply.text]).toEqual([400, expect.stringContaining('nickname')])
  })

  it('A12: puts people into the groups of the claim, through the filter; the group of administrators makes one', async () => {
    await configure({ oidc_group_filter: '^team-' })
    const groups = ['team-a', 'other', 'admins', 'team-\u0000', 7]
    const { browser } = await signIn(somebody('ann', { groups }))
    expect((await me(browser)).admin_role_in_auth).toBe(true)
    const names = ((await core.admin('GET', '/usergroups')).body as { group_name: string }[]).map((g) => g.group_name)
    expect(names.sort()).toEqual(['admins', 'team-a'])
    const later = await signIn(somebody('ann', { groups: 'team-a' }))
    expect((await me(later.browser)).admin_role_in_auth).toBe(false)
    expect((await me(browser)).admin_role_in_auth).toBe(false)
  })

  it('A75: filters groups in linear time, and by nothing where the filter is no expression', async () => {
    await configure({ oidc_group_filter: '^(a+)+$' })
    await signIn(somebody('bob', { groups: [`${'a'.repeat(200)}!`] }))
    await configure({ oidc_group_filter: '([' })
    await signIn(somebody('bob', { groups: ['anything'] }))
    const found = (await core.admin('GET', '/usergroups')).body as { group_name: string }[]
    expect(found.map((group) => group.group_name)).toContain('anything')
    expect(found.some((group) => group.group_name.includes('!'))).toBe(false)
  })

  it('is asked for by the form for everybody but who has a password of ours', async () => {
    const browser = new Browser(core)
    for (const name of ['una', 'nobody-at-all']) {
      const reply = await browser.login(name, 'Passw0rd')
      expect([reply.status, reply.body]).toEqual([403, { redirect_location: `${EXTERNAL}/c/oidc/login` }])
    }
    expect((await browser.login(ADMIN.name, ADMIN.password)).status).toBe(200)
    expect((await browser.send('GET', '/c/log_out')).status).toBe(200)
  })

  it('ends at the provider, too', async () => {
    const { browser } = await signIn(somebody('una'))
    const first = await browser.send('GET', '/c/log_out')
    expect([first.status, first.body]).toEqual([403, { redirect_location: `${EXTERNAL}/c/oidc/logout` }])
    const reply = await browser.send('GET', '/c/oidc/logout')
    const at = new URL(reply.headers.get('location') ?? '')
    expect([reply.status, at.origin + at.pathname]).toEqual([302, `${issuer.url}/end`])
    expect(at.searchParams.get('post_logout_redirect_uri')).toBe(`${EXTERNAL}/account/sign-in`)
    expect(at.searchParams.get('id_token_hint')).toMatch(/^ey/)
    expect(await isNobody(browser)).toBe(true)
    expect((await browser.send('GET', '/c/oidc/logout')).headers.get('location')).toBe('/account/sign-in')
  })

  it('ends here whatever the provider says', async () => {
    await configure({ oidc_logout: false })
    const { browser } = await signIn(somebody('una'))
    expect((await browser.send('GET', '/c/oidc/logout')).headers.get('location')).toBe('/account/sign-in')
    expect(await isNobody(browser)).toBe(true)
  })

  it('is written down, and makes an account anew for who was deleted', async () => {
    const first = await signIn(somebody('phoenix'))
    const { user_id: id } = await me(first.browser)
    expect((await core.admin('DELETE', `/users/${id}`)).status).toBe(200)
    expect(await isNobody(first.browser)).toBe(true)
    const again = await signIn(somebody('phoenix'))
    expect((await me(again.browser)).user_id).not.toBe(id)
    const events = await core.db.prisma.outboxEvent.findMany({ orderBy: { id: 'desc' }, take: 20 })
    expect(events.map(({ type }) => type.split('.').at(-1))).toEqual(
      expect.arrayContaining(['UserCreated', 'UserSignedIn', 'UserDeleted']),
    )
  })

  it('a disabled account is not let in', async () => {
    const { browser } = await signIn(somebody('gone'))
    const { user_id: id } = await me(browser)
    await core.db.prisma.user.update({ where: { id }, data: { disabledAt: new Date() } })
    expect(refused((await signIn(somebody('gone'))).reply)).toEqual([403, false])
  })

  describe('an ID token as Bearer', () => {
    const asBearer = (token: string) =>
      core.send('GET', '/api/v2.0/users/current', { headers: { Authorization: `Bearer ${token}` } })

    it('proves who was onboarded', async () => {
      await signIn(somebody('una'))
      expect((await asBearer(await issuer.idTokenOf(somebody('una')))).body).toMatchObject({ username: 'una' })
      expect((await asBearer(await issuer.idTokenOf(somebody('stranger')))).status).toBe(401)
    })

    it.each([
      ['for another audience', { aud: 'somebody-else' }],
      ['for us and another', { aud: [CLIENT.id, 'somebody-else'] }],
      ['of a client that it was not made for', { azp: 'somebody-else' }],
      ['of another issuer', { iss: 'https://other.example' }],
      ['whose time is over', { exp: 1_000_000 }],
      ['that never ends', { exp: undefined }],
    ])('A36: proves nobody %s', async (_what, change) => {
      expect((await asBearer(await issuer.idTokenOf({ ...somebody('una'), ...change }))).status).toBe(401)
    })

    it('A36: proves nobody unsigned or signed by a secret', async () => {
      const token = await issuer.idTokenOf(somebody('una'))
      const claims = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as Claims
      expect((await asBearer(new UnsecuredJWT(claims).encode())).status).toBe(401)
      const key = new TextEncoder().encode(CLIENT.secret.padEnd(32, '0'))
      expect((await asBearer(await new SignJWT(claims).setProtectedHeader({ alg: 'HS256' }).sign(key))).status).toBe(
        401,
      )
    })
  })

  describe('the secret for command line clients', () => {
    const secretOf = async (name: string) => {
      const { browser } = await signIn(somebody(name))
      return { browser, ...(await me(browser)), secret: (await me(browser)).oidc_user_meta?.secret ?? '' }
    }

    it('proves its owner where command lines go, and nowhere else', async () => {
      const { secret } = await secretOf('una')
      expect(secret).toMatch(/^[A-Za-z0-9]{32}$/)
      expect(await asCommandLine('una', secret)).toBe(400)
      expect(await asCommandLine('una', 'Another-1-secret')).toBe(401)
      expect((await basic('una', secret)).status).toBe(401)
    })

    it("A14: is nobody else's to see", async () => {
      const { user_id: id, secret } = await secretOf('una')
      const seen = await core.admin('GET', `/users/${id}`)
      expect(seen.text).toContain('subiss')
      expect(seen.text).not.toContain(secret)
    })

    it("is another at its owner's wish, by the rule on passwords", async () => {
      const { browser, user_id: id, secret } = await secretOf('una')
      const set = (value: string, who = browser) =>
        who.send('PUT', `/api/v2.0/users/${id}/cli_secret`, { body: { secret: value } })
      expect((await set('short')).status).toBe(400)
      expect((await set('Chosen-1-secret')).status).toBe(200)
      const other = (await signIn(somebody('bob'))).browser
      await me(other)
      expect((await set('Stolen-1-secret', other)).status).toBe(403)
      expect((await me(browser)).oidc_user_meta?.secret).toBe('Chosen-1-secret')
      expect([await asCommandLine('una', 'Chosen-1-secret'), await asCommandLine('una', secret)]).toEqual([400, 401])
      expect((await set('')).status).toBe(200)
      expect((await me(browser)).oidc_user_meta?.secret).not.toBe('Chosen-1-secret')
    })

    it('asks the provider when its last word is over; its groups are the newest then', async () => {
      issuer.state.expiresIn = 0
      const { secret, browser } = await secretOf('rita')
      const before = issuer.asked.length
      issuer.state.claims = somebody('rita', { groups: ['admins'] })
      expect(await asCommandLine('rita', secret)).toBe(400)
      expect(issuer.asked.slice(before).map(({ form }) => form.get('grant_type'))).toContain('refresh_token')
      core.authorities.forget()
      expect((await me(browser)).admin_role_in_auth).toBe(true)
    })

    it('R8: of many who find its last word over, one asks the provider', async () => {
      issuer.state.expiresIn = 0
      const { secret } = await secretOf('many')
      issuer.state.expiresIn = 3600
      const before = issuer.asked.length
      const replies = await Promise.all(['many', 'Many', 'MANY', 'mANY'].map((name) => asCommandLine(name, secret)))
      expect(replies).toEqual([400, 400, 400, 400])
      const refreshes = issuer.asked.slice(before).filter(({ form }) => form.get('grant_type') === 'refresh_token')
      expect(refreshes).toHaveLength(1)
    })

    it('is refused with what to do when the provider says no', async () => {
      issuer.state.expiresIn = 0
      const { secret } = await secretOf('lea')
      issuer.forgetEverybody()
      const asking = () => prove(core.signIn, { name: 'lea', password: secret, address: '192.0.2.1' })
      await expect(asking()).rejects.toThrow(/sign in on the web page/)
      await expect(asking()).rejects.toThrow(/sign in on the web page/)
      const again = await secretOf('lea')
      expect(again.secret).toBe(secret)
      issuer.state.expiresIn = 3600
      await secretOf('lea')
      await expect(asking()).resolves.toMatchObject({ name: 'lea' })
    })

    it('waits for a provider that is down, and the administrator does not', async () => {
      issuer.state.expiresIn = 0
      const { secret } = await secretOf('dora')
      issuer.state.down = true
      expect(await asCommandLine('dora', secret)).toBe(503)
      expect((await basic(ADMIN.name, ADMIN.password)).status).toBe(200)
      expect((await basic('nobody-at-all', secret, '/projects')).status).toBe(200) // as anonymous: what is public
      issuer.state.down = false
      expect(await asCommandLine('dora', secret)).toBe(400)
    })
  })

  it('says that the provider is down, and asks it again', async () => {
    const { browser, back } = await atProvider(somebody('una'))
    issuer.state.down = true
    const reply = await browser.send('GET', back)
    expect(refused(reply)).toEqual([expect.any(Number), false])
    expect(reply.status).toBeGreaterThanOrEqual(400)
    issuer.state.down = false
    expect((await signIn(somebody('una'))).reply.status).toBe(302)
  })

  it('A93: shows, keeps and logs no secret of the provider in the open', async () => {
    await signIn(somebody('una'))
    const rows = JSON.stringify([
      await core.db.prisma.identity.findMany(),
      await core.db.prisma.credential.findMany({ where: { kind: 'cli-secret' } }),
      await core.db.prisma.setting.findMany(),
    ])
    expect(rows).not.toContain(CLIENT.secret)
    expect(rows).not.toMatch(/"(?:refreshToken|idToken)"|eyJhbGci/)
    expect((await core.admin('GET', '/configurations')).text).not.toContain(CLIENT.secret)
  })

  it('lets one address begin so many sign-ins and no more, and others go on', async () => {
    const begin = (address: string) =>
      core.send('GET', '/c/oidc/login', { headers: { 'X-Haven-Proxy': PROXY_SECRET, 'X-Forwarded-For': address } })
    const statuses: number[] = []
    for (let n = 0; n < 301; n++) statuses.push((await begin('203.0.113.7')).status)
    expect(new Set(statuses.slice(0, 300))).toEqual(new Set([302]))
    expect(statuses[300]).toBe(429)
    expect(Number((await begin('203.0.113.7')).headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await begin('203.0.113.8')).status).toBe(302)
  })

  describe('the test of a provider', () => {
    const ping = (url: string, as = ADMIN) =>
      core.send('POST', '/api/v2.0/system/oidc/ping', { as, body: { url, verify_cert: true } })

    it('reads its metadata, and sends no secret there (A92)', async () => {
      const before = issuer.asked.length
      expect((await ping(issuer.url)).status).toBe(200)
      const asked = issuer.asked.slice(before)
      expect(asked.map(({ path, authorization }) => [path, authorization])).toEqual([
        ['/.well-known/openid-configuration', undefined],
      ])
    })

    it.each(['', 'no url', 'ftp://127.0.0.1/', 'http://127.0.0.1:1/', 'http://169.254.169.254/'])(
      'A91: says that %j is none',
      async (url) => expect((await ping(url)).status).toBe(400),
    )

    it('takes no provider that calls itself another', async () => {
      issuer.state.issuerInMetadata = 'https://other.example'
      expect((await ping(issuer.url)).status).toBe(400)
      issuer.state.issuerInMetadata = null
    })
  })
})
