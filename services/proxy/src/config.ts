import {
  bool,
  ConfigProblem,
  defineConfig,
  duration,
  file,
  int,
  oneOf,
  port,
  text,
  url,
  type ConfigOf,
} from '@haven/config'
import { serviceSettings } from '@haven/runtime'
import type { CertificateSource } from './door.ts'
import { trustedProxies } from './trusted-proxies.ts'

/** The settings of the proxy in a process of its own. */
export const proxyConfig = defineConfig('PROXY', {
  ...serviceSettings({ port: 8080 }),
  registryUrl: url({ env: 'REGISTRY_URL', default: 'http://127.0.0.1:5000', doc: 'Where the registry listens.' }),
  tokenUrl: url({ env: 'TOKEN_URL', default: 'http://127.0.0.1:5001', doc: 'Where the token service listens.' }),
  coreUrl: url({ env: 'CORE_URL', default: 'http://127.0.0.1:5002', doc: 'Where core listens.' }),
  externalUrl: url({ env: 'HAVEN_EXTERNAL_URL', optional: true, doc: 'Where clients find this installation.' }),
  trustedProxies: trustedProxies(
    'Balancers and Ingress controllers in front of the proxy: X-Forwarded-For and X-Forwarded-Proto count when they come from there.',
  ),
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
  socketsPerClient: int({
    default: 256,
    min: 1,
    doc: 'Connections of one client address; more are answered 503. A balancer in front of the proxy is one client.',
  }),
  headersWithinMs: duration({
    default: '20s',
    min: '100ms',
    doc: 'A request whose headers take longer is ended (408).',
  }),
  bodyWithinMs: duration({
    default: '60s',
    min: '100ms',
    doc: 'A body that is no upload and takes longer is ended (408).',
  }),
  uploadBytesPerSecond: int({
    default: 1024,
    min: 1,
    doc: 'An upload that brings less over uploadWindow is ended (408).',
  }),
  uploadWindowMs: duration({ default: '60s', min: '100ms', doc: 'Over which time the pace of an upload is measured.' }),
  stalledReaderMs: duration({
    default: '60s',
    min: '100ms',
    doc: 'A client that takes nothing of a waiting answer for this long is cut off.',
  }),
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
