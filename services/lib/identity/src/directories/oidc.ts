import { Problem, problems } from '@haven/errors'
import { bytesOf, type OutboundClient } from '@haven/outbound'
import type { SettingValues } from '@haven/settings'
import { createRemoteJWKSet, customFetch as customKeyFetch, errors as jose, jwtVerify } from 'jose'
import * as oidc from 'openid-client'
import { RE2JS } from 're2js'

/** A provider of identities, as the settings say it. */
export type OidcProvider = {
  /** The issuer; its metadata lie below it. */
  readonly endpoint: string
  readonly clientId: string
  readonly clientSecret: string
  readonly verifyCertificate: boolean
  readonly scopes: readonly string[]
  readonly extraParameters: Readonly<Record<string, string>>
  /** The claim that proposes a user name; empty: `name`. */
  readonly userClaim: string
  /** Empty: groups are not read. */
  readonly groupsClaim: string
  /** A regular expression in RE2's syntax; what it does not match is no group here. Empty: every group is. */
  readonly groupFilter: string
  readonly adminGroup: string
  readonly autoOnboard: boolean
  /** Signing out here signs out there, too. */
  readonly endSession: boolean
}

/** Somebody as a provider describes them. (issuer, subject) is who it is; everything else may be anybody's. */
export type OidcPerson = {
  readonly issuer: string
  readonly subject: string
  /** What they could be called; empty when the provider proposes nothing. */
  readonly username: string
  readonly realname: string
  readonly email: string | null
  readonly groups: readonly string[]
}

export type OidcTokens = {
  readonly refreshToken: string | null
  readonly idToken: string | null
  /** Until when the provider's word holds, in ms since 1970. */
  readonly expiresAtMs: number
}

/** What a browser's sign-in remembers until the provider sends the browser back. */
export type OidcChallenge = { readonly state: string; readonly nonce: string; readonly verifier: string }

/** What the settings say; null where nobody signs in by OIDC. */
export function oidcProviderOf(values: SettingValues): OidcProvider | null {
  if (values.auth_mode !== 'oidc_auth') return null
  return {
    endpoint: values.oidc_endpoint,
    clientId: values.oidc_client_id,
    clientSecret: values.oidc_client_secret,
    verifyCertificate: values.oidc_verify_cert,
    scopes: values.oidc_scope.split(/[\s,]+/).filter((scope) => scope !== ''),
    extraParameters: values.oidc_extra_redirect_parms,
    userClaim: values.oidc_user_claim,
    groupsClaim: values.oidc_groups_claim,
    groupFilter: values.oidc_group_filter,
    adminGroup: values.oidc_admin_group,
    autoOnboard: values.oidc_auto_onboard,
    endSession: values.oidc_logout,
  }
}

/** The issuer of a provider in one form, however its address is written; discovery makes sure that it calls itself this. */
export const issuerOf = ({ endpoint }: Pick<OidcProvider, 'endpoint'>): string =>
  URL.parse(endpoint)?.href.replace(/^([a-z]+:\/\/[^/]+)\/$/, '$1') ?? endpoint

// A user waits for each of these calls.
const callSeconds = 10
const metadataMaxAgeMs = 5 * 60_000
/** When a provider does not say how long its access token lives. */
const defaultExpirySeconds = 300
/** Signed by the provider's private key: with a shared secret (HS256), whoever knows it could sign as the provider (threats.md A63). */
const signatures = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']
const clockToleranceSeconds = 30
const maxGroups = 1_000

type Keys = ReturnType<typeof createRemoteJWKSet>
type Known = { readonly config: oidc.Configuration; readonly keys: Keys | null }

/** Talks to providers (OpenID Connect Core 1.0): authorization code with PKCE, state and nonce. Their metadata is kept for five minutes. */
export class OidcClient {
  readonly #outbound: OutboundClient
  readonly #now: () => number
  #kept: { readonly key: string; readonly known: Promise<Known>; readonly untilMs: number } | null = null

  constructor(outbound: OutboundClient, now: () => number = Date.now) {
    this.#outbound = outbound
    this.#now = now
  }

  /** Whether the provider's metadata can be read and are its own. @throws identityProviderFailed */
  async ping(provider: Pick<OidcProvider, 'endpoint' | 'verifyCertificate'>): Promise<void> {
    await this.#discover({ ...provider, clientId: 'ping', clientSecret: '' })
  }

