import { statement, type Database, type Sql } from '@haven/db'
import type { Listed, Page } from './inspect.ts'

/** An item that an execution could not do. The message is shown to whoever may see the execution. */
export type ItemFailure = { item: string; code: string; message: string }

const record = statement(
  'jobs record failures',
  `insert into jobs.item_failures (execution_id, item, code, message)
   select $1, * from unnest($2::text[], $3::text[], $4::text[])`,
)

export async function recordFailures(tx: Sql, executionId: number, failures: readonly ItemFailure[]): Promise<void> {
  if (failures.length === 0) return
  await tx.rows(record, [
    executionId,
    failures.map(({ item }) => item),
    failures.map(({ code }) => code),
    failures.map(({ message }) => message),
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
      select: { item: true, code: true, message: true },
      orderBy: { id: 'asc' },
      skip: (page - 1) * pageSize,
      take: pageSize,
    }),
    prisma.itemFailure.count({ where }),
  ])
  return { items, total }
}
