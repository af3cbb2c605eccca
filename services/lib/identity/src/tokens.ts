import { randomBytes } from 'node:crypto'
import { TwoGenerations } from '@haven/db'
import { problems } from '@haven/errors'
import jwt from 'jsonwebtoken'
import type { Principal, ProjectNode } from './principal.ts'
import { nameOf } from './principal.ts'
import type { SigningKeys } from './signing-keys.ts'

/** What Harbor calls itself in tokens and challenges; clients and mirrors have these texts in their configuration. */
export const tokenIssuer = 'harbor-token-issuer'
export const tokenService = 'harbor-registry'

/** Clocks of two machines of one installation may differ by this much. */
const leewaySeconds = 60
const maxTokenLength = 8192
const maxRemembered = 10_000
const maxRememberedCharacters = 16 * 1024 * 1024

/** One entry of a token's `access` claim (Distribution, "Token Authentication Specification"). */
export type Access = { readonly type: string; readonly name: string; readonly actions: readonly string[] }

/** Services have secrets of their own and no tokens: one that names a service would open everything. */
export type TokenPrincipal = Exclude<Principal, { kind: 'service' }>

export type VerifiedToken = {
  readonly principal: TokenPrincipal
  readonly access: readonly Access[]
  /** The id that the project of an access had when the token was signed, by the project's name as it was asked for. */
  readonly projects: ReadonlyMap<string, number>
  readonly issuedAt: Date
  readonly expiresAt: Date
}

type Claims = {
  iss: string
  aud: string
  sub: string
  iat: number
  nbf: number
  exp: number
  jti: string
  access: Access[]
  /** Ours: who `sub` is, since a name can be taken again by somebody else. */
  principal:
    | { kind: 'anonymous' }
    | { kind: 'user'; id: number }
    | { kind: 'robot'; id: number; projectId: number | null }
  /** Ours: see `VerifiedToken.projects`. */
  projects?: Record<string, number>
}

export class TokenIssuer {
  readonly #keys: SigningKeys
  readonly #now: () => number

  constructor(keys: SigningKeys, now: () => number = Date.now) {
    this.#keys = keys
    this.#now = now
  }

  /**
   * Signs what was decided; deciding is the caller's.
   * @throws badRequest for more than fits into a header.
   */
  async issue(
    principal: TokenPrincipal,
    access: readonly Access[],
    { lifetimeMs, projects = [] }: { lifetimeMs: number; projects?: Iterable<readonly [string, number]> },
  ): Promise<{ token: string; expiresInSeconds: number; issuedAt: Date }> {
    const { kid, key } = await this.#keys.signing()
    const iat = Math.floor(this.#now() / 1000)
    const expiresInSeconds = Math.floor(lifetimeMs / 1000)
    const known = Object.fromEntries(projects)
    const claims: Claims = {
      iss: tokenIssuer,
      aud: tokenService,
      sub: nameOf(principal),
      iat,
      nbf: iat,
      exp: iat + expiresInSeconds,
      jti: randomBytes(12).toString('base64url'),
      access: access.map(({ type, name, actions }) => ({ type, name, actions: [...actions] })),
      principal: claimOf(principal),
      ...(Object.keys(known).length > 0 && { projects: known }),
    }
    const token = jwt.sign(claims, key, { algorithm: 'RS256', keyid: kid })
    // It would be refused when it comes back, or by whoever limits headers in between.
    if (token.length > maxTokenLength) {
      throw problems.badRequest({
        message: `${access.length} scopes do not fit into one token; ask for fewer at a time`,
      })
    }
    return { token, expiresInSeconds, issuedAt: new Date(iat * 1000) }
  }
}

function claimOf(principal: TokenPrincipal): Claims['principal'] {
  if (principal.kind === 'anonymous') return { kind: 'anonymous' }
  if (principal.kind === 'user') return { kind: 'user', id: principal.id }
  return { kind: 'robot', id: principal.id, projectId: principal.projectId }
}

/**
 * Verifies bearer tokens (threats.md R9): one algorithm, our own map of key ids, one issuer, one audience, every time claim
 * present. A verdict is remembered by the token's text until the token is over: checking the signature each time would cost
 * several times the rest of a request. It says who asks and what was granted then; rights are read live (R10).
 */
export class TokenVerifier {
  readonly #keys: SigningKeys
  readonly #now: () => number
  readonly #remembered = new TwoGenerations<{ verified: VerifiedToken; untilMs: number }>(
    maxRemembered,
    maxRememberedCharacters,
    undefined,
    'tokens',
  )
  #epoch = 0

  constructor(keys: SigningKeys, now: () => number = Date.now) {
    this.#keys = keys
    this.#now = now
    keys.onChange(() => {
      this.#epoch++
      this.#remembered.clear()
    })
  }

