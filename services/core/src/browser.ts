import type { IncomingMessage, ServerResponse } from 'node:http'
import { problems } from '@haven/errors'
import type { Principal } from '@haven/identity'
import { contextOf } from '@haven/runtime'
import { unsafeMethod } from './caller.ts'
import type { CoreContext } from './context.ts'
import { cookiesOf, setCookie } from './http/cookies.ts'

const SESSION_COOKIE = 'sid'
/** Harbor's name for it. */
const CSRF_COOKIE = '_gorilla_csrf'
const CSRF_HEADER = 'X-Harbor-CSRF-Token'
const NO_RENEWAL_HEADER = 'x-harbor-no-session-renewal'

/** What the cookies of a request say, and what the answer tells the browser to keep. */
export class Browser {
  /** The user of a live session. */
  readonly user: Principal | null
  /** Whether the request came with a session cookie, whatever it holds: then Harbor's rules for browsers apply. */
  readonly hasCookie: boolean
  readonly #deps: CoreContext
  readonly #res: ServerResponse
  readonly #secure: boolean
  readonly #nonce: string | null
  #sessionId: string | null

  private constructor(
    deps: CoreContext,
    res: ServerResponse,
    facts: {
      user: Principal | null
      hasCookie: boolean
      secure: boolean
      nonce: string | null
      sessionId: string | null
    },
  ) {
    this.#deps = deps
    this.#res = res
    this.user = facts.user
    this.hasCookie = facts.hasCookie
    this.#secure = facts.secure
    this.#nonce = facts.nonce
    this.#sessionId = facts.sessionId
  }

  /**
   * Reads the cookies of a request and applies the rules of harbor-api.md §1: who sends a session cookie, and everybody under
   * /c, needs the CSRF header for what changes something; each answer names the token that is valid next; who has no session
   * gets the cookie of a visitor. `mayRenew` false: whatever the request says, the session's idle time goes on.
   * @throws csrfTokenMissing, csrfTokenInvalid
   */
  static async open(
    deps: CoreContext,
    req: IncomingMessage,
    res: ServerResponse,
    { always, mayRenew = true }: { always: boolean; mayRenew?: boolean },
  ): Promise<Browser> {
    const cookies = cookiesOf(req)
    const secure = contextOf(req).scheme === 'https'
    const sid = cookies.get(SESSION_COOKIE)
    const visitor = sid !== undefined && deps.csrf.isVisitor(sid)
    const renew = mayRenew && req.headers[NO_RENEWAL_HEADER] === undefined
    const session = sid !== undefined && sid !== '' && !visitor ? await deps.sessions.load(sid, { renew }) : null

    let nonce: string | null = null
    if (always || sid !== undefined) {
      const given = cookies.get(CSRF_COOKIE)
      nonce = deps.csrf.isNonce(given) ? given : deps.csrf.newNonce()
      if (nonce !== given) setCookie(res, CSRF_COOKIE, nonce, { secure })
    }
    const browser = new Browser(deps, res, {
      user: session?.principal ?? null,
      hasCookie: sid !== undefined,
      secure,
      nonce,
      sessionId: session?.id ?? null,
    })
    browser.#nameToken()
    // What a session sees must not be replayed to another one. Answers to an Authorization header are no shared cache's to keep
    // anyway (RFC 9111, 3.5), and what anybody may see is no secret (threats.md A57).
    if (session) res.setHeader('Cache-Control', 'no-store')
    if (nonce !== null && unsafeMethod(req.method ?? '')) {
      const token = req.headers[CSRF_HEADER.toLowerCase()]
      if (typeof token !== 'string' || token === '') throw problems.csrfTokenMissing()
      if (!deps.csrf.check(token, nonce, browser.#sessionId ?? '')) throw problems.csrfTokenInvalid()
    }
    // A link of another site brings no session cookie along although the browser has one: that one must not be replaced.
    const fromElsewhere = req.headers['sec-fetch-site'] === 'cross-site'
    if (!session && !visitor && !fromElsewhere) setCookie(res, SESSION_COOKIE, deps.csrf.newVisitor(), { secure })
    return browser
  }

  /** Of the live session. */
  get sessionId(): string | null {
    return this.#sessionId
  }

  /** Begins a session under a new id; the one before is over, so that an id planted before is worth nothing (threats.md A59). */
  async signedIn(user: Extract<Principal, { kind: 'user' }>): Promise<void> {
    if (this.#sessionId !== null) await this.#deps.sessions.destroy(this.#sessionId)
    this.#sessionId = (await this.#deps.sessions.create(user)).id
    this.#replaceCookie(this.#sessionId)
    this.#nameToken()
  }

  async signedOut(): Promise<void> {
    if (this.#sessionId !== null) await this.#deps.sessions.destroy(this.#sessionId)
    this.#sessionId = null
    this.#replaceCookie(null)
    this.#nameToken()
  }

  #replaceCookie(value: string | null) {
    const others = [this.#res.getHeader('Set-Cookie') ?? []].flat().map(String)
    this.#res.removeHeader('Set-Cookie')
    for (const other of others) if (!other.startsWith(`${SESSION_COOKIE}=`)) this.#res.appendHeader('Set-Cookie', other)
    setCookie(this.#res, SESSION_COOKIE, value, { secure: this.#secure })
  }

  #nameToken() {
    if (this.#nonce !== null)
      this.#res.setHeader(CSRF_HEADER, this.#deps.csrf.token(this.#nonce, this.#sessionId ?? ''))
  }
}
