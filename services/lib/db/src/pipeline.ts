import type { Writable } from 'node:stream'
import type pg from 'pg'

/** Of a connection on which a question need not wait for the answer of the one before. */
export const PIPELINED: pg.ClientConfig = { pipeline: true }

const joining = new WeakSet<pg.ClientBase>()

/** What is asked in this turn leaves in one write: a write of its own costs as much as the question. */
export function joinWrites(client: pg.ClientBase): void {
  if (joining.has(client)) return
  joining.add(client)
  const { stream } = (client as pg.ClientBase & { connection: { stream: Writable } }).connection
  stream.cork()
  process.nextTick(() => {
    joining.delete(client)
    stream.uncork()
  })
}
