import { statement, type Database, type Sql } from '@haven/db'

/** A change that an execution has made to an item; what else an undo must know of it is the detail. */
export type ItemEffect = { itemId: number; detail: string }

const record = statement(
  'jobs record effect',
  `insert into jobs.item_effects (execution_id, item_id, detail) values ($1, $2, $3) on conflict do nothing`,
)

/** In the transaction that makes the change. */
export async function recordEffect(tx: Sql, executionId: number, { itemId, detail }: ItemEffect): Promise<void> {
  await tx.rows(record, [executionId, itemId, detail])
}

/** What an execution has changed, by item. */
export async function listEffects({ prisma }: Pick<Database, 'prisma'>, executionId: number): Promise<ItemEffect[]> {
  const rows = await prisma.itemEffect.findMany({
    where: { executionId: BigInt(executionId) },
    select: { itemId: true, detail: true },
    orderBy: { itemId: 'asc' },
  })
  return rows.map(({ itemId, detail }) => ({ itemId: Number(itemId), detail }))
}
