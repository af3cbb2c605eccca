import { createHash, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { startHaven, type HavenInstallation } from '@haven/testkit'
import { startOidcProvider, type OidcProvider } from '@haven/testkit/oidc-provider'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'
import { ADMIN, Client, send, until } from './client.ts'

const lack = lacking('chromium')
const suite = lack ? describe.skip : describe

suite(titled('sign-in by OIDC in a real browser', lack), () => {
  let haven: HavenInstallation
  let provider: OidcProvider
  let client: Client
  let chrome: Browser
  let context: BrowserContext
  let page: Page

  const configure = (change: object) => client.mustApi('PUT', '/configurations', ADMIN, change)

  beforeAll(async () => {
    haven = await startHaven({ env: { OUTBOUND_ALLOW: '127.0.0.0/8' } })
    client = new Client(haven.url)
    provider = await startOidcProvider({
      callback: `${haven.url}/c/oidc/callback`,
      signIn: `${haven.url}/account/sign-in`,
    })
    for (const name of ['grace', 'ada', 'eve']) {
      provider.accounts.set(name, { name: `${name} of tests`, email: `${name}@example.test`, groups: ['team'] })
    }
    await configure({
      auth_mode: 'oidc_auth',
      oidc_name: 'tests',
      oidc_endpoint: provider.issuer,
      oidc_client_id: provider.clientId,
      oidc_client_secret: provider.clientSecret,
      oidc_scope: 'openid,profile,email,offline_access',
      oidc_user_claim: 'preferred_username',
      oidc_groups_claim: 'groups',
      oidc_auto_onboard: true,
      oidc_verify_cert: true,
      oidc_logout: true,
    })
    chrome = await chromium.launch({
      executablePath: findTool('chromium')!,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
    })
  }, 120_000)
  afterAll(async () => {
    await chrome?.close()
    await provider?.[Symbol.asyncDispose]()
    await haven?.[Symbol.asyncDispose]()
  }, 60_000)
  beforeEach(async () => {
    await context?.close()
    context = await chrome.newContext()
    page = await context.newPage()
  })

  /** To the provider, through its page, and back. */
  async function signIn(name: string, redirectUrl = '/') {
    await page.goto(`${haven.url}/c/oidc/login?redirect_url=${encodeURIComponent(redirectUrl)}`)
    expect(new URL(page.url()).origin).toBe(provider.issuer)
    await page.getByLabel('Name').fill(name)
    await page.getByRole('button', { name: 'Enter' }).click()
    await page.waitForURL((url) => url.origin === haven.url)
  }

  /** Where the provider sends somebody back to, who does not go there. */
  async function wayBack(start: string, name: string): Promise<string> {
    const other = await chrome.newContext()
    let at = start
    while (!at.startsWith(`${haven.url}/c/oidc/callback`)) {
      let answer = await other.request.get(at, { maxRedirects: 0 })
      if (answer.status() === 200) answer = await other.request.post(at, { form: { name }, maxRedirects: 0 })
      at = new URL(answer.headers().location!, at).href
    }
    await other.close()
    return at
  }

  /** As a program gets it that talks to the provider itself. */
  async function idTokenOf(name: string): Promise<string> {
    const verifier = randomBytes(32).toString('base64url')
    const redirectUri = `${haven.url}/c/oidc/callback`
    const asked = new URLSearchParams({
      client_id: provider.clientId,
      redirect_uri: redirectUri,
      response_type: 'code',
      scope: 'openid',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
    })
    const back = new URL(await wayBack(`${provider.issuer}/auth?${asked.toString()}`, name))
    const { json } = await send(`${provider.issuer}/token`, 'POST', {
      as: { name: provider.clientId, password: provider.clientSecret },
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        code: back.searchParams.get('code')!,
        redirect_uri: redirectUri,
        code_verifier: verifier,
      }).toString(),
    })
    return (json as { id_token: string }).id_token
  }

  /** What a script of the platform's own page is answered. */
  const ask = (path: string, method = 'GET', body?: object) =>
    page.evaluate(
      async ([at, how, sent]) => {
        const before = await fetch('/api/v2.0/systeminfo')
        const token = before.headers.get('X-Harbor-CSRF-Token') ?? ''
        const answer = await fetch(at, {
          method: how,
          ...(sent !== '' && { body: sent }),
          headers: { 'X-Harbor-CSRF-Token': token, ...(sent !== '' && { 'Content-Type': 'application/json' }) },
        })
        const text = await answer.text()
        return { status: answer.status, json: (text === '' ? null : JSON.parse(text)) as Record<string, unknown> }
      },
      [path, method, body ? JSON.stringify(body) : ''] as const,
    )
  const me = () => ask('/api/v2.0/users/current')

  it('comes back signed in, by a session cookie that no other site brings along (A59)', async () => {
    await signIn('grace', '/?from=oidc')
    expect(page.url()).toBe(`${haven.url}/?from=oidc`)
    expect((await me()).json).toMatchObject({
      username: 'grace',
      realname: 'grace of tests',
      email: 'grace@example.test',
    })
    const cookies = await context.cookies(haven.url)
    expect(cookies.find(({ name }) => name === 'sid')).toMatchObject({ sameSite: 'Strict', httpOnly: true })
    expect(cookies.find(({ name }) => name === 'oidc')).toBeUndefined()
  })

  it('stays signed in when a link of another site leads to the API', async () => {
    await signIn('grace')
    await page.goto(provider.issuer)
    await page.setContent(`<a href="${haven.url}/api/v2.0/systeminfo">there</a>`)
    await page.getByRole('link').click()
    await page.waitForURL(`${haven.url}/api/v2.0/systeminfo`)
    await page.goto(haven.url)
    expect((await me()).json).toMatchObject({ username: 'grace' })
  })

  it("A63: somebody else's way back opens no session, even by a link", async () => {
    const back = await wayBack(`${haven.url}/c/oidc/login`, 'eve')
    const answer = await page.goto(back)
    expect(answer?.status()).toBe(400)
    await page.goto(haven.url)
    expect((await me()).status).toBe(401)
  })

  it('lets somebody new choose a name', async () => {
    await configure({ oidc_auto_onboard: false })
    await signIn('ada', '/harbor/projects')
    const at = new URL(page.url())
    expect([at.pathname, at.search]).toEqual(['/oidc-onboard', '?username=ada&redirect_url=%2Fharbor%2Fprojects'])
    expect((await ask('/c/oidc/onboard', 'POST', { username: 'admin' })).status).toBe(409)
    expect((await ask('/c/oidc/onboard', 'POST', { username: 'countess' })).status).toBe(200)
    expect((await me()).json).toMatchObject({ username: 'countess' })
    await configure({ oidc_auto_onboard: true })
  })

  it("takes the provider's ID token as Bearer, for the API and for tokens of the registry, and nobody else's (A36)", async () => {
    await signIn('grace')
    const ask = (path: string, token: string) =>
      send(`${haven.url}${path}`, 'GET', { headers: { Authorization: `Bearer ${token}` } })
    const idToken = await idTokenOf('grace')
    expect((await ask('/api/v2.0/users/current', idToken)).json).toMatchObject({ username: 'grace' })
    const forRegistry = await ask('/service/token?service=harbor-registry', idToken)
    expect(forRegistry.status).toBe(200)
    const { token } = forRegistry.json as { token: string }
    for (const path of ['/api/v2.0/users/current', '/service/token?service=harbor-registry']) {
      expect([path, (await ask(path, token)).status]).toEqual([path, 401])
      expect([path, (await ask(path, await idTokenOf('eve'))).status]).toEqual([path, 401])
    }
  })

  it('signs out at the provider, too', async () => {
    await signIn('grace')
    await page.goto(`${haven.url}/c/oidc/logout`)
    expect(new URL(page.url()).origin).toBe(provider.issuer)
    await page.getByRole('button', { name: 'Sign out' }).click()
    await page.waitForURL(`${haven.url}/account/sign-in**`)
    expect((await me()).status).toBe(401)
    await page.goto(`${haven.url}/c/oidc/login`)
    await expect(page.getByLabel('Name').count()).resolves.toBe(1)
  })

  it('gives a secret for docker, which is worth nothing once the provider says no, and says what to do', async () => {
    await signIn('grace')
    const { oidc_user_meta: meta } = (await me()).json as { oidc_user_meta: { secret: string } }
    const as = { name: 'grace', password: meta.secret }
    await client.project('of-grace')
    await client.member('of-grace', 'grace', 2)
    await client.pushImage('of-grace/app', '1', await client.token(as, 'of-grace/app'))
    await provider.forgetEverybody()
    const isOver = `select ask_after <= now() as over from identity.identities where subject = 'grace'`
    await until(
      'the end of its last word',
      () => haven.query<{ over: boolean }>(isOver),
      ([row]) => row!.over,
      10_000,
    )
    // Whoever proved himself is remembered for a minute, but not under another spelling of his name.
    const asGrace = { ...as, name: 'Grace' }
    const refused = await send(`${haven.url}/service/token?service=harbor-registry`, 'GET', { as: asGrace })
    expect([refused.status, refused.text]).toEqual([401, expect.stringContaining('sign in on the web page')])
    // The provider knows this browser and asks nothing.
    await page.goto(`${haven.url}/c/oidc/login`)
    await page.waitForURL(`${haven.url}/`)
    await expect(client.token(asGrace, 'of-grace/app')).resolves.toMatch(/^ey/)
  })
})
