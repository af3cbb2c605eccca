import type { IncomingMessage, ServerResponse } from 'node:http'

/** How much is read and dropped, at most, of a body that was answered before its end. */
export interface LingerLimits {
  readonly bytes: number
  readonly ms: number
}

export interface LingerOptions {
  readonly limits: LingerLimits
  /** Whether the server keeps connections, asked when the body has ended. */
  readonly mayKeepAlive: () => boolean
  /** Called when the dropping begins: whatever else comes on the connection is not to be answered. */
  readonly onLinger: () => void
}

/** A body of this length is read to its end whatever the answer is: a new connection would cost more. */
const SHORT_BODY_BYTES = 64 * 1024

/**
 * Lets a client that is still sending see an answer that came before the end of its body, such as the refusal of a large upload. To close a
 * socket with unread bytes is to reset the connection, which overtakes the answer or ends the client's sending with EPIPE. So the answer
 * says `Connection: close`, our half is closed behind it (RFC 9112, 9.6), and what still comes is dropped within the limits.
 */
export function lingerAfterEarlyAnswer(
  req: IncomingMessage,
  res: ServerResponse,
  { limits, mayKeepAlive, onLinger }: LingerOptions,
): void {
  if (Number(req.headers['content-length'] ?? Infinity) > SHORT_BODY_BYTES) {
    const keepAlive = res.shouldKeepAlive
    res.shouldKeepAlive = false
    req.once('end', () => {
      res.shouldKeepAlive = keepAlive && mayKeepAlive()
    })
  }
  // Before the listener of Node's own that closes the connection.
  res.prependOnceListener('finish', () => {
    const { socket } = req
    if (req.complete || req.destroyed) return
    if (res.shouldKeepAlive) {
      // Its reader may have stopped half way; the next request stands behind it.
      req.resume()
      return
    }
    onLinger()
    const close = socket.destroySoon.bind(socket)
    let left = limits.bytes
    // A service in another process has answered too and reads no more: a pipe to it would wait for ever.
    req.unpipe()
    req.on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left < 0) socket.destroy()
    })
    req.once('end', close)
    // Node drops the rest of a request that nobody began to read, uncounted; with this it has been begun.
    req.read(0)
    req.resume()
    socket.destroySoon = () => {
      socket.end()
      const timer = setTimeout(() => socket.destroy(), limits.ms)
      socket.once('close', () => clearTimeout(timer))
    }
  })
}