  /** The verdict on a token that was verified before and still is valid; null: ask `verify`. */
  remembered(text: string): VerifiedToken | null {
    const remembered = this.#remembered.get(text)
    if (remembered === undefined) return null
    if (this.#now() < remembered.untilMs) return remembered.verified
    this.#remembered.delete(text)
    return null
  }

  /** @throws unauthorized, saying why. */
  async verify(text: string): Promise<VerifiedToken> {
    const remembered = this.remembered(text)
    if (remembered !== null) return remembered
    if (text.length > maxTokenLength) throw refuse('token is too long')
    const epoch = this.#epoch
    const key = await this.#keyOf(text)
    const claims = this.#claims(text, key.key)
    const verified = read(claims)
    const untilMs = Math.min((claims.exp + leewaySeconds) * 1000, key.expiresAtMs)
    if (epoch === this.#epoch) this.#remembered.set(text, { verified, untilMs })
    return verified
  }

  async #keyOf(text: string) {
    let header: jwt.JwtHeader | undefined
    try {
      header = jwt.decode(text, { complete: true })?.header
    } catch {
      throw refuse('token is malformed') // its parts are not JSON
    }
    if (!header || typeof header !== 'object') throw refuse('token is malformed')
    if (header.alg !== 'RS256') throw refuse('token is signed with an algorithm that is not accepted')
    if (header.typ !== 'JWT' || 'crit' in header || 'zip' in header || 'enc' in header) {
      throw refuse('token is of a kind that is not accepted')
    }
    const key =
      typeof header.kid === 'string' && header.kid.length <= 64 ? await this.#keys.verifying(header.kid) : null
    if (key === null) throw refuse('token is signed with a key that is not known')
    return key
  }

  #claims(text: string, key: Parameters<typeof jwt.verify>[1]): Claims {
    const nowSeconds = this.#now() / 1000
    let claims: unknown
    try {
      claims = jwt.verify(text, key, {
        algorithms: ['RS256'],
        issuer: tokenIssuer,
        audience: tokenService,
        clockTolerance: leewaySeconds,
        clockTimestamp: Math.floor(nowSeconds),
      })
    } catch (cause) {
      if (cause instanceof jwt.TokenExpiredError) throw refuse('token is expired', cause)
      if (cause instanceof jwt.NotBeforeError) throw refuse('token is not valid yet', cause)
      if (cause instanceof jwt.JsonWebTokenError) throw refuse('token is invalid', cause)
      throw cause
    }
    if (!isClaims(claims)) throw refuse('token lacks a claim')
    if (claims.iat > nowSeconds + leewaySeconds) throw refuse('token is from the future')
    return claims
  }
}

/**
 * Does the token grant this action on a repository, named as the request names it? Not when its project is another one by now:
 * deleted and made again under the same name (threats.md A38).
 */
export function tokenAllows(token: VerifiedToken, name: string, action: string, project: ProjectNode): boolean {
  const granted = token.access.some((a) => a.type === 'repository' && a.name === name && a.actions.includes(action))
  return granted && token.projects.get(name.slice(0, name.indexOf('/'))) === project.id
}

const refuse = (message: string, cause?: unknown) =>
  problems.unauthorized({ message }, cause === undefined ? undefined : { cause })

/** A token that we signed has this shape; what is checked is that nobody gets in by one of an older or foreign shape. */
function isClaims(claims: unknown): claims is Claims {
  if (typeof claims !== 'object' || claims === null) return false
  const { aud, sub, iat, nbf, exp, access, principal, projects } = claims as Partial<Record<keyof Claims, unknown>>
  return (
    // jsonwebtoken also accepts a list that contains our audience, and tokens without these times.
    typeof aud === 'string' &&
    typeof sub === 'string' &&
    [iat, nbf, exp].every((time) => Number.isSafeInteger(time)) &&
    Array.isArray(access) &&
    access.every(isAccess) &&
    isPrincipalClaim(principal) &&
    (projects === undefined || (typeof projects === 'object' && projects !== null && !Array.isArray(projects)))
  )
}

const isAccess = (entry: unknown): entry is Access => {
  const { type, name, actions } = (entry ?? {}) as Partial<Record<keyof Access, unknown>>
  return (
    typeof type === 'string' &&
    typeof name === 'string' &&
    Array.isArray(actions) &&
    actions.every((action) => typeof action === 'string')
  )
}

function isPrincipalClaim(claim: unknown): boolean {
  const { kind, id, projectId } = (claim ?? {}) as Record<string, unknown>
  if (kind === 'anonymous') return true
  if (!Number.isSafeInteger(id)) return false
  return kind === 'user' || (kind === 'robot' && (projectId === null || Number.isSafeInteger(projectId)))
}

function read(claims: Claims): VerifiedToken {
  const { principal, sub } = claims
  return {
    principal: principal.kind === 'anonymous' ? principal : { ...principal, name: sub },
    access: claims.access,
    projects: new Map(Object.entries(claims.projects ?? {})),
    issuedAt: new Date(claims.iat * 1000),
    expiresAt: new Date(claims.exp * 1000),
  }
}
