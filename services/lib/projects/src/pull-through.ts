import type { Transaction } from './deps.ts'

/** Names of some of the projects that pull through this registry. */
export async function projectsThrough(tx: Transaction, registryId: number): Promise<string[]> {
  const found = await tx.project.findMany({
    where: { registryId, deletedAt: null },
    select: { name: true },
    orderBy: { name: 'asc' },
    take: 5,
  })
  return found.map(({ name }) => name)
}
