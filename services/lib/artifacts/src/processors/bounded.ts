import type { Readable } from 'node:stream'

/** All bytes of a stream, or null as soon as there are more than `maxBytes`. */
export async function readAll(source: Readable, maxBytes: number): Promise<Buffer | null> {
  const chunks: Buffer[] = []
  let read = 0
  // Leaving the loop destroys the stream.
  for await (const chunk of source as AsyncIterable<Buffer>) {
    read += chunk.length
    if (read > maxBytes) return null
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}