  /** Where to send a browser, and what to keep for its return. @throws identityProviderFailed */
  async begin(provider: OidcProvider, redirectUri: string): Promise<{ url: string; challenge: OidcChallenge }> {
    const { config } = await this.#known(provider)
    const challenge = {
      state: oidc.randomState(),
      nonce: oidc.randomNonce(),
      verifier: oidc.randomPKCECodeVerifier(),
    }
    const url = oidc.buildAuthorizationUrl(config, {
      ...provider.extraParameters,
      ...scopeOf(provider),
      redirect_uri: redirectUri,
      response_type: 'code',
      client_id: provider.clientId,
      state: challenge.state,
      nonce: challenge.nonce,
      code_challenge: await oidc.calculatePKCECodeChallenge(challenge.verifier),
      code_challenge_method: 'S256',
    })
    return { url: url.href, challenge }
  }

  /**
   * Exchanges the code that a browser brought back at `callback`, the whole address.
   * @throws badRequest when the provider or the checks on its answer refuse it; identityProviderFailed
   */
  async finish(
    provider: OidcProvider,
    callback: URL,
    { state, nonce, verifier }: OidcChallenge,
  ): Promise<{ person: OidcPerson; tokens: OidcTokens }> {
    const { config } = await this.#known(provider)
    try {
      const answer = await oidc.authorizationCodeGrant(config, callback, {
        expectedState: state,
        expectedNonce: nonce,
        pkceCodeVerifier: verifier,
        idTokenExpected: true,
      })
      const claims = answer.claims()!
      const more = await userInfo(config, answer.access_token, claims.sub)
      return { person: personOf(provider, claims, more), tokens: this.#tokensOf(answer, null) }
    } catch (error) {
      throw refusalOf(error)
    }
  }

  /**
   * Asks whether the provider still vouches for somebody. Null: it says no. The person is null where the provider describes nobody when
   * it refreshes.
   * @throws identityProviderFailed
   */
  async refresh(
    provider: OidcProvider,
    refreshToken: string,
    subject: string,
  ): Promise<{ person: OidcPerson | null; tokens: OidcTokens } | null> {
    const { config } = await this.#known(provider)
    try {
      const answer = await oidc.refreshTokenGrant(config, refreshToken)
      const claims = answer.claims()
      if (claims && claims.sub !== subject) return null
      const more = await userInfo(config, answer.access_token, subject)
      const described = claims ?? more
      return {
        person: described && personOf(provider, { ...described, sub: subject }, more),
        tokens: this.#tokensOf(answer, refreshToken),
      }
    } catch (error) {
      if (error instanceof oidc.ResponseBodyError && error.error === 'invalid_grant') return null
      throw failureOf(error)
    }
  }

  /** Whose ID token this is, made for us and nobody else (threats.md A36); null when it is none. @throws identityProviderFailed */
  async subjectOf(provider: OidcProvider, idToken: string): Promise<string | null> {
    const { config, keys } = await this.#known(provider)
    if (!keys) return null
    try {
      const { payload } = await jwtVerify(idToken, keys, {
        issuer: config.serverMetadata().issuer,
        audience: provider.clientId,
        algorithms: signatures,
        requiredClaims: ['sub', 'exp', 'iat'],
        clockTolerance: clockToleranceSeconds,
      })
      const alone = [payload.aud].flat().length === 1
      const forUs = payload.azp === undefined || payload.azp === provider.clientId
      return alone && forUs ? (payload.sub ?? null) : null
    } catch (error) {
      if (error instanceof jose.JOSEError && !(error instanceof jose.JWKSTimeout)) return null
      throw failureOf(error)
    }
  }

  /** Where a browser signs out at the provider; null where that is not possible. @throws identityProviderFailed */
  async endSessionUrl(provider: OidcProvider, idToken: string, returnTo: string): Promise<string | null> {
    const { config } = await this.#known(provider)
    if (config.serverMetadata().end_session_endpoint === undefined) return null
    return oidc.buildEndSessionUrl(config, { id_token_hint: idToken, post_logout_redirect_uri: returnTo }).href
  }

  /** Makes a refresh token worthless, where the provider can. @throws identityProviderFailed */
  async revoke(provider: OidcProvider, refreshToken: string): Promise<void> {
    const { config } = await this.#known(provider)
    if (config.serverMetadata().revocation_endpoint === undefined) return
    try {
      await oidc.tokenRevocation(config, refreshToken, { token_type_hint: 'refresh_token' })
    } catch (error) {
      throw failureOf(error)
    }
  }

  #known(provider: OidcProvider): Promise<Known> {
    const { endpoint, clientId, clientSecret, verifyCertificate } = provider
    const key = JSON.stringify([endpoint, clientId, clientSecret, verifyCertificate])
    if (this.#kept?.key === key && this.#now() < this.#kept.untilMs) return this.#kept.known
    const known = this.#discover(provider)
    const kept = { key, known, untilMs: this.#now() + metadataMaxAgeMs }
    this.#kept = kept
    known.catch(() => {
      if (this.#kept === kept) this.#kept = null
    })
    return known
  }

  async #discover(
    provider: Pick<OidcProvider, 'endpoint' | 'clientId' | 'clientSecret' | 'verifyCertificate'>,
  ): Promise<Known> {
    const server = URL.parse(provider.endpoint)
    if (server === null || !/^https?:$/.test(server.protocol)) {
      throw problems.identityProviderFailed({ reason: 'its endpoint is no URL' })
    }
    const fetchIt = this.#fetch(!provider.verifyCertificate)
    try {
      const config = await oidc.discovery(server, provider.clientId, undefined, clientAuth(provider.clientSecret), {
        [oidc.customFetch]: fetchIt,
        timeout: callSeconds,
        // Signatures are checked although the token comes straight from the provider: its certificate may not be checked.
        execute: [
          oidc.enableNonRepudiationChecks,
          ...(server.protocol === 'http:' ? [oidc.allowInsecureRequests] : []),
        ],
      })
      const { jwks_uri: keysAt } = config.serverMetadata()
      const keys =
        keysAt === undefined
          ? null
          : createRemoteJWKSet(new URL(keysAt), {
              [customKeyFetch]: (url, options) => fetchIt(url, options as unknown as oidc.CustomFetchOptions),
              timeoutDuration: callSeconds * 1000,
            })
      return { config, keys }
    } catch (error) {
      throw failureOf(error)
    }
  }

  /** `fetch` by the only way out (threats.md R11). A provider redirects browsers and not us. */
  #fetch(insecure: boolean): oidc.CustomFetch {
    return async (url, { method, headers, body, signal }) => {
      const answer = await this.#outbound.request({
        url,
        method,
        headers: headers instanceof Headers ? Object.fromEntries(headers) : headers,
        ...(body !== undefined && body !== null && { body: String(body) }),
        ...(signal && { signal }),
        totalMs: callSeconds * 1000,
        redirects: 0,
        insecure,
      })
      const bytes = await bytesOf(answer)
      const type = answer.headers['content-type']
      const challenge = answer.headers['www-authenticate']
      return new Response(bytes.length === 0 ? null : new Uint8Array(bytes), {
        status: answer.status,
        headers: { ...(type && { 'content-type': type }), ...(challenge && { 'www-authenticate': challenge }) },
      })
    }
  }

  #tokensOf(answer: oidc.TokenEndpointResponse, previous: string | null): OidcTokens {
    return {
      refreshToken: answer.refresh_token ?? previous,
      idToken: answer.id_token ?? null,
      expiresAtMs: this.#now() + (answer.expires_in ?? defaultExpirySeconds) * 1000,
    }
  }
}

