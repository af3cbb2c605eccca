import pg from 'pg'

/**
 * Every statement that this process sends to Postgres while `work` runs, by whichever way: Prisma, the pool, the pipelined reads. What
 * begins and ends transactions is among them.
 */
export async function statementsOf(work: () => Promise<unknown>): Promise<string[]> {
  const texts: string[] = []
  const { query } = pg.Client.prototype as { query: (...given: unknown[]) => unknown }
  pg.Client.prototype.query = function counted(this: pg.Client, ...given: unknown[]) {
    const [asked] = given as [string | { text?: string }]
    texts.push(typeof asked === 'string' ? asked : (asked.text ?? ''))
    return Reflect.apply(query, this, given)
  } as typeof pg.Client.prototype.query
  try {
    await work()
  } finally {
    pg.Client.prototype.query = query as typeof pg.Client.prototype.query
  }
  return texts
}
