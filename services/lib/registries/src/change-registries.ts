import { isUniqueViolation, type Database, type Prisma } from '@haven/db'
import { problems } from '@haven/errors'
import { emit, type EventSource } from '@haven/events'
import type { Sealer } from '@haven/identity'
import type { OutboundClient } from '@haven/outbound'
import { RegistryCreatedSchema, RegistryDeletedSchema, RegistryUpdatedSchema } from '@haven/proto/events'
import { healthOf, requireHealthy } from './check-registry.ts'
import { parseRemote, requireDescription, requireName, type RemoteRegistry } from './remote-registry.ts'
import { findRegistry, noRegistry, remoteOf, type StoredRegistry } from './stored-registries.ts'

type Transaction = Prisma.TransactionClient

export type RegistriesDeps = { db: Database; sealer: Sealer; outbound: OutboundClient }

export type NewRegistry = RemoteRegistry & { readonly name: string; readonly description: string }

/** What is absent stays as it is. An empty secret or certificate is taken away. */
export type RegistryChange = {
  readonly name?: string
  readonly description?: string
  readonly url?: string
  readonly insecure?: boolean
  readonly caCertificate?: string
  readonly credentialType?: string
  readonly accessKey?: string
  readonly accessSecret?: string
}

/**
 * Registers another registry that answers now. Answers its id.
 * @throws badRequest for a field that cannot be, and for a registry that does not answer; outboundRefused; conflict when the name is taken.
 */
export async function createRegistry(deps: RegistriesDeps, source: EventSource, input: NewRegistry): Promise<number> {
  const name = requireName(input.name)
  const description = requireDescription(input.description)
  const remote = parseRemote(input)
  await requireHealthy(deps.outbound, remote)
  return named(name, () =>
    deps.db.prisma.$transaction(async (tx) => {
      const { id } = await tx.registryEndpoint.create({
        data: { name, description, ...columnsOf(deps.sealer, remote), health: 'healthy' },
      })
      await emit(tx, RegistryCreatedSchema, source, { registry: { id: BigInt(id), name } })
      return id
    }),
  )
}

/**
 * Changes a registry. A stored secret never goes to where it was not given for (threats.md R12, A92): a new address comes without it unless
 * it is sent along, and whoever changes how the registry proves itself or what the secret is has to send it.
 *
 * How it is reached may only change to something that answers; whatever else changes, it may be away.
 * @throws as `createRegistry`; notFound; conflict when somebody else changed it meanwhile.
 */
export async function updateRegistry(
  deps: RegistriesDeps,
  source: EventSource,
  id: number,
  change: RegistryChange,
): Promise<void> {
  const row = await findRegistry(deps, id)
  const name = change.name === undefined ? row.name : requireName(change.name)
  const description = change.description === undefined ? row.description : requireDescription(change.description)
  const before = remoteOf(deps.sealer, row)
  const after = changed(before, change)
  const reached = !isSame(before, after)
  if (reached) await requireHealthy(deps.outbound, after)
  const health = reached ? 'healthy' : await healthOf(deps.outbound, after)
  await named(name, () =>
    deps.db.prisma.$transaction(async (tx) => {
      await requireUnchanged(tx, row)
      // A secret that did not change stays sealed as it is.
      const { accessSecret, ...columns } = columnsOf(deps.sealer, after)
      const secret = after.credential.accessSecret === before.credential.accessSecret ? {} : { accessSecret }
      const checked = { health, checkedAt: new Date() }
      await tx.registryEndpoint.update({
        where: { id },
        data: { name, description, ...columns, ...secret, ...checked },
      })
      const fields = Object.keys(change).map((field) => API_NAMES[field as keyof RegistryChange])
      await emit(tx, RegistryUpdatedSchema, source, { registry: { id: BigInt(id), name }, fields })
    }),
  )
}

const API_NAMES: Readonly<Record<keyof RegistryChange, string>> = {
  name: 'name',
  description: 'description',
  url: 'url',
  insecure: 'insecure',
  caCertificate: 'ca_certificate',
  credentialType: 'credential_type',
  accessKey: 'access_key',
  accessSecret: 'access_secret',
}

function changed(before: RemoteRegistry, change: RegistryChange): RemoteRegistry {
  const { credential } = before
  const after = parseRemote({
    type: before.type,
    url: change.url ?? before.url,
    insecure: change.insecure ?? before.insecure,
    caCertificate: change.caCertificate ?? before.caCertificate,
    credential: {
      type: change.credentialType ?? credential.type,
      accessKey: change.accessKey ?? credential.accessKey,
      accessSecret: change.accessSecret ?? credential.accessSecret,
    },
  })
  if (change.accessSecret !== undefined || credential.accessSecret === '') return after
  if (after.url !== before.url) return { ...after, credential: { ...after.credential, accessSecret: '' } }
  const lessSure = (after.insecure && !before.insecure) || isNewTrust(before.caCertificate, after.caCertificate)
  if (!lessSure && (after.credential.type || 'basic') === (credential.type || 'basic')) return after
  const what = lessSure ? 'how the registry proves who it is' : 'the type of the credential'
  throw problems.badRequest({ message: `access_secret must be sent again, since ${what} changes` })
}

const isNewTrust = (before: string, after: string) => after !== '' && after.trim() !== before.trim()

const isSame = (a: RemoteRegistry, b: RemoteRegistry) => JSON.stringify(a) === JSON.stringify(b)

/** While it was asked, somebody may have given it another address or secret; the two must not be mixed. */
async function requireUnchanged(tx: Transaction, row: StoredRegistry): Promise<void> {
  await tx.$queryRaw`select id from registries.endpoints where id = ${row.id} for update`
  const now = await tx.registryEndpoint.findUnique({ where: { id: row.id } })
  if (!now) throw noRegistry(row.id)
  const facts = (registry: StoredRegistry) => JSON.stringify({ ...registry, health: null, checkedAt: null })
  if (facts(now) !== facts(row)) {
    throw problems.conflict({ message: `registry ${row.name} was changed by somebody else meanwhile; try again` })
  }
}

/**
 * Forgets a registry. `users` says what still needs it, in the transaction that deletes it.
 * @throws notFound; preconditionFailed while it is used.
 */
export async function deleteRegistry(
  { db }: Pick<RegistriesDeps, 'db'>,
  source: EventSource,
  id: number,
  users: (tx: Transaction) => Promise<readonly string[]>,
): Promise<void> {
  const { name } = await findRegistry({ db }, id)
  await db.prisma.$transaction(async (tx) => {
    const { count } = await tx.registryEndpoint.deleteMany({ where: { id } })
    if (count === 0) throw noRegistry(id)
    const needed = await users(tx)
    if (needed.length > 0) {
      throw problems.preconditionFailed({ message: `registry ${name} is used by ${needed.join(', ')}` })
    }
    await emit(tx, RegistryDeletedSchema, source, { registry: { id: BigInt(id), name } })
  })
}

const columnsOf = (sealer: Sealer, { type, url, insecure, caCertificate, credential }: RemoteRegistry) => ({
  type,
  url,
  insecure,
  caCertificate,
  credentialType: credential.type,
  accessKey: credential.accessKey,
  accessSecret: credential.accessSecret === '' ? null : sealer.seal(credential.accessSecret),
})

async function named<T>(name: string, change: () => Promise<T>): Promise<T> {
  try {
    return await change()
  } catch (error) {
    if (isUniqueViolation(error)) throw problems.conflict({ message: `registry ${name} already exists` })
    throw error
  }
}
