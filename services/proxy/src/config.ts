import { bool, ConfigProblem, defineConfig, duration, file, oneOf, port, text, url, type ConfigOf } from '@haven/config'
import { serviceSettings } from '@haven/runtime'
import type { CertificateSource } from './door.ts'

/** The settings of the proxy in a process of its own. */
export const proxyConfig = defineConfig('PROXY', {
  ...serviceSettings({ port: 8080 }),
  registryUrl: url({ env: 'REGISTRY_URL', default: 'http://127.0.0.1:5000', doc: 'Where the registry listens.' }),
  tokenUrl: url({ env: 'TOKEN_URL', default: 'http://127.0.0.1:5001', doc: 'Where the token service listens.' }),
  coreUrl: url({ env: 'CORE_URL', default: 'http://127.0.0.1:5002', doc: 'Where core listens.' }),
  externalUrl: url({ env: 'HAVEN_EXTERNAL_URL', optional: true, doc: 'Where clients find this installation.' }),
  portalFolder: text({ default: 'portal/public', doc: 'Folder of the built portal.' }),
  sendsBlobs: bool({
    default: true,
    doc: 'The proxy reads the blob store (STORAGE_* are needed) and sends blobs itself, without a way through the registry.',
  }),
  answerWithinMs: duration({ default: '15m', doc: 'A service that sends nothing for this long is given up.' }),
  tls: oneOf(['off', 'files', 'self-signed'], {
    default: 'off',
    doc: 'Where the certificate comes from; off: plain HTTP.',
  }),
  tlsPort: port({ default: 8443, doc: 'Port of HTTPS; the plain port then only redirects.' }),
  tlsRedirect: bool({ default: true, doc: 'With TLS: whether the plain port is open, to redirect to HTTPS.' }),
  tlsCert: file({ optional: true, doc: 'Certificate chain in PEM, looked at again when it changes.' }),
  tlsKey: file({ optional: true, doc: 'Its private key in PEM.' }),
  tlsFolder: text({ default: '.haven/tls', doc: 'Where the self-signed certificate is kept.' }),
  metricsHost: text({ default: '127.0.0.1', doc: 'Address of /healthz, /readyz and /metrics.' }),
  metricsPort: port({
    optional: true,
    doc: 'Port of /healthz, /readyz and /metrics, which are never on the door itself.',
  }),
})

export type ProxyConfig = ConfigOf<typeof proxyConfig>

/**
 * Where the certificate of the door comes from; undefined for plain HTTP.
 * @throws ConfigProblem when files are asked for and not given
 */
export function certificateSource(
  config: Pick<ProxyConfig, 'tls' | 'tlsCert' | 'tlsKey' | 'tlsFolder'>,
): CertificateSource | undefined {
  const { tls, tlsCert, tlsKey, tlsFolder } = config
  if (tlsCert && tlsKey) return { certPath: tlsCert.path, keyPath: tlsKey.path }
  if (tls === 'self-signed') return { selfSignedIn: tlsFolder }
  if (tls === 'off' && !tlsCert && !tlsKey) return undefined
  const missing = tlsCert ? 'PROXY_TLS_KEY' : 'PROXY_TLS_CERT'
  throw new ConfigProblem([
    { name: missing, given: null, expected: 'the path of a readable file: TLS needs both files' },
  ])
}