/** How we prove ourselves: by what the provider says that it takes; Basic is what it takes when it says nothing (Discovery 1.0, §3). */
function clientAuth(secret: string): oidc.ClientAuth {
  if (secret === '') return oidc.None()
  const [basic, post] = [oidc.ClientSecretBasic(secret), oidc.ClientSecretPost(secret)]
  return (server, client, body, headers) => {
    const takes = server.token_endpoint_auth_methods_supported
    const byPost = takes?.includes('client_secret_post') === true && !takes.includes('client_secret_basic')
    return (byPost ? post : basic)(server, client, body, headers)
  }
}

/** Google knows no `offline_access` and has parameters of its own for it. */
function scopeOf({ endpoint, scopes }: OidcProvider): Record<string, string> {
  const all = scopes.includes('openid') ? scopes : ['openid', ...scopes]
  if (URL.parse(endpoint)?.hostname === 'accounts.google.com' && all.includes('offline_access')) {
    const others = all.filter((scope) => scope !== 'offline_access')
    return { scope: others.join(' '), access_type: 'offline', prompt: 'consent' }
  }
  // OpenID Connect Core 1.0, §11: without the question for consent, offline_access is ignored.
  return { scope: all.join(' '), ...(all.includes('offline_access') && { prompt: 'consent' }) }
}

