import { duration, oneOf, port, secret, text, url, bool } from '@haven/config'
import { logLevels } from './logger.ts'

/** Values that are published as somebody's default and therefore are no secrets (threats.md R8). */
export const knownSecrets = ['not-a-secure-string', 'Harbor12345', 'changeit', 'change-me', 'password', 'secret']

/** A secret between two services (threats.md R8). `env` is its whole name. */
export const pairSecret = (env: string, doc: string) => secret({ env, doc, minLength: 32, refuse: knownSecrets })

/** The settings that every service has. Spread them into `defineConfig`. */
export const serviceSettings = (defaults: { readonly port: number }) => ({
  host: text({ default: '127.0.0.1', doc: 'Address to listen on.' }),
  port: port({ default: defaults.port, doc: 'Port to listen on.' }),
  proxySecret: pairSecret('HAVEN_PROXY_SECRET', 'What the proxy shows to the services, 32 characters at least.'),
  logLevel: oneOf(logLevels, { env: 'LOG_LEVEL', default: 'info', doc: 'Least level that is logged.' }),
  logStdout: bool({
    env: 'LOG_STDOUT',
    default: false,
    doc: 'Log to stdout also while the log collector takes the lines.',
  }),
  logCollectorUrl: url({ env: 'LOG_COLLECTOR_URL', optional: true, doc: 'Base URL of the log collector.' }),
  logCollectorSecret: secret({
    env: 'LOG_COLLECTOR_SECRET',
    optional: true,
    minLength: 32,
    refuse: knownSecrets,
    doc: 'What services show to the log collector.',
  }),
  drainMs: duration({
    env: 'HAVEN_DRAIN',
    default: '25s',
    max: '30s',
    doc: 'Time that accepted requests get to finish when the service is asked to stop.',
  }),
})
