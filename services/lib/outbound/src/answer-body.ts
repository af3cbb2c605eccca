import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

export type BodyLimits = {
  readonly maxBytes: number
  /** Longest wait for a byte while somebody wants one. */
  readonly idleMs: number
  readonly signal: AbortSignal
  /** Turns what happened to the connection into what the reader is told. */
  readonly failure: (cause: unknown) => Error
}

export class TooLong extends Error {}
export class Silence extends Error {}

/**
 * The body of an answer, counted (threats.md R13). Ends only where the answer says that it ends: HTTP fails one that stops before its
 * Content-Length. A slow reader is not silence, so the socket's own timeout would be wrong here. Destroying it closes the connection.
 */
export function answerBody(answer: IncomingMessage, { maxBytes, idleMs, signal, failure }: BodyLimits): Readable {
  let seen = 0
  const body = new Readable({
    read() {
      silence.refresh()
      answer.resume()
    },
    destroy(error, done) {
      clearTimeout(silence)
      signal.removeEventListener('abort', abort)
      answer.destroy()
      done(error)
    },
  })
  const fail = (cause: unknown) => body.destroy(failure(cause))
  const abort = () => fail(signal.reason)
  const silence = setTimeout(() => !answer.isPaused() && fail(new Silence()), idleMs).unref()

  signal.addEventListener('abort', abort, { once: true })
  answer.pause()
  answer.on('data', (chunk: Uint8Array) => {
    seen += chunk.byteLength
    if (seen > maxBytes) fail(new TooLong())
    else if (body.push(chunk)) silence.refresh()
    else answer.pause()
  })
  answer.on('end', () => body.push(null))
  answer.on('error', fail)
  // A reader learns of an error that came before it by the state of the stream; without a reader it must not end the process.
  body.on('error', () => undefined)
  if (signal.aborted) abort()
  return body
}
