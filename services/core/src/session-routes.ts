import type { IncomingMessage } from 'node:http'
import { problems } from '@haven/errors'
import { emit } from '@haven/events'
import { anonymous, isProvedByOidc, isTaken, signIn } from '@haven/identity'
import { UserSignedInSchema, UserSignedOutSchema } from '@haven/proto/events'
import { contextOf, readBody } from '@haven/runtime'
import { may } from './access.ts'
import { identify } from './caller.ts'
import { ok, send, sendNotFoundPage, type Answer } from './http/answer.ts'
import { unescape } from './http/request.ts'
import { oidcRoutes, oidcUrl } from './oidc-routes.ts'
import { sourceOf, type Asked, type Route } from './session-route.ts'

const MAX_FORM_BYTES = 16 * 1024
/** Of a name that is none; longer ones would only fill the log. */
const MAX_NAME = 255

const empty = (status: number): Answer => ({ status })

/** Harbor's way to say to a page where to go: 403 and not a redirect, which its script would not see. */
const goTo = (url: string): Answer => ({ status: 403, body: { redirect_location: url } })

const login: Route = async (asked) => {
  const { deps, req, browser } = asked
  const form = await readForm(req)
  const name = form.get('principal') ?? ''
  const password = form.get('password') ?? ''
  const { clientAddress } = contextOf(req)
  const { auth_mode: mode } = await deps.settings.read()
  if (mode === 'oidc_auth' && (await isProvedByOidc(deps, name))) return goTo(oidcUrl(asked, 'login'))
  try {
    const user = await signIn(deps.signIn, { name, password, address: clientAddress, agent: req.headers['user-agent'] })
    // A robot's secret is for programs; a session outlives it.
    if (user.kind !== 'user') return empty(401)
    await browser.signedIn(user)
    const ref = { id: BigInt(user.id), name: user.name }
    await emit(deps.db.prisma, UserSignedInSchema, sourceOf(req, user), { user: ref, succeeded: true })
    return ok()
  } catch (error) {
    if (!problems.unauthorized.is(error)) throw error
    await emit(deps.db.prisma, UserSignedInSchema, sourceOf(req, anonymous), {
      user: { name: name.slice(0, MAX_NAME) },
      succeeded: false,
    })
    return empty(401)
  }
}

const logOut: Route = async (asked) => {
  const { deps, req, browser } = asked
  const { user } = browser
  const { auth_mode: mode } = await deps.settings.read()
  if (mode === 'oidc_auth' && user?.kind === 'user' && (await isProvedByOidc(deps, user.name))) {
    return goTo(oidcUrl(asked, 'logout'))
  }
  if (user?.kind === 'user') {
    const ref = { id: BigInt(user.id), name: user.name }
    await emit(deps.db.prisma, UserSignedOutSchema, sourceOf(req, user), { user: ref })
  }
  await browser.signedOut()
  return ok()
}

const userExists: Route = async ({ deps, req, browser }) => {
  const caller = await identify(deps, req, browser)
  const { self_registration: open } = await deps.settings.read()
  if (!open && !(await may(caller, { resource: 'user', action: 'list', on: 'system' }))) {
    return {
      status: 412,
      headers: { 'Content-Type': 'text/plain; charset=utf-8' },
      body: 'self registration deactivated, only sysadmin can check user existence',
    }
  }
  const form = await readForm(req)
  const exists = await isTaken(deps, form.get('target') ?? '', form.get('value') ?? '')
  return { status: 200, headers: { 'Content-Type': 'application/json; charset=utf-8' }, body: JSON.stringify(exists) }
}

const authproxyOnly: Route = async ({ deps }) => {
  const { auth_mode: mode } = await deps.settings.read()
  throw problems.authModeMismatch({ message: `the auth mode ${mode} does not support this flow` })
}

const routes: Readonly<Record<string, Route>> = {
  'POST /c/login': login,
  'GET /c/log_out': logOut,
  'POST /c/userExists': userExists,
  ...oidcRoutes,
  'GET /c/authproxy/redirect': authproxyOnly,
}

/** The pages' own endpoints under /c (harbor-api.md §6.1). */
export async function handleSession(asked: Asked): Promise<void> {
  const { req, res, target } = asked
  const route = `${req.method} ${target.path}`
  const handler = Object.hasOwn(routes, route) ? routes[route] : undefined
  if (!handler) return sendNotFoundPage(res, { head: req.method === 'HEAD' })
  contextOf(req).route = target.path
  send(res, await handler(asked))
}

/** Only the encoding of forms: a page of another site can send it, but not with our header (threats.md A58). */
async function readForm(req: IncomingMessage): Promise<Map<string, string>> {
  const type = (req.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase()
  const body = await readBody(req, { limitBytes: MAX_FORM_BYTES })
  const form = new Map<string, string>()
  if (type !== 'application/x-www-form-urlencoded') return form
  for (const pair of body.toString('utf8').split('&')) {
    const equals = pair.indexOf('=')
    if (equals > 0) form.set(unescape(pair.slice(0, equals)), unescape(pair.slice(equals + 1)))
  }
  return form
}
