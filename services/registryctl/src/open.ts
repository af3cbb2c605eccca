import type { ConfigOf } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { registryctlConfig } from './config.ts'
import { createRegistryctl } from './service.ts'

/** Registryctl from its settings and what its process shares. */
export async function openRegistryctl(
  { config, ...host }: Host<ConfigOf<typeof registryctlConfig>>,
  foundation: Foundation,
): Promise<Service> {
  return createRegistryctl({ ...host, settings: config, db: foundation.db(), storage: await foundation.storage() })
}
