import type { IncomingMessage, ServerResponse } from 'node:http'
import { problems } from '@haven/errors'
import {
  anonymous,
  proveIdToken,
  signIn,
  tokenService,
  type Authorities,
  type Principal,
  type ProjectNode,
  type SignInDeps,
  type SigningKeys,
  type TokenIssuer,
  type TokenPrincipal,
} from '@haven/identity'
import { formatScope, parseScopes, type Scope } from '@haven/oci'
import { contextOf, readBody } from '@haven/runtime'
import type { SettingsReader } from '@haven/settings'
import type { Express, Request, RequestHandler } from 'express'
import { grantAccess } from './grant-access.ts'

export type TokenContext = {
  readonly issuer: TokenIssuer
  readonly keys: SigningKeys
  readonly authorities: Pick<Authorities, 'of'>
  readonly signIn: SignInDeps
  readonly projects: { byName(name: string): Promise<ProjectNode | null> }
  readonly settings: SettingsReader
}

const maxFormBytes = 64 * 1024
const challenge = { headers: { 'WWW-Authenticate': 'Basic realm="harbor"' } }

/** The whole surface of the service. */
export function mountRoutes(app: Express, context: TokenContext): void {
  app.get('/service/token', (req, res) => byBasic(req, res, context))
  app.post('/service/token', (req, res) => byForm(req, res, context))
  app.all('/service/token', only(['GET', 'HEAD', 'POST']))
  app.get('/service/token/jwks.json', async (_req, res) => {
    res.set('Cache-Control', 'public, max-age=60').json(await context.keys.jwks())
  })
  app.all('/service/token/jwks.json', only(['GET', 'HEAD']))
}

const only =
  (allowed: readonly string[]): RequestHandler =>
  (req) => {
    throw problems.methodNotAllowed({ method: req.method, allowed }, { headers: { Allow: allowed.join(', ') } })
  }

/**
 * Distribution's token protocol, by GET: Basic, an ID token of the OIDC provider, or nothing. Whoever he says he is in `account` does
 * not matter, and credentials in the query are none (threats.md A34, A45).
 */
async function byBasic(req: Request, res: ServerResponse, context: TokenContext): Promise<void> {
  const query = new URL(req.url, 'http://localhost').searchParams
  requireService(query)
  const scopes = parseScopes(query.getAll('scope'))
  const idToken = bearer(req)
  const credentials = idToken === null ? basicCredentials(req) : null
  // `docker login` asks without a scope: to say yes to it would let anybody think that his password was right.
  if (!credentials && idToken === null && scopes.length === 0)
    throw problems.unauthorized({ message: 'credentials are needed' }, challenge)
  const principal: Principal = credentials
    ? await prove(req, context, credentials)
    : idToken === null
      ? anonymous
      : await proveByIdToken(context, idToken)
  const { answer } = await issue(context, principal as TokenPrincipal, scopes)
  sendJson(req, res, answer)
}

/**
 * The OAuth 2 form of it, by POST, which containerd tries first and Helm 4 logs in by. There are no refresh tokens
 * (services/decisions/0003-no-refresh-tokens.md), so the only grant is a password.
 */
async function byForm(req: Request, res: ServerResponse, context: TokenContext): Promise<void> {
  const type = (req.headers['content-type'] ?? '').split(';', 1)[0]!.trim().toLowerCase()
  if (type !== 'application/x-www-form-urlencoded') {
    throw problems.badRequest({ message: 'the body must be of type application/x-www-form-urlencoded' })
  }
  const form = new URLSearchParams((await readBody(req, { limitBytes: maxFormBytes })).toString('utf8'))
  requireService(form)
  const grantType = form.get('grant_type')
  if (grantType !== 'password') {
    throw problems.badRequest({ message: `unsupported_grant_type: ${grantType ?? 'none'}; only password is supported` })
  }
  const scopes = parseScopes(form.getAll('scope'))
  const credentials = { name: form.get('username') ?? '', password: form.get('password') ?? '' }
  const principal = await prove(req, context, credentials)
  const { answer, granted } = await issue(context, principal, scopes)
  sendJson(req, res, { ...answer, scope: granted.map(formatScope).join(' ') })
}

function requireService(parameters: URLSearchParams): void {
  const service = parameters.get('service') ?? ''
  if (service !== tokenService || parameters.getAll('service').length !== 1) {
    throw problems.badRequest({ message: `Unable to handle service: ${service.slice(0, 256)}` })
  }
}

type Credentials = { readonly name: string; readonly password: string }

/** @throws unauthorized for an Authorization header that is neither Basic nor Bearer: a wrong credential is not the same as none. */
function basicCredentials(req: IncomingMessage): Credentials | null {
  const header = req.headers.authorization
  if (header === undefined) return null
  const [, encoded] = /^basic +([A-Za-z0-9+/_-]+={0,2}) *$/i.exec(header) ?? []
  const text = encoded === undefined ? '' : Buffer.from(encoded, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  if (colon === -1) throw problems.unauthorized({ message: 'malformed credentials' }, challenge)
  return { name: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** What follows `Bearer`; null for another scheme or none. */
const bearer = (req: IncomingMessage): string | null =>
  /^bearer +(\S+) *$/i.exec(req.headers.authorization ?? '')?.[1] ?? null

async function proveByIdToken({ signIn: { db, oidc } }: TokenContext, idToken: string): Promise<Principal> {
  const principal = oidc && (await proveIdToken(db, oidc, idToken))
  if (!principal) throw problems.unauthorized({ message: 'malformed credentials' }, challenge)
  return principal
}

async function prove(req: Request, context: TokenContext, credentials: Credentials): Promise<TokenPrincipal> {
  const input = { ...credentials, address: contextOf(req).clientAddress, agent: req.headers['user-agent'] }
  try {
    return await signIn(context.signIn, input)
  } catch (error) {
    if (!problems.unauthorized.is(error)) throw error
    throw problems.unauthorized({ message: error.message }, { ...challenge, cause: error })
  }
}

async function issue(context: TokenContext, principal: TokenPrincipal, scopes: readonly Scope[]) {
  const authority = await context.authorities.of(principal)
  // Disabled or deleted since the password was proved.
  if (!authority.active) throw problems.unauthorized({ message: 'incorrect user name or password' }, challenge)
  const { access, projects } = await grantAccess((name) => context.projects.byName(name), authority, scopes)
  const { token, expiresInSeconds, issuedAt } = await context.issuer.issue(principal, access, {
    lifetimeMs: (await context.settings.read()).token_expiration * 60_000,
    projects,
  })
  return {
    granted: access,
    answer: {
      token,
      access_token: token,
      expires_in: expiresInSeconds,
      issued_at: issuedAt.toISOString().replace('.000Z', 'Z'),
    },
  }
}

function sendJson(req: IncomingMessage, res: ServerResponse, body: object): void {
  const text = JSON.stringify(body)
  res.writeHead(200, {
    'Content-Type': 'application/json; charset=utf-8',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
  })
  res.end(req.method === 'HEAD' ? undefined : text)
}
