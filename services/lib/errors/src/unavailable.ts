/**
 * SQLSTATE classes and codes: connection exceptions, shutdown, no disk, memory or connection left, a lock, a statement or a transaction
 * that took too long.
 */
const SQLSTATE = /^(08...|57P0[1-5]|57014|53...|55P03|25P03|25P04)$/
const CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENOTFOUND',
  // Prisma's: cannot reach, closed the connection, no free connection in time
  'P1001',
  'P1017',
  'P2024',
])
/**
 * What the driver says without a code when a connection breaks under a query or is not made in time, and of a server on a socket that has
 * ended: it takes the socket with it. And Prisma (P2028, which is also its code for our own mistakes) of a transaction that found no connection or
 * took too long.
 */
const SAID =
  /(?:^|\n)connect ENOENT |Unable to start a transaction in the given time|on an expired transaction|^(?:Connection terminated|timeout expired|Client has encountered a connection error|timeout exceeded when trying to connect|Client was closed)/
const DEEPEST = 5

/** What we need (Postgres, another service) cannot be reached or is going down: the same may succeed a moment later. */
export function isUnavailable(error: unknown): boolean {
  let cause = error
  for (let depth = 0; depth < DEEPEST && typeof cause === 'object' && cause !== null; depth++) {
    const { code, message, meta } = cause as {
      code?: unknown
      message?: unknown
      meta?: { driverAdapterError?: { cause?: { originalCode?: string; originalMessage?: string } } }
    }
    const driver = meta?.driverAdapterError?.cause
    for (const each of [driver?.originalCode, code]) {
      if (typeof each === 'string' && (SQLSTATE.test(each) || CODES.has(each))) return true
    }
    for (const each of [driver?.originalMessage, message]) {
      if (typeof each === 'string' && SAID.test(each)) return true
    }
    cause = (cause as { cause?: unknown }).cause
  }
  return false
}
