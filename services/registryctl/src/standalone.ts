import { secretsOf, type ConfigOf } from '@haven/config'
import { openDatabase } from '@haven/db'
import type { Host, Service } from '@haven/runtime'
import { openStorage, readStorageConfig } from '@haven/storage'
import type { registryctlConfig } from './config.ts'
import { createRegistryctl } from './service.ts'

/** Registryctl with everything of its own, for a process that runs nothing else. */
export async function openRegistryctl({
  config,
  env,
  hide,
  use,
  ...host
}: Host<ConfigOf<typeof registryctlConfig>>): Promise<Service> {
  const { databaseUrl: url, databasePool: poolSize } = config
  const db = use(openDatabase({ url, applicationName: 'haven-registryctl', poolSize }))
  const storageConfig = readStorageConfig(env)
  hide(secretsOf(storageConfig))
  const storage = use(await openStorage(storageConfig))
  return createRegistryctl({ ...host, settings: config, db, storage })
}
