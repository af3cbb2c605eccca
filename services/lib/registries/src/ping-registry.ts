import type { RegistriesDeps } from './change-registries.ts'
import { requireHealthy } from './check-registry.ts'
import { parseRemote, type RemoteRegistry } from './remote-registry.ts'
import { findRegistry, remoteOf } from './stored-registries.ts'

/**
 * Whether a registry that is not registered yet answers and takes the credential.
 * @throws badRequest when it does not, and for a field that cannot be; outboundRefused.
 */
export const pingRegistry = ({ outbound }: Pick<RegistriesDeps, 'outbound'>, remote: RemoteRegistry): Promise<void> =>
  requireHealthy(outbound, parseRemote(remote))

/**
 * Whether a registered one does. A stored secret is only ever tried at the address that it was stored with (threats.md A92), so that
 * nothing but the credential can be another one.
 * @throws badRequest, outboundRefused; notFound.
 */
export async function pingStoredRegistry(
  deps: RegistriesDeps,
  id: number,
  credential: Partial<RemoteRegistry['credential']>,
): Promise<void> {
  const stored = remoteOf(deps.sealer, await findRegistry(deps, id))
  await pingRegistry(deps, { ...stored, credential: { ...stored.credential, ...credential } })
}
