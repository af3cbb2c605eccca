import { statement, type Database, type Sql } from '@haven/db'
import type { Listed, Page } from './inspect.ts'

/** An item that an execution could not do. The message is shown to whoever may see the execution. */
export type ItemFailure = {
  item: string
  code: string
  /** The same in one word, for who counts them. */
  reason: string
  message: string
}

type RecordedFailure = ItemFailure & {
  /** Null for a name of nothing. */
  itemId: number | null
}

const record = statement(
  'jobs record failures',
  `insert into jobs.item_failures (execution_id, item, code, message, reason, item_id)
   select $1, * from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])`,
)

export async function recordFailures(
  tx: Sql,
  executionId: number,
  failures: readonly RecordedFailure[],
): Promise<void> {
  if (failures.length === 0) return
  await tx.rows(record, [
    executionId,
    failures.map(({ item }) => item),
    failures.map(({ code }) => code),
    failures.map(({ message }) => message),
    failures.map(({ reason }) => reason),
    failures.map(({ itemId }) => itemId),
  ])
}

/** What an execution could not do, in the order in which it came to it. */
export async function listFailures(
  { prisma }: Database,
  executionId: number,
  { page, pageSize }: Page,
): Promise<Listed<ItemFailure>> {
  const where = { executionId: BigInt(executionId) }
  const [items, total] = await Promise.all([
    prisma.itemFailure.findMany({
      where,
      select: { item: true, code: true, reason: true, message: true },
      orderBy: { id: 'asc' },
      skip: (page - 1) * pageSize,
      take: pageSize,
    }),
    prisma.itemFailure.count({ where }),
  ])
  return { items, total }
}

/** Ids of the items that it could not do, without names of nothing. */
export async function failedItems({ prisma }: Pick<Database, 'prisma'>, executionId: number): Promise<number[]> {
  const rows = await prisma.itemFailure.findMany({
    where: { executionId: BigInt(executionId), itemId: { not: null } },
    select: { itemId: true },
  })
  return rows.map(({ itemId }) => Number(itemId))
}
