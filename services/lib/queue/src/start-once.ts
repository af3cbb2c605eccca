import { createHash } from 'node:crypto'
import { statement, type Sql } from '@haven/db'
import { problems } from '@haven/errors'
import { startExecution, type NewExecution, type StartedExecution } from './start-execution.ts'

const lockOwner = statement(
  'jobs lock owner',
  `select pg_advisory_xact_lock(hashtext('haven.executions'), hashtext($1))`,
)
const known = statement<{ id: string; same: boolean }>(
  'jobs known key',
  `select execution_id as id, request_hash = $3 as same from jobs.idempotency_keys where owner = $1 and key = $2`,
)
const unfinished = statement<{ count: number }>(
  'jobs unfinished of owner',
  `select count(*)::int as count from jobs.executions
    where vendor_type = $1 and vendor_id = $2 and status not in ('Stopped', 'Error', 'Success')`,
)
const remember = statement(
  'jobs remember key',
  'insert into jobs.idempotency_keys (owner, key, request_hash, execution_id) values ($1, $2, $3, $4)',
)

export type Once = {
  /** Made by the client; null: it does not care. */
  key: string | null
  /** What was asked for, as a text that is the same for the same. */
  request: string
  /** Unfinished executions of this vendor at the same time. */
  atMost: number
}

/** The execution that this vendor has started under this key. @throws unprocessable when it was another request. */
export async function startedUnder(
  sql: Sql,
  { vendorType, vendorId = -1 }: Pick<NewExecution, 'vendorType' | 'vendorId'>,
  { key, request }: Pick<Once, 'key' | 'request'>,
): Promise<number | null> {
  if (key === null) return null
  const found = await sql.one(known, [`${vendorType} ${vendorId}`, key, hashOf(request)])
  if (found && !found.same) {
    throw problems.unprocessable({ failures: ['this Idempotency-Key belongs to another request'] })
  }
  return found && Number(found.id)
}

/**
 * Starts an execution, unless its vendor has started it already: then it is told which that was and has no tasks to hand on.
 * @throws unprocessable for the key of another request; tooManyRequests
 */
export async function startOnce(tx: Sql, execution: NewExecution, once: Once): Promise<StartedExecution> {
  const { vendorType, vendorId = -1 } = execution
  const owner = `${vendorType} ${vendorId}`
  // Two requests with one key, or one too many, come one after the other.
  await tx.rows(lockOwner, [owner])
  const before = await startedUnder(tx, execution, once)
  if (before !== null) return { id: before, tasks: [] }
  const { count } = (await tx.one(unfinished, [vendorType, vendorId]))!
  if (count >= once.atMost) {
    const message = `${count} operations are not finished; at most ${once.atMost} may be at the same time`
    throw problems.tooManyRequests({ retryAfterSeconds: 10, message })
  }
  const started = await startExecution(tx, execution)
  if (once.key !== null) await tx.rows(remember, [owner, once.key, hashOf(once.request), started.id])
  return started
}

const hashOf = (request: string): Buffer => createHash('sha256').update(request).digest()
