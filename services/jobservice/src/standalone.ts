import type { ConfigOf } from '@haven/config'
import { openDatabase } from '@haven/db'
import type { Host, Service } from '@haven/runtime'
import type { jobserviceConfig } from './config.ts'
import { createJobservice } from './service.ts'

/** The job service with everything of its own, for a process that runs nothing else. */
export function openJobservice({ config, use, ...host }: Host<ConfigOf<typeof jobserviceConfig>>): Service {
  const { databaseUrl: url, databasePool: poolSize } = config
  const db = use(openDatabase({ url, applicationName: 'haven-jobservice', poolSize }))
  return createJobservice({ ...host, settings: config, db })
}
