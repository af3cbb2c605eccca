import type { IncomingMessage } from 'node:http'
import { problems } from '@haven/errors'
import type { EventSource } from '@haven/events'
import { anonymous, nameOf, proveIdToken, signIn, type Authority, type Principal } from '@haven/identity'
import { contextOf, sameSecret } from '@haven/runtime'
import type { CoreContext } from './context.ts'

/** Who calls, from where. What they may do is asked live, once a request. */
export class Caller {
  readonly principal: Principal
  /** Who did it, for events and the audit log. */
  readonly source: EventSource
  /** The request came with a session cookie: from a page of ours, not from a program. */
  readonly fromBrowser: boolean
  /** Of the session that proves the caller; null when something else does. */
  readonly sessionId: string | null
  readonly #deps: CoreContext
  #authority: Promise<Authority> | null = null

  constructor(
    deps: CoreContext,
    principal: Principal,
    req: IncomingMessage,
    { fromBrowser, sessionId = null }: { fromBrowser: boolean; sessionId?: string | null },
  ) {
    const { requestId, clientAddress } = contextOf(req)
    this.#deps = deps
    this.principal = principal
    this.fromBrowser = fromBrowser
    this.sessionId = sessionId
    this.source = { principal, requestId, address: clientAddress }
  }

  /** As refusals name it; empty for nobody. */
  get name(): string {
    return nameOf(this.principal)
  }

  authority(): Promise<Authority> {
    return (this.#authority ??= this.#deps.authorities.of(this.principal))
  }
}

const unsafe = (method: string) => method !== 'GET' && method !== 'HEAD' && method !== 'OPTIONS'
export { unsafe as unsafeMethod }

/**
 * Who a request's credentials prove, in Harbor's order: service secret, Basic, ID token, session (harbor-rbac.md §1). Credentials
 * that prove nobody are as if there were none, so that public things stay readable; our own bearer tokens are for the registry only.
 * @throws tooManyRequests while guessing is held up; what a provider or directory that cannot be asked throws.
 */
export async function identify(
  deps: CoreContext,
  req: IncomingMessage,
  browser: { user: Principal | null; hasCookie: boolean; sessionId: string | null },
): Promise<Caller> {
  const { hasCookie: fromBrowser, sessionId } = browser
  const authorized = await fromAuthorization(deps, req)
  const principal = authorized ?? browser.user ?? anonymous
  const caller = new Caller(deps, principal, req, { fromBrowser, sessionId: authorized ? null : sessionId })
  // Nobody in particular needs no record of him: the state of the platform is told while Postgres is away.
  if (principal.kind === 'anonymous') return caller
  // A sign-in is remembered for a minute, and nothing announces that somebody's time is over meanwhile.
  return (await caller.authority()).active ? caller : new Caller(deps, anonymous, req, { fromBrowser })
}

async function fromAuthorization(deps: CoreContext, req: IncomingMessage): Promise<Principal | null> {
  const [scheme, credentials = ''] = splitOnce(req.headers.authorization ?? '', ' ')
  switch (scheme.toLowerCase()) {
    case 'harbor-secret':
      // From outside it never arrives: the proxy drops it (threats.md R6, A50).
      return servicePrincipal(deps, credentials.trim()) ?? anonymous
    case 'basic': {
      const [name, password] = splitOnce(Buffer.from(credentials.trim(), 'base64').toString('utf8'), ':')
      if (!name || !password) return null
      const address = contextOf(req).clientAddress
      const cliSecret = isForCommandLines(req)
      return signIn(deps.signIn, { name, password, address, agent: req.headers['user-agent'], cliSecret }).catch(
        (error: unknown) => {
          if (problems.unauthorized.is(error)) return null
          throw error
        },
      )
    }
    case 'bearer':
      return deps.signIn.oidc && proveIdToken(deps.db, deps.signIn.oidc, credentials.trim())
    default:
      return null
  }
}

/** What Harbor lets clients of registries do with the secret that lies in their configuration (harbor-rbac.md §1, context 2). */
const forCommandLines = [
  /^(?:GET|POST) \/api\/v2\.0\/projects$/,
  /^GET \/api\/v2\.0\/(?:systeminfo|labels)$/,
  /^GET \/api\/version$/,
  /^GET \/api\/v2\.0\/projects\/[^/]+\/repositories(?:\/[^/]+\/artifacts)?$/,
  /^DELETE \/api\/v2\.0\/projects\/[^/]+\/repositories\/[^/]+\/artifacts\/[^/]+\/tags\/[^/]+$/,
]

function isForCommandLines({ method, url = '' }: IncomingMessage): boolean {
  const call = `${method} ${url.split('?', 1)[0]}`
  return forCommandLines.some((pattern) => pattern.test(call))
}

function servicePrincipal({ facts }: CoreContext, secret: string): Principal | null {
  for (const [name, expected] of Object.entries(facts.serviceSecrets)) {
    if (sameSecret(secret, expected)) return { kind: 'service', name }
  }
  return null
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator)
  return at === -1 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}
