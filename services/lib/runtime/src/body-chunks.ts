import type { IncomingMessage } from 'node:http'

/** Smaller ones may lie in a pool of Node's together with others, and cost the collector nothing. */
const WORTH_FREEING_BYTES = 16 * 1024

/**
 * The body of a request piece by piece, for who uses each piece before asking for the next: then its memory is given back at once. Left to
 * the garbage collector, the pieces of an upload call for a full collection every 64 MiB, which is a quarter of an upload's CPU.
 *
 * An early end of the reading leaves the request open, so that an answer can be sent. Fails with what the request fails with.
 */
export function bodyChunks(req: IncomingMessage): AsyncIterableIterator<Buffer> {
  const arrived: Buffer[] = []
  let used: Buffer | null = null
  let over: { readonly failure?: unknown } | null = null
  let waiting: PromiseWithResolvers<IteratorResult<Buffer>> | null = null

  const settle = () => {
    if (!waiting) return
    const asked = waiting
    const chunk = arrived.shift()
    if (chunk) {
      used = chunk
      asked.resolve({ done: false, value: chunk })
    } else if (!over) return
    else if ('failure' in over) asked.reject(over.failure)
    else asked.resolve({ done: true, value: undefined })
    waiting = null
  }
  const end = (how: { readonly failure?: unknown }) => {
    over ??= how
    req.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose)
    settle()
  }
  const onData = (chunk: Buffer) => {
    arrived.push(chunk)
    settle()
    if (arrived.length > 0) req.pause()
  }
  const onEnd = () => end({})
  const onError = (failure: unknown) => end({ failure })
  const onClose = () => end({ failure: new Error('the connection closed within the body') })
  const free = () => {
    if (used) release(used)
    used = null
  }

  req.on('end', onEnd).on('error', onError).on('close', onClose)
  if (req.errored) end({ failure: req.errored })
  else if (req.readableEnded) end({})
  else if (req.destroyed) onClose()
  else req.on('data', onData)
  return {
    next() {
      free()
      waiting = Promise.withResolvers<IteratorResult<Buffer>>()
      const { promise } = waiting
      settle()
      if (waiting && !over && req.isPaused()) req.resume()
      return promise
    },
    async return() {
      if (!over) req.pause()
      end({})
      free()
      for (const chunk of arrived.splice(0)) release(chunk)
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator]() {
      return this
    },
  }
}

/** Gives the memory of a piece that was read from a socket back, once nothing needs it any more. */
export function release(chunk: Buffer): void {
  const { buffer, byteLength } = chunk
  // Only memory that is this piece's alone. Detaching is how memory is freed without the collector.
  if (buffer instanceof ArrayBuffer && byteLength >= WORTH_FREEING_BYTES && buffer.byteLength === byteLength) {
    buffer.transfer(0)
  }
}
