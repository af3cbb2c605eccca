import { randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { formatContentRange, type ByteRange } from '@haven/oci'
import { internalHeaders } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'

/** One run of a blob's bytes: by the proxy when it can read the store (architecture.md §6), else from here. */
export async function sendPart(
  res: ServerResponse,
  storage: BlobStorage,
  key: string,
  { first, last }: ByteRange,
  { handOver }: { handOver: boolean },
): Promise<void> {
  const length = last - first + 1
  if (handOver) {
    // The proxy writes the length of what it sends; this answer has no body of its own.
    res.setHeader(internalHeaders.send, `${storage.name} ${key} ${first} ${length}`)
    res.setHeader('Content-Length', 0)
    res.end()
    return
  }
  res.setHeader('Content-Length', length)
  await whole(res, () => storage.send(key, { offset: first, length }, res))
}

/** Several parts of a blob in one answer (RFC 9110, 14.6): containers/image and stargz pull single files out of layers so. */
export async function sendParts(
  res: ServerResponse,
  storage: BlobStorage,
  key: string,
  ranges: readonly ByteRange[],
  { sizeBytes, type }: { sizeBytes: number; type: string },
): Promise<void> {
  const boundary = randomBytes(16).toString('hex')
  const end = `\r\n--${boundary}--\r\n`
  const parts = ranges.map((range) => ({
    offset: range.first,
    length: range.last - range.first + 1,
    head: `\r\n--${boundary}\r\nContent-Type: ${type}\r\nContent-Range: ${formatContentRange(range, sizeBytes)}\r\n\r\n`,
  }))
  res.setHeader('Content-Type', `multipart/byteranges; boundary=${boundary}`)
  res.setHeader(
    'Content-Length',
    parts.reduce((sum, { head, length }) => sum + head.length + length, end.length),
  )
  await whole(res, async () => {
    for (const { head, offset, length } of parts) {
      res.write(head)
      await storage.send(key, { offset, length }, res)
    }
    res.write(end)
  })
}

/** To the end, or the connection is cut: a short body must never look whole. */
async function whole(res: ServerResponse, send: () => Promise<void>): Promise<void> {
  try {
    await send()
    res.end()
  } catch (error) {
    const clientLeft = (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE'
    if (clientLeft) return
    if (res.headersSent) res.destroy()
    throw error
  }
}
