import { defineConfig, duration, int, secret, text, type ConfigOf } from '@haven/config'
import { serviceSettings } from '@haven/runtime'

/** How tokens are issued, wherever the service runs. */
export const tokenSettings = {
  lifetimeMs: duration({
    default: '30m',
    min: '1m',
    max: '24h',
    doc: 'How long a bearer token is valid. Rights are read anew at each request; this is how long it proves who asks.',
  }),
}

/** The token service as a process of its own. */
export const tokenConfig = defineConfig('TOKEN', {
  ...serviceSettings({ port: 5001 }),
  ...tokenSettings,
  databaseUrl: secret({ env: 'DATABASE_URL', doc: 'URL of the Postgres database.' }),
  databasePool: int({
    default: 4,
    min: 2,
    max: 100,
    doc: 'Connections for writes; as many again for everything else.',
  }),
  encryptionKey: secret({
    env: 'HAVEN_ENCRYPTION_KEY',
    doc: 'Base64 of the 32 bytes that seal secrets at rest, the key that signs tokens among them.',
  }),
  redisUrl: secret({
    env: 'REDIS_URL',
    optional: true,
    doc: 'URL of Redis, where failed logins of all replicas are counted.',
  }),
  redisPrefix: text({ env: 'REDIS_PREFIX', default: 'haven', doc: 'What the keys of this installation begin with.' }),
})

export type TokenSettings = Pick<ConfigOf<typeof tokenConfig>, keyof typeof tokenSettings>
