import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import { freePort } from '@haven/embedded'
import { Provider } from 'oidc-provider'

export type OidcAccount = {
  readonly name: string
  readonly email: string
  readonly groups: readonly string[]
}

/** A whole OpenID provider on loopback, whose pages let anybody in who types a name of its accounts. */
export interface OidcProvider extends AsyncDisposable {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** By the name that is typed; it is the subject, too. */
  readonly accounts: Map<string, OidcAccount>
  /** Ends every session and makes every token worthless. */
  forgetEverybody(): Promise<void>
}

const clientId = 'haven'
const clientSecret = 'client-secret-of-tests'
const formBytes = 4_096
/** Short, so that a test need not wait long until the platform asks again. */
const accessTokenSeconds = 2
const lifetimeSeconds = 3_600
/** To a browser it is another site than what is tested on 127.0.0.1. */
const host = '127.0.0.2'

/** @param at where the platform is: its callback and its sign-in page are told to the provider. */
export async function startOidcProvider(at: { callback: string; signIn: string }): Promise<OidcProvider> {
  const port = await freePort()
  const issuer = `http://${host}:${port}`
  const accounts = new Map<string, OidcAccount>()
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const grantIds = new Set<string>()
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: clientId,
        client_secret: clientSecret,
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: [at.callback],
        post_logout_redirect_uris: [at.signIn],
      },
    ],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
    cookies: { keys: ['only for tests'] },
    scopes: ['openid', 'profile', 'email', 'offline_access'],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username', 'groups'], email: ['email', 'email_verified'] },
    pkce: { required: () => true },
    ttl: {
      AccessToken: accessTokenSeconds,
      Grant: lifetimeSeconds,
      IdToken: lifetimeSeconds,
      Interaction: lifetimeSeconds,
      RefreshToken: lifetimeSeconds,
      Session: lifetimeSeconds,
    },
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = `<!doctype html><title>Sign out</title>${form}<button name="logout" value="yes" form="op.logoutForm">Sign out</button>`
        },
      },
    },
    interactions: { url: (_ctx, { uid }) => `/as/${uid}` },
    findAccount: (_ctx, sub) => {
      const account = accounts.get(sub)
      if (!account) return undefined
      const { name, email, groups } = account
      const claims = { sub, name, preferred_username: sub, email, email_verified: true, groups: [...groups] }
      return { accountId: sub, claims: () => claims }
    },
  })
  const answer = provider.callback()

  const server = createServer((req, res) => {
    if (!req.url?.startsWith('/as/')) return void answer(req, res)
    void (async () => {
      const { prompt, params, session } = await provider.interactionDetails(req, res)
      if (prompt.name === 'consent') {
        const grant = new provider.Grant({ accountId: session!.accountId, clientId })
        grant.addOIDCScope(String(params.scope))
        const grantId = await grant.save()
        grantIds.add(grantId)
        return provider.interactionFinished(req, res, { consent: { grantId } }, { mergeWithLastSubmission: true })
      }
      if (req.method === 'POST') {
        let text = ''
        for await (const chunk of req) text = (text + String(chunk)).slice(0, formBytes)
        const accountId = new URLSearchParams(text).get('name') ?? ''
        if (accounts.has(accountId)) {
          return provider.interactionFinished(req, res, { login: { accountId } }, { mergeWithLastSubmission: false })
        }
      }
      const page =
        '<!doctype html><title>Who are you?</title><form method="post"><input name="name" aria-label="Name"><button>Enter</button></form>'
      return void res.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(page)
    })().catch(() => res.writeHead(500).end('the sign-in failed'))
  })
  await new Promise<void>((resolve) => server.listen(port, host, resolve))

  return {
    issuer,
    clientId,
    clientSecret,
    accounts,
    async forgetEverybody() {
      for (const grantId of grantIds) await provider.RefreshToken.revokeByGrantId(grantId)
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
