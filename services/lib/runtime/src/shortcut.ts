import type { Socket } from 'node:net'

/** An answer that was in memory, or was had without an object of `node:http`. */
export interface ShortAnswer {
  readonly status: number
  /** Lines that end with CRLF each, of printable characters: without date and connection, which are added. */
  readonly headers: string
  /** Text stands for bytes, one each (latin1). */
  readonly body: string | Buffer | null
  /** Called when it was written. @param bytes of the answer with its head; 0 when the client had left */
  readonly onSent: (bytes: number) => void
}

/** An answer, at once or later; null: the request goes the usual way. */
export type ShortReply = ShortAnswer | null | Promise<ShortAnswer | null>

/**
 * Answers requests before they become objects of `node:http`, which take two thirds of a small answer. It may decline whatever is unusual:
 * that goes the usual way.
 */
export interface Shortcut {
  /** How targets begin that are worth a look. */
  readonly prefix: string
  /** Names of headers, in small letters, that may be there. A request with any other goes the usual way. */
  readonly headers: ReadonlySet<string>
  /** Reads the headers: once for all requests of a connection that bring the same. Null: the usual way. */
  readonly asker: (headers: ReadonlyMap<string, string>, socket: Socket) => Asker | null
}

/**
 * Answers a GET or HEAD without a body, or declines. Until then the connection waits, whatever comes on it: a promise must settle, soon, and
 * what would be done twice by the usual way must not have been done when it declines.
 * @param target as it was sent
 */
export type Asker = (method: 'GET' | 'HEAD', target: string) => ShortReply

/** Headers that change nothing about an answer from memory, beside the one that says who asks. */
export const harmlessHeaders: readonly string[] = [
  'accept',
  'accept-encoding',
  'accept-language',
  'authorization',
  'connection',
  'docker-distribution-api-version',
  'host',
  'user-agent',
]
