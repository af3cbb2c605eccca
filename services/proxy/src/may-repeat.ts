import type { IncomingMessage } from 'node:http'
import { hasBody } from '@haven/runtime'

/** Of Node's clients, and of undici. */
const BROKEN: ReadonlySet<string | undefined> = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'])

/**
 * The service may have several processes, one of which went away: a new connection finds another. What never got there may be sent again, and what
 * has no effect also when it did, unless there is a body, which is gone.
 */
export function mayRepeat(
  req: Pick<IncomingMessage, 'method' | 'headers' | 'complete'>,
  error: NodeJS.ErrnoException,
): boolean {
  const { method } = req
  if (!req.complete || hasBody(req)) return false
  if (error.code === 'ECONNREFUSED') return true
  return (method === 'GET' || method === 'HEAD') && BROKEN.has(error.code)
}
