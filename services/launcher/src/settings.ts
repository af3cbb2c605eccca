import { resolve } from 'node:path'
import { defineConfig, oneOf, port, readConfig, secret, text, url, type ConfigOf } from '@haven/config'

/** What `make up` reads from the environment. Settings of the services themselves are handed through to them. */
export const launcherConfig = defineConfig('HAVEN', {
  port: port({ default: 8080, doc: 'The one port that clients use.' }),
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

export type LauncherConfig = ConfigOf<typeof launcherConfig>

/** @throws ConfigProblem naming every wrong setting. */
export function readLauncherConfig(env: NodeJS.ProcessEnv): LauncherConfig & { home: string } {
  const config = readConfig(launcherConfig, env)
  return { ...config, home: resolve(config.home) }
}
