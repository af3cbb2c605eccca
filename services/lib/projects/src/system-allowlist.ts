import type { Database } from '@haven/db'
import { emit, type EventSource } from '@haven/events'
import { ConfigurationChangedSchema } from '@haven/proto/events'
import { parseAllowlist, type CveAllowlistInput } from './allowlist.ts'

type Deps = { db: Database }

/** No project has this id: it keeps the list that is valid where a project has none of its own. */
const SYSTEM = 0

export type SystemAllowlist = CveAllowlistInput & {
  /** Null while nobody has written one. */
  createdAt: Date | null
  updatedAt: Date | null
}

/** The installation's list. Until somebody writes one it is empty and never expires. */
export async function readSystemAllowlist({ db }: Deps): Promise<SystemAllowlist> {
  const row = await db.prisma.cveAllowlist.findUnique({ where: { projectId: SYSTEM } })
  if (!row) return { items: [], expiresAt: null, createdAt: null, updatedAt: null }
  const { items, expiresAt, createdAt, updatedAt } = row
  return { items: items as string[], expiresAt, createdAt, updatedAt }
}

/**
 * Replaces the installation's list.
 * @throws badRequest for an empty, over-long or doubled id.
 */
export async function putSystemAllowlist({ db }: Deps, source: EventSource, input: CveAllowlistInput): Promise<void> {
  const list = parseAllowlist(input)
  await db.prisma.$transaction(async (tx) => {
    await tx.cveAllowlist.upsert({
      where: { projectId: SYSTEM },
      create: { projectId: SYSTEM, ...list },
      update: list,
    })
    await emit(tx, ConfigurationChangedSchema, source, { keys: ['cve_allowlist'] })
  })
}
