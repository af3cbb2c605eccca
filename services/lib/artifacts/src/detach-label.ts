import type { Prisma } from '@haven/db'

/** Takes a label off everything that carries it, in the transaction that deletes it. */
export const detachLabel = (tx: Prisma.TransactionClient, labelId: number): Promise<unknown> =>
  tx.artifactLabel.deleteMany({ where: { labelId } })
