import { resolve } from 'node:path'
import { ConfigProblem, defineConfig, oneOf, port, readConfig, secret, text, url, type ConfigOf } from '@haven/config'

/** What `make up` reads from the environment. Settings of the services themselves are handed through to them. */
export const launcherConfig = defineConfig('HAVEN', {
  port: port({ default: 8080, doc: 'The one port that clients use: of HTTPS when HAVEN_TLS is on.' }),
  tls: oneOf(['off', 'self-signed', 'files'], {
    optional: true,
    doc: 'self-signed: a pair made here, kept in <home>/tls. files: PROXY_TLS_CERT and PROXY_TLS_KEY. Default: files when they are given, else off.',
  }),
  httpPort: port({ optional: true, doc: 'With TLS: a plain port that redirects to HTTPS.' }),
  host: text({ default: '127.0.0.1', doc: 'The address it listens on; 0.0.0.0 for every network of this machine.' }),
  home: text({ default: '.haven', doc: 'The folder of this installation: database, blobs, logs, secrets.' }),
  shape: oneOf(['single', 'split'], {
    default: 'single',
    doc: 'single: one front process a pair of cores and one back process. split: one process a service.',
  }),
  externalUrl: url({ optional: true, doc: 'How clients reach this installation, if not by the address above.' }),
  adminPassword: secret({
    optional: true,
    doc: 'Password of the administrator on the first start. Default: made for this installation, kept in <home>/admin-password.',
  }),
  databaseUrl: secret({
    optional: true,
    env: 'DATABASE_URL',
    doc: 'A Postgres of your own instead of the embedded one.',
  }),
  redisUrl: secret({ optional: true, env: 'REDIS_URL', doc: 'A Redis of your own instead of the embedded one.' }),
})

export type LauncherConfig = Omit<ConfigOf<typeof launcherConfig>, 'tls'> & { tls: 'off' | 'self-signed' | 'files' }

/** @throws ConfigProblem naming every wrong setting. */
export function readLauncherConfig(env: NodeJS.ProcessEnv): LauncherConfig {
  const config = readConfig(launcherConfig, env)
  const tls = config.tls ?? (env.PROXY_TLS_CERT || env.PROXY_TLS_KEY ? 'files' : 'off')
  if (config.httpPort !== undefined && (tls === 'off' || config.httpPort === config.port)) {
    const expected =
      tls === 'off' ? 'nothing while HAVEN_TLS is off: it only redirects to HTTPS' : 'another than HAVEN_PORT'
    throw new ConfigProblem([{ name: 'HAVEN_HTTP_PORT', given: String(config.httpPort), expected }])
  }
  return { ...config, tls, home: resolve(config.home) }
}
