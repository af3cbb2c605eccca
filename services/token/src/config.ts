import { defineConfig, duration, type ConfigOf } from '@haven/config'
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
})

export type TokenSettings = Pick<ConfigOf<typeof tokenConfig>, keyof typeof tokenSettings>
