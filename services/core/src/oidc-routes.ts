import { timingSafeEqual } from 'node:crypto'
import { Problem, problems } from '@haven/errors'
import { emit } from '@haven/events'
import {
  anonymous,
  findOidcAccount,
  findOidcTokens,
  signInByOidc,
  type Account,
  type OidcClient,
  type OidcProvider,
  type OidcTokens,
} from '@haven/identity'
import { UserSignedInSchema, UserSignedOutSchema } from '@haven/proto/events'
import { contextOf, readBody } from '@haven/runtime'
import type { CoreContext } from './context.ts'
import { cookiesOf, setCookie } from './http/cookies.ts'
import { ok, type Answer } from './http/answer.ts'
import { sourceOf, type Asked, type Route } from './session-route.ts'

const FLOW_COOKIE = 'oidc'
const FLOW_PATH = '/c/oidc'
const MAX_BODY_BYTES = 4 * 1024
const MAX_RETURN_TO = 2_000

/** Sign-in by OIDC (harbor-api.md §6.1): to the provider and back. Which cookie goes where: services/decisions/0010-sign-in-by-oidc.md. */
export const oidcRoutes: Readonly<Record<string, Route>> = {
  'GET /c/oidc/login': login,
  'GET /c/oidc/callback': callback,
  'POST /c/oidc/onboard': onboard,
  'GET /c/oidc/logout': logout,
}

/** Where people sign in by OIDC, and their browser for it; absolute, since it is told to programs, too. */
export const oidcUrl = (asked: Pick<Asked, 'deps' | 'req'>, page: 'login' | 'logout') =>
  `${publicUrl(asked)}${FLOW_PATH}/${page}`

async function login(asked: Asked): Promise<Answer> {
  const { deps, req, browser, target } = asked
  const { client, provider } = await requireOidc(deps)
  await deps.oidcFlows.admit(contextOf(req).clientAddress)
  const returnTo = localPath(target.query.redirect_url)
  const { url, challenge } = await client.begin(provider, redirectUri(asked))
  const flow = await deps.oidcFlows.begin({ step: 'signing-in', challenge, returnTo, sessionId: browser.sessionId })
  setFlowCookie(asked, flow)
  return redirect(url)
}

async function callback(asked: Asked): Promise<Answer> {
  const { deps, req, target } = asked
  const { client, provider } = await requireOidc(deps)
  const { state, error } = target.query
  const id = cookiesOf(req).get(FLOW_COOKIE)
  const flow = id ? await deps.oidcFlows.take(id) : null
  setFlowCookie(asked, null)
  const elsewhere = { message: 'this sign-in was not begun in this browser, or is over: begin again' }
  if (flow?.step !== 'signing-in') throw problems.badRequest(elsewhere)
  let name = ''
  let account: Account
  try {
    if (typeof state !== 'string' || !same(state, flow.challenge.state)) throw problems.badRequest(elsewhere)
    if (error !== undefined) throw problems.badRequest({ message: `OIDC callback returned error: ${errorCode(error)}` })
    const query = (req.url ?? '').split('?').slice(1).join('?')
    const { person, tokens } = await client.finish(provider, new URL(`${redirectUri(asked)}?${query}`), flow.challenge)
    name = person.username
    const known = await findOidcAccount(deps, person)
    if (!known && !provider.autoOnboard) {
      setFlowCookie(asked, await deps.oidcFlows.begin({ step: 'onboarding', person, tokens }))
      const page = new URLSearchParams({ username: person.username, redirect_url: flow.returnTo })
      return redirect(`/oidc-onboard?${page.toString()}`)
    }
    if (!known && person.username === '') {
      throw problems.badRequest({
        message: `the identity provider does not tell the claim ${provider.userClaim || 'name'}, which names the user`,
      })
    }
    const source = sourceOf(req, { kind: 'service', name: 'oidc' })
    account = await signInByOidc(deps, source, { person, tokens, username: person.username })
  } catch (cause) {
    await tellOfFailure(asked, name, cause)
    throw cause
  }
  if (flow.sessionId !== null) await deps.sessions.destroy(flow.sessionId)
  await begin(asked, account)
  return redirect(flow.returnTo)
}

/** Has the audit log say why a sign-in by OIDC failed. Problems say it in our words and repeat nothing secret. */
async function tellOfFailure({ deps, req }: Asked, name: string, cause: unknown): Promise<void> {
  const reason = problems.conflict.is(cause)
    ? 'another account has that name' // which the line tells already
    : cause instanceof Problem
      ? cause.message
      : 'it could not be finished'
  await emit(deps.db.prisma, UserSignedInSchema, sourceOf(req, anonymous), { user: { name }, succeeded: false, reason })
}

async function onboard(asked: Asked): Promise<Answer> {
  const { deps, req } = asked
  await requireOidc(deps)
  const id = cookiesOf(req).get(FLOW_COOKIE)
  const flow = id ? await deps.oidcFlows.find(id) : null
  if (!id || flow?.step !== 'onboarding') {
    throw problems.badRequest({ message: 'no sign-in by OIDC is waiting for a name in this browser: begin again' })
  }
  const username = await readUsername(asked)
  const { person, tokens } = flow
  const source = sourceOf(req, { kind: 'service', name: 'oidc' })
  const account = await signInByOidc(deps, source, { person, tokens, username })
  await deps.oidcFlows.end(id)
  setFlowCookie(asked, null)
  await begin(asked, account)
  return ok()
}

