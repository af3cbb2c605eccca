import { setMaxListeners } from 'node:events'
import type { Database } from '@haven/db'
import { problems } from '@haven/errors'
import type { Sealer } from '@haven/identity'
import type { OutboundClient } from '@haven/outbound'
import { registry } from '@haven/registry-client'
import { endpointOf } from './adapters.ts'
import type { RemoteRegistry } from './remote-registry.ts'
import { remoteOf } from './stored-registries.ts'

export type Health = 'healthy' | 'unhealthy'

const PATIENCE_MS = 10_000
const AT_A_TIME = 4

/**
 * Asks a registry for its API, with its credential if it has one.
 * @throws badRequest when it does not answer or does not take the credential: the reason is ours, nothing that it said (threats.md A91);
 * outboundRefused for an address that may not be reached; the signal's reason.
 */
export async function requireHealthy(
  outbound: OutboundClient,
  remote: RemoteRegistry,
  signal?: AbortSignal,
): Promise<void> {
  const patience = AbortSignal.timeout(PATIENCE_MS)
  const client = registry(endpointOf(remote), outbound, { attempts: 1 })
  try {
    await client.ping({ signal: signal ? AbortSignal.any([signal, patience]) : patience })
  } catch (cause) {
    signal?.throwIfAborted()
    if (problems.outboundFailed.is(cause)) throw unhealthy(cause.message, cause)
    if (patience.aborted) throw unhealthy('no answer in time', cause)
    throw cause
  }
}

const unhealthy = (reason: string, cause: unknown) =>
  problems.badRequest({ message: `the registry is unhealthy: ${reason}` }, { cause })

/** The same as an answer, for registries that are already here. @throws the signal's reason. */
export async function healthOf(
  outbound: OutboundClient,
  remote: RemoteRegistry,
  signal?: AbortSignal,
): Promise<Health> {
  try {
    await requireHealthy(outbound, remote, signal)
    return 'healthy'
  } catch (error) {
    if (problems.badRequest.is(error) || problems.outboundRefused.is(error)) return 'unhealthy'
    throw error
  }
}

/**
 * Asks every registry once and keeps what each answers. One that was changed meanwhile is left as it is.
 * @throws the signal's reason
 */
export async function checkRegistries(
  deps: { db: Database; sealer: Sealer; outbound: OutboundClient },
  signal: AbortSignal,
): Promise<void> {
  const { prisma } = deps.db
  setMaxListeners(0, signal)
  const waiting = await prisma.registryEndpoint.findMany({ orderBy: { id: 'asc' } })
  const worker = async () => {
    for (let row = waiting.shift(); row; row = waiting.shift()) {
      const health = await healthOf(deps.outbound, remoteOf(deps.sealer, row), signal)
      // Not Prisma's update, which would move updated_at.
      await prisma.$executeRaw`
        update registries.endpoints set health = ${health}, checked_at = now()
         where id = ${row.id} and updated_at = ${row.updatedAt}`
    }
  }
  const ended = await Promise.allSettled(Array.from({ length: AT_A_TIME }, worker))
  const failed = ended.find((end) => end.status === 'rejected')
  if (failed) throw failed.reason
}
