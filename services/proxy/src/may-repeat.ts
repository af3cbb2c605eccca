import type { IncomingMessage } from 'node:http'

/**
 * The service may have several processes, one of which went away: a new connection finds another. What never got there may be sent again, and what
 * has no effect also when it did, unless there is a body, which is gone.
 */
export function mayRepeat(
  req: Pick<IncomingMessage, 'method' | 'headers' | 'complete'>,
  error: NodeJS.ErrnoException,
): boolean {
  const { method, headers } = req
  const { code } = error
  if (!req.complete || headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0)
    return false
  if (code === 'ECONNREFUSED') return true
  return (method === 'GET' || method === 'HEAD') && (code === 'ECONNRESET' || code === 'EPIPE')
}
