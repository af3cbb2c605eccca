import type { ConfigOf } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { coreConfig } from './config.ts'
import { createCore, type CoreDeps } from './service.ts'

/** Core from its settings and what its process shares. `checks` ask after parts of the platform that run in this process. */
export async function openCore(
  { config, ...host }: Host<ConfigOf<typeof coreConfig>>,
  foundation: Foundation,
  checks: NonNullable<CoreDeps['checks']> = {},
): Promise<Service> {
  return createCore({
    ...host,
    config,
    db: foundation.db(),
    storage: await foundation.storage(),
    recentAnswers: foundation.recentAnswers(),
    sealer: foundation.sealer(),
    settings: foundation.settings(),
    redis: foundation.redis(),
    redisPrefix: foundation.config.redisPrefix,
    projects: foundation.projects(),
    authorities: foundation.authorities(),
    signIn: foundation.signIn(),
    queue: foundation.queue(),
    outbound: foundation.outbound(),
    ldap: foundation.ldap(),
    checks,
  })
}
