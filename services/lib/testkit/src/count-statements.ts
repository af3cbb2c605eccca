import pg from 'pg'

/**
 * Every statement that this process sends to Postgres while `work` runs, by whichever way: Prisma, the pool, the pipelined reads. What
 * begins and ends transactions is among them.
 */
export async function statementsOf(work: () => Promise<unknown>): Promise<string[]> {
  return (await roundTripsOf(work)).flat()
}

/** As `statementsOf`, by what was asked of one connection in one turn: that leaves in one write. */
export async function roundTripsOf(work: () => Promise<unknown>): Promise<string[][]> {
  const trips: string[][] = []
  const current = new Map<pg.Client, string[]>()
  const { query } = pg.Client.prototype as { query: (...given: unknown[]) => unknown }
  pg.Client.prototype.query = function counted(this: pg.Client, ...given: unknown[]) {
    const [asked] = given as [string | { text?: string }]
    const text = typeof asked === 'string' ? asked : (asked.text ?? '')
    const trip = current.get(this)
    if (trip) trip.push(text)
    else {
      const begun = [text]
      current.set(this, begun)
      trips.push(begun)
      process.nextTick(() => current.delete(this))
    }
    return Reflect.apply(query, this, given)
  } as typeof pg.Client.prototype.query
  try {
    await work()
  } finally {
    pg.Client.prototype.query = query as typeof pg.Client.prototype.query
  }
  return trips
}
