import type { ConfigOf } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { jobserviceConfig } from './config.ts'
import { createJobservice } from './service.ts'

/** The job service from its settings and what its process shares. */
export function openJobservice(
  { config, ...host }: Host<ConfigOf<typeof jobserviceConfig>>,
  foundation: Foundation,
): Service {
  const { redisUrl, redisPrefix } = foundation.config
  return createJobservice({
    ...host,
    config,
    settings: foundation.settings(),
    db: foundation.db(),
    authorities: foundation.authorities(),
    sealer: foundation.sealer(),
    outbound: foundation.outbound(),
    redisUrl,
    redisPrefix,
  })
}