async function logout(asked: Asked): Promise<Answer> {
  const { deps, req, browser } = asked
  const { client, provider } = await requireOidc(deps)
  const { user } = browser
  const page = '/account/sign-in'
  if (user?.kind !== 'user') return redirect(page)
  await emit(deps.db.prisma, UserSignedOutSchema, sourceOf(req, user), {
    user: { id: BigInt(user.id), name: user.name },
  })
  const tokens = provider.endSession ? await findOidcTokens(deps, provider, user.id) : null
  await browser.signedOut()
  const url = tokens && (await endAtProvider(deps, client, provider, tokens, `${publicUrl(asked)}${page}`))
  return redirect(url ?? page)
}

/** Whoever signs out is out here, whatever the provider says to it. */
async function endAtProvider(
  { log }: CoreContext,
  client: OidcClient,
  provider: OidcProvider,
  { idToken, refreshToken }: OidcTokens,
  returnTo: string,
): Promise<string | null> {
  try {
    if (refreshToken !== null && isOffline(refreshToken)) await client.revoke(provider, refreshToken)
    return idToken === null ? null : await client.endSessionUrl(provider, idToken, returnTo)
  } catch (err) {
    log.warn({ err }, 'a user could not be signed out at the identity provider')
    return null
  }
}

/** Keycloak's offline tokens outlive the session there; other providers' refresh tokens cannot be read. */
function isOffline(refreshToken: string): boolean {
  try {
    const claims: unknown = JSON.parse(Buffer.from(refreshToken.split('.')[1] ?? '', 'base64url').toString('utf8'))
    return (claims as { typ?: unknown } | null)?.typ === 'Offline'
  } catch {
    return false
  }
}

async function begin({ deps, req, browser }: Asked, account: Account): Promise<void> {
  const user = { kind: 'user', id: account.id, name: account.name } as const
  const ref = { id: BigInt(user.id), name: user.name }
  const succeeded = !account.disabled
  const reason = succeeded ? '' : 'the account is disabled'
  await emit(deps.db.prisma, UserSignedInSchema, sourceOf(req, user), { user: ref, succeeded, reason })
  if (!succeeded) throw problems.forbidden({ message: 'this account is disabled' })
  deps.authorities.forget()
  await browser.signedIn(user)
}

async function requireOidc({ settings, signIn }: CoreContext): Promise<{ client: OidcClient; provider: OidcProvider }> {
  const provider = (await signIn.oidc?.provider()) ?? null
  if (signIn.oidc && provider) return { client: signIn.oidc.client, provider }
  const { auth_mode: mode } = await settings.read()
  throw problems.authModeMismatch({ message: `auth mode: ${mode} is not OIDC based` })
}

async function readUsername({ req }: Asked): Promise<string> {
  const body = await readBody(req, { limitBytes: MAX_BODY_BYTES })
  try {
    const { username } = JSON.parse(body.toString('utf8')) as { username?: unknown }
    if (typeof username === 'string') return username
  } catch (error) {
    if (!(error instanceof SyntaxError) && !(error instanceof TypeError)) throw error
  }
  throw problems.badRequest({ message: 'the body is not {"username": "…"}' })
}

/**
 * A path on this origin, whatever a browser makes of it: it drops tabs and newlines and reads `\` as `/` (threats.md A62).
 * @throws badRequest
 */
function localPath(given: string | string[] | undefined): string {
  if (given === undefined || given === '') return '/'
  const base = 'http://here.invalid'
  const isPath =
    typeof given === 'string' &&
    given.length <= MAX_RETURN_TO &&
    /^\/(?![/\\])/.test(given) &&
    !/[\\\p{Cc}]/u.test(given)
  const url = isPath ? URL.parse(given, base) : null
  if (url === null || url.origin !== base || url.pathname.startsWith('//')) {
    throw problems.badRequest({ message: 'invalid redirect_url: it must be a path on this site' })
  }
  return `${url.pathname}${url.search}${url.hash}`
}

const redirect = (location: string): Answer => ({
  status: 302,
  headers: { Location: location, 'Cache-Control': 'no-store', 'Referrer-Policy': 'no-referrer' },
})

function publicUrl({ deps, req }: Pick<Asked, 'deps' | 'req'>): string {
  const { scheme, host } = contextOf(req)
  return deps.facts.externalUrl?.replace(/\/+$/, '') ?? `${scheme}://${host}`
}

const redirectUri = (asked: Asked) => `${publicUrl(asked)}${FLOW_PATH}/callback`

/** Lax: it comes along when the provider, another site, sends the browser back by a link. */
const setFlowCookie = ({ req, res }: Asked, value: string | null) =>
  setCookie(res, FLOW_COOKIE, value, { secure: contextOf(req).scheme === 'https', path: FLOW_PATH, sameSite: 'Lax' })

const same = (a: string, b: string) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))

/** What the provider says has a code; the rest of it is not ours to repeat. */
const errorCode = (error: string | string[]) => {
  const [code = ''] = [error].flat()
  return /^[a-z_]{1,64}$/.test(code) ? code : 'unknown'
}
