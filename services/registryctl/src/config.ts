import { defineConfig, duration, type ConfigOf } from '@haven/config'
import { pairSecret, serviceSettings } from '@haven/runtime'

/** How registryctl behaves, wherever it runs. */
export const registryctlSettings = {
  secret: pairSecret('REGISTRYCTL_SECRET', 'What the job service shows to registryctl.'),
  trashMs: duration({
    env: 'HAVEN_TRASH',
    default: '1h',
    max: '30d',
    doc: 'How long an object stays after nothing refers to it any more: longer than signed URLs live and downloads take.',
  }),
}

/** Registryctl as a process of its own. It also reads STORAGE_*. */
export const registryctlConfig = defineConfig('REGISTRYCTL', {
  ...serviceSettings({ port: 5003 }),
  ...registryctlSettings,
})

export type RegistryctlSettings = Pick<ConfigOf<typeof registryctlConfig>, keyof typeof registryctlSettings>
