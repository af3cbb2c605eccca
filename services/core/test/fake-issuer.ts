import { createHash, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, SignJWT, type JWTPayload } from 'jose'

export type Claims = Record<string, unknown> & { sub: string }

type Grant = { nonce: string; challenge: string; claims: Claims; redirectUri: string }

export const CLIENT = { id: 'haven', secret: 'client-secret-of-tests' }

/** An OpenID provider that answers as a test says, honestly or not. */
export async function startIssuer() {
  const { privateKey, publicKey } = await generateKeyPair('RS256')
  const jwk = { ...(await exportJWK(publicKey)), kid: 'one', alg: 'RS256', use: 'sig' }
  const grants = new Map<string, Grant>()
  const refreshTokens = new Map<string, Claims>()
  const asked: { path: string; authorization: string | undefined; form: URLSearchParams }[] = []
  const state = {
    /** Who is signed in at the provider. */
    claims: { sub: 'nobody' } as Claims,
    /** What the provider says of whom in its user info; by default what the ID token says. */
    userInfo: null as Claims | null,
    expiresIn: 3600,
    /** Not reachable any more. */
    down: false,
    /** Makes the ID token another than it should be. */
    idToken: null as ((claims: JWTPayload) => Promise<string>) | null,
    changeClaims: (claims: JWTPayload) => claims,
    issuerInMetadata: null as string | null,
    issuerInAnswer: null as string | null,
  }

  const server = createServer((req, res) => {
    void answer(req).then(
      ({ status, headers = {}, body }) => {
        res.writeHead(status, { 'Content-Type': 'application/json', ...headers })
        res.end(body === undefined ? '' : JSON.stringify(body))
      },
      () => res.writeHead(500).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  const sign = (claims: JWTPayload) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: 'one' }).sign(privateKey)

  const idTokenOf = async (claims: Claims, nonce?: string) => {
    const now = Math.floor(Date.now() / 1000)
    const honest = { iss: url, aud: CLIENT.id, iat: now, exp: now + 600, ...claims, ...(nonce && { nonce }) }
    const said = state.changeClaims(honest)
    return state.idToken ? state.idToken(said) : sign(said)
  }

  type Said = { status: number; headers?: Record<string, string>; body?: unknown }
  async function answer(req: IncomingMessage): Promise<Said> {
    const at = new URL(req.url ?? '/', url)
    let text = ''
    for await (const chunk of req) text += String(chunk)
    const form = new URLSearchParams(text)
    asked.push({ path: at.pathname, authorization: req.headers.authorization, form })
    if (state.down) return { status: 503 }
    switch (at.pathname) {
      case '/.well-known/openid-configuration':
        return {
          status: 200,
          body: {
            issuer: state.issuerInMetadata ?? url,
            authorization_endpoint: `${url}/authorize`,
            token_endpoint: `${url}/token`,
            userinfo_endpoint: `${url}/userinfo`,
            jwks_uri: `${url}/jwks`,
            end_session_endpoint: `${url}/end`,
            response_types_supported: ['code'],
            subject_types_supported: ['public'],
            id_token_signing_alg_values_supported: ['RS256'],
            code_challenge_methods_supported: ['S256'],
            authorization_response_iss_parameter_supported: true,
          },
        }
      case '/jwks':
        return { status: 200, body: { keys: [jwk] } }
      case '/userinfo':
        return { status: 200, body: state.userInfo ?? state.claims }
      case '/token':
        return tokens(req, form)
      default:
        return { status: 404 }
    }
  }

  async function tokens(req: IncomingMessage, form: URLSearchParams): Promise<Said> {
    const basic = `Basic ${Buffer.from(`${CLIENT.id}:${CLIENT.secret}`).toString('base64')}`
    // RFC 6749, 2.3.1: both parts are form-encoded first, which a `-` may or may not be.
    const given = decodeURIComponent(Buffer.from((req.headers.authorization ?? '').slice(6), 'base64').toString())
    if (given !== Buffer.from(basic.slice(6), 'base64').toString())
      return { status: 401, body: { error: 'invalid_client' } }
    const no = { status: 400, body: { error: 'invalid_grant' } }
    if (form.get('grant_type') === 'refresh_token') {
      const token = form.get('refresh_token') ?? ''
      const claims = refreshTokens.get(token)
      if (!claims) return no
      refreshTokens.delete(token) // it rotates: each works once
      return granted(state.claims.sub === claims.sub ? state.claims : claims)
    }
    const code = form.get('code') ?? ''
    const grant = grants.get(code)
    grants.delete(code)
    const challenge = createHash('sha256')
      .update(form.get('code_verifier') ?? '')
      .digest('base64url')
    if (!grant || challenge !== grant.challenge || form.get('redirect_uri') !== grant.redirectUri) return no
    return granted(grant.claims, grant.nonce)
  }

  async function granted(claims: Claims, nonce?: string): Promise<Said> {
    const refreshToken = randomBytes(16).toString('hex')
    refreshTokens.set(refreshToken, claims)
    return {
      status: 200,
      body: {
        access_token: randomBytes(16).toString('hex'),
        token_type: 'Bearer',
        expires_in: state.expiresIn,
        refresh_token: refreshToken,
        id_token: await idTokenOf(claims, nonce),
      },
    }
  }

  return {
    url,
    state,
    asked,
    sign,
    idTokenOf,
    /** Where the browser is sent back to by whoever is signed in. */
    authorize(location: string): URL {
      const at = new URL(location)
      const query = at.searchParams
      const code = randomBytes(16).toString('hex')
      grants.set(code, {
        nonce: query.get('nonce') ?? '',
        challenge: query.get('code_challenge') ?? '',
        claims: state.claims,
        redirectUri: query.get('redirect_uri') ?? '',
      })
      const back = new URL(query.get('redirect_uri')!)
      back.searchParams.set('code', code)
      back.searchParams.set('state', query.get('state') ?? '')
      back.searchParams.set('iss', state.issuerInAnswer ?? url)
      return back
    },
    /** Nobody's refresh token works any more. */
    forgetEverybody: () => refreshTokens.clear(),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export type Issuer = Awaited<ReturnType<typeof startIssuer>>
