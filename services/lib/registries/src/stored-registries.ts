import {
  conditionsToSql,
  escapeLike,
  listRows,
  orderOf,
  Prisma,
  type Condition,
  type Database,
  type Fields,
  type Page,
  type Sort,
} from '@haven/db'
import { problems } from '@haven/errors'
import type { Sealer } from '@haven/identity'
import type { RemoteRegistry } from './remote-registry.ts'

/** A registry as a row has it. `accessSecret` is sealed. */
export type StoredRegistry = {
  readonly id: number
  readonly name: string
  readonly type: string
  readonly url: string
  readonly description: string
  readonly insecure: boolean
  readonly caCertificate: string
  readonly credentialType: string
  readonly accessKey: string
  readonly accessSecret: string | null
  readonly health: string
  readonly checkedAt: Date
  readonly createdAt: Date
  readonly updatedAt: Date
}

/** What it takes to speak to it, the secret opened. */
export const remoteOf = (sealer: Sealer, row: StoredRegistry): RemoteRegistry => ({
  type: row.type,
  url: row.url,
  insecure: row.insecure,
  caCertificate: row.caCertificate,
  credential: {
    type: row.credentialType,
    accessKey: row.accessKey,
    accessSecret: row.accessSecret === null ? '' : sealer.open(row.accessSecret),
  },
})

/** @throws notFound */
export async function findRegistry({ db }: { db: Database }, id: number): Promise<StoredRegistry> {
  const row = isId(id) ? await db.prisma.registryEndpoint.findUnique({ where: { id } }) : null
  if (!row) throw noRegistry(id)
  return row
}

const isId = (id: number) => Number.isInteger(id) && id > 0 && id < 2 ** 31

export const noRegistry = (id: number) => problems.notFound({ message: `registry ${id} not found` })

const fields: Fields = {
  id: { column: Prisma.sql`id`, type: 'number' },
  name: { column: Prisma.sql`name`, type: 'text' },
  url: { column: Prisma.sql`url`, type: 'text' },
  type: { column: Prisma.sql`type`, type: 'text' },
  description: { column: Prisma.sql`description`, type: 'text' },
  status: { column: Prisma.sql`health`, type: 'text' },
  creation_time: { column: Prisma.sql`created_at`, type: 'time' },
  update_time: { column: Prisma.sql`updated_at`, type: 'time' },
}

export type RegistryQuery = {
  /** Part of the name, whatever its case. */
  name?: string
  conditions?: readonly Condition[]
  sort?: readonly Sort[]
  page: Page
}

/** A page of registries and how many there are in all. */
export async function listRegistries(
  { db }: { db: Database },
  query: RegistryQuery,
): Promise<{ total: number; registries: StoredRegistry[] }> {
  const { total, rows } = await listRows<StoredRegistry>(db.prisma, {
    columns: Prisma.sql`
      id, name, type, url, description, insecure, ca_certificate as "caCertificate", credential_type as "credentialType",
      access_key as "accessKey", access_secret as "accessSecret", health, checked_at as "checkedAt",
      created_at as "createdAt", updated_at as "updatedAt"`,
    from: Prisma.sql`registries.endpoints`,
    where: [
      Prisma.sql`true`,
      ...(query.name ? [Prisma.sql`name ilike ${`%${escapeLike(query.name)}%`}`] : []),
      ...conditionsToSql(query.conditions ?? [], fields),
    ],
    order: orderOf(query.sort ?? [], fields, [], Prisma.sql`id`),
    page: query.page,
  })
  return { total, registries: rows }
}
