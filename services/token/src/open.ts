import type { ConfigOf } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { tokenConfig } from './config.ts'
import { createToken } from './service.ts'

/** The token service from its settings and what its process shares. */
export function openToken(host: Host<ConfigOf<typeof tokenConfig>>, foundation: Foundation): Service {
  const { log, metrics, trust } = host
  return createToken({
    log,
    metrics,
    trust,
    db: foundation.db(),
    keys: foundation.signingKeys(),
    sealer: foundation.sealer(),
    authorities: foundation.authorities(),
    signIn: foundation.signIn(),
    projects: foundation.projects(),
    settings: foundation.settings(),
  })
}
