import type { ConfigOf } from '@haven/config'
import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { tokenConfig } from './config.ts'
import { createToken } from './service.ts'

/** The token service from its settings and what its process shares. */
export function openToken({ config: _, ...host }: Host<ConfigOf<typeof tokenConfig>>, foundation: Foundation): Service {
  return createToken({
    ...host,
    db: foundation.db(),
    keys: foundation.signingKeys(),
    sealer: foundation.sealer(),
    authorities: foundation.authorities(),
    signIn: foundation.signIn(),
    projects: foundation.projects(),
    settings: foundation.settings(),
  })
}
