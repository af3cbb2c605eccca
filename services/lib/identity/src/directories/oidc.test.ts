import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from '@jest/globals'
import { OutboundClient } from '@haven/outbound'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { OidcClient, type OidcProvider } from './oidc.ts'

const open: { close(): void; closeAllConnections(): void }[] = []
afterAll(() => {
  for (const server of open) {
    server.closeAllConnections()
    server.close()
  }
})

/** A provider's metadata, and whatever else `more` answers. */
async function startProvider(
  facts: { host?: string; metadata?: object; tls?: { key: string; cert: string } } = {},
  more: RequestListener = (_req, res) => void res.writeHead(404).end(),
) {
  const asked: string[] = []
  let issuer = ''
  const answer: RequestListener = (req, res) => {
    asked.push(req.url ?? '')
    if (req.url !== '/.well-known/openid-configuration') return more(req, res)
    res.setHeader('Content-Type', 'application/json')
    res.end(
      JSON.stringify({
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/jwks`,
        ...facts.metadata,
      }),
    )
  }
  const server = facts.tls ? createTlsServer(facts.tls, answer) : createServer(answer)
  open.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  issuer = `${facts.tls ? 'https' : 'http'}://${facts.host ?? '127.0.0.1'}:${(server.address() as AddressInfo).port}`
  return { issuer, asked }
}

const outbound = new OutboundClient({ allow: ['127.0.0.0/8'], resolve: async () => ['127.0.0.1'] })
const providerAt = (endpoint: string, more: Partial<OidcProvider> = {}): OidcProvider => ({
  endpoint,
  clientId: 'haven',
  clientSecret: 'the-secret',
  verifyCertificate: true,
  scopes: ['openid', 'offline_access'],
  extraParameters: {},
  userClaim: '',
  groupsClaim: '',
  groupFilter: '',
  adminGroup: '',
  autoOnboard: true,
  endSession: false,
  ...more,
})
const failure = expect.objectContaining({ message: expect.stringContaining('the identity provider cannot be used') })
const callback = 'https://haven.example.com/c/oidc/callback'

describe('an OIDC provider', () => {
  it('is asked for its metadata once in five minutes, and again after it failed', async () => {
    let now = 0
    const client = new OidcClient(outbound, () => now)
    const { issuer, asked } = await startProvider()
    await Promise.all([1, 2, 3].map(() => client.begin(providerAt(issuer), callback)))
    now = 4 * 60_000
    await client.begin(providerAt(issuer), callback)
    expect(asked).toHaveLength(1)
    now = 6 * 60_000
    await client.begin(providerAt(issuer), callback)
    expect(asked).toHaveLength(2)
    const gone = providerAt('http://127.0.0.1:1')
    await expect(client.begin(gone, callback)).rejects.toEqual(failure)
    await expect(client.begin(gone, callback)).rejects.toEqual(failure)
  })

  it('gives other secrets for each sign-in, and asks for consent to offline access', async () => {
    const client = new OidcClient(outbound)
    const { issuer } = await startProvider()
    const [one, other] = [
      await client.begin(providerAt(issuer), callback),
      await client.begin(providerAt(issuer), callback),
    ]
    for (const part of ['state', 'nonce', 'verifier'] as const) {
      expect(one.challenge[part].length).toBeGreaterThanOrEqual(43)
      expect(one.challenge[part]).not.toBe(other.challenge[part])
    }
    const query = new URL(one.url).searchParams
    expect([query.get('scope'), query.get('prompt')]).toEqual(['openid offline_access', 'consent'])
    expect(one.url).not.toContain(one.challenge.verifier)
    expect(one.url).not.toContain('the-secret')
  })

  it('of Google is asked in its own words', async () => {
    const { issuer } = await startProvider({ host: 'accounts.google.com' })
    const { url } = await new OidcClient(outbound).begin(providerAt(issuer), callback)
    const query = Object.fromEntries(new URL(url).searchParams)
    expect(query).toMatchObject({ scope: 'openid', access_type: 'offline', prompt: 'consent' })
  })

  it.each([
    ['by Basic where it says nothing', {}, true],
    [
      'by Basic where it takes both',
      { token_endpoint_auth_methods_supported: ['client_secret_post', 'client_secret_basic'] },
      true,
    ],
    ['by the form where it takes only that', { token_endpoint_auth_methods_supported: ['client_secret_post'] }, false],
  ])('is told who we are %s', async (_how, metadata, byHeader) => {
    const told = { authorization: '', form: '' }
    const { issuer } = await startProvider({ metadata }, (req, res) => {
      told.authorization = req.headers.authorization ?? ''
      req.on('data', (chunk) => (told.form += String(chunk)))
      req.on('end', () => {
        res.writeHead(400, { 'Content-Type': 'application/json' }).end('{"error":"invalid_grant"}')
      })
    })
    expect(await new OidcClient(outbound).refresh(providerAt(issuer), 'a token', 'somebody')).toBeNull()
    expect(told.authorization.startsWith('Basic ')).toBe(byHeader)
    expect(told.form.includes('client_secret=the-secret')).toBe(!byHeader)
  })

  it.each([
    ['says that we are the wrong client', 401, '{"error":"invalid_client"}'],
    ['fails', 500, '<h1>markup</h1>'],
    ['answers no JSON', 200, 'so what'],
    ['answers JSON of another shape', 200, '[]'],
  ])('that %s said no to nobody', async (_what, status, body) => {
    const { issuer } = await startProvider({}, (_req, res) => {
      res.writeHead(status, { 'Content-Type': 'application/json' }).end(body)
    })
    const refreshing = new OidcClient(outbound).refresh(providerAt(issuer), 'a token', 'somebody')
    await expect(refreshing).rejects.toEqual(failure)
    await expect(refreshing).rejects.not.toThrow(/markup|so what/)
  })

  it('A91: sends our secret to no place that it redirects to', async () => {
    const elsewhere = await startProvider()
    const { issuer } = await startProvider({}, (_req, res) => {
      res.writeHead(307, { Location: `${elsewhere.issuer}/token` }).end()
    })
    await expect(new OidcClient(outbound).refresh(providerAt(issuer), 'a token', 'somebody')).rejects.toEqual(failure)
    expect(elsewhere.asked).toEqual([])
  })

  it('A91: is not asked at an address that is not allowed, whatever its metadata say', async () => {
    const { issuer } = await startProvider({ metadata: { token_endpoint: 'http://169.254.169.254/token' } })
    await expect(new OidcClient(outbound).refresh(providerAt(issuer), 'a token', 'somebody')).rejects.toEqual(failure)
  })

  const lack = lacking('openssl')
  const needsOpenssl = lack ? it.skip : it
  needsOpenssl(titled('needs a certificate that is trusted, unless the settings say otherwise', lack), async () => {
    const { issuer } = await startProvider({ tls: selfSigned() })
    const client = new OidcClient(outbound)
    await expect(client.ping({ endpoint: issuer, verifyCertificate: true })).rejects.toThrow(
      /certificate is not trusted/,
    )
    await expect(client.ping({ endpoint: issuer, verifyCertificate: false })).resolves.toBeUndefined()
  })
})

function selfSigned(): { key: string; cert: string } {
  const folder = mkdtempSync(join(tmpdir(), 'haven-oidc-'))
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
  try {
    execFileSync(
      findTool('openssl')!,
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
        ...['-subj', '/CN=elsewhere', '-keyout', key, '-out', cert],
      ],
      { stdio: 'ignore' },
    )
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
