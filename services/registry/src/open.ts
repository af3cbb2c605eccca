import type { ConfigOf } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { registryConfig } from './config.ts'
import { createRegistry } from './service.ts'

/** The registry from its settings and what its process shares. */
export async function openRegistry(
  { config, ...host }: Host<ConfigOf<typeof registryConfig>>,
  foundation: Foundation,
): Promise<Service> {
  return createRegistry({
    ...host,
    config,
    db: foundation.db(),
    settings: foundation.settings(),
    storage: await foundation.storage(),
    recentAnswers: foundation.recentAnswers(),
    projects: foundation.projects(),
    authorities: foundation.authorities(),
    tokens: foundation.tokens(),
    signIn: foundation.signIn(),
  })
}