type Claims = Readonly<Record<string, unknown>> & { readonly sub: string }

/** What the user info endpoint says; null where there is none. Its subject is checked. */
async function userInfo(config: oidc.Configuration, accessToken: string, subject: string): Promise<Claims | null> {
  if (config.serverMetadata().userinfo_endpoint === undefined) return null
  return oidc.fetchUserInfo(config, accessToken, subject)
}

/** The user info wins, as in Harbor: it is younger and may hold what does not fit into a token. */
function personOf(provider: OidcProvider, claims: Claims, more: Claims | null): OidcPerson {
  const claim = (name: string) => (name === '' ? undefined : (more?.[name] ?? claims[name]))
  if (text(claims.sub) === '') throw problems.badRequest({ message: 'the identity provider names no subject' })
  const email = text(claim('email'))
  return {
    issuer: issuerOf(provider),
    subject: claims.sub,
    username: text(claim(provider.userClaim || 'name'))
      .trim()
      .replaceAll(/\s+/g, '_'),
    realname: text(claim('name')),
    email: email === '' || claim('email_verified') === false ? null : email,
    groups: groupsOf(provider, claim(provider.groupsClaim)),
  }
}

/** Names are compared whole by the filter's own rule; the administrators' group needs no filter to pass. */
function groupsOf({ groupFilter, adminGroup }: OidcProvider, claim: unknown): string[] {
  const names = [claim].flat().filter((name): name is string => typeof name === 'string')
  const usable = [...new Set(names)].filter((name) => name.trim() !== '' && text(name) === name).slice(0, maxGroups)
  const passes = groupTest(groupFilter)
  return usable.filter((name) => name === adminGroup || passes(name))
}

/** RE2: its time grows with the text and not with how the expression is nested. One that is none filters nothing, as in Harbor. */
function groupTest(filter: string): (name: string) => boolean {
  if (filter === '') return () => true
  let pattern: RE2JS
  try {
    pattern = RE2JS.compile(filter)
  } catch {
    return () => true
  }
  return (name) => pattern.matcher(name).find()
}

/** A claim that is short text without control characters; else as if it were not there. */
const text = (claim: unknown): string =>
  typeof claim === 'string' && claim.length <= 255 && !/\p{Cc}/u.test(claim) ? claim : ''

/** What the provider or the checks say no to, is the request's fault; what cannot be asked is the provider's. */
function refusalOf(error: unknown): Problem {
  const failure = failureOf(error)
  if (error instanceof Problem || outboundProblem(error)) return failure
  return problems.badRequest({ message: `signing in failed: ${reasonOf(error)}` }, { cause: error })
}

function failureOf(error: unknown): Problem {
  if (error instanceof Problem && !isOutbound(error)) return error
  const reason = outboundProblem(error)?.message ?? reasonOf(error)
  return problems.identityProviderFailed({ reason }, { cause: error })
}

const isOutbound = (error: Problem) => problems.outboundFailed.is(error) || problems.outboundRefused.is(error)

function outboundProblem(error: unknown): Problem | null {
  for (let at = error; at instanceof Error; at = at.cause) if (at instanceof Problem && isOutbound(at)) return at
  return null
}

/** By codes only: what the provider wrote could be anything. */
function reasonOf(error: unknown): string {
  const { error: code, code: kind, name } = error as { error?: unknown; code?: unknown; name?: unknown }
  const word = [code, kind, name].find((one) => typeof one === 'string' && /^[A-Za-z_]{3,64}$/.test(one))
  return typeof word === 'string' ? word : 'it does not answer as a provider should'
}
