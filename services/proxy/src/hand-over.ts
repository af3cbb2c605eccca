import type { IncomingMessage, ServerResponse } from 'node:http'
import { ociEnvelope, problems } from '@haven/errors'
import { sendProblem, type Logger } from '@haven/runtime'
import { ObjectMissing, ObjectTruncated, type BlobStorage, type ByteRange } from '@haven/storage'

/** A body that a service leaves to the proxy: bytes of the store that both can read. */
export interface HandOver extends ByteRange {
  readonly store: string
  readonly key: string
}

/** Reads `<store> <key> <offset> <length>`. Null when it is anything else. */
export function parseHandOver(header: string | string[]): HandOver | null {
  const match = typeof header === 'string' ? /^([a-z0-9]+) (\S+) (\d{1,16}) (\d{1,16})$/.exec(header) : null
  if (!match) return null
  const [, store, key, offset, length] = match
  return { store: store!, key: key!, offset: Number(offset), length: Number(length) }
}

/**
 * Sends the bytes as the body of an answer whose headers are set. An answer that cannot be completed is cut off. `unreadable` is called
 * instead when the store does not have what it should and nothing has left yet: the service that knows what it was can say so.
 */
export async function handOver(
  req: IncomingMessage,
  res: ServerResponse,
  storage: BlobStorage,
  { key, offset, length }: HandOver,
  log: Logger,
  unreadable: () => void,
): Promise<void> {
  try {
    if (req.method !== 'HEAD') await storage.send(key, { offset, length }, res)
    res.end()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE') return
    log.error({ err: error }, 'a blob could not be sent')
    const lost = error instanceof ObjectMissing || error instanceof ObjectTruncated
    if (lost && !res.headersSent) return unreadable()
    // Nothing of the body has left yet when the object is missing: the client can still be told.
    if (res.headersSent) res.destroy()
    else sendProblem(req, res, problems.internal({}), ociEnvelope)
  }
}
