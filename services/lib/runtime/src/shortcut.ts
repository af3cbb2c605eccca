import type { Socket } from 'node:net'

/** An answer that was in memory. */
export interface ShortAnswer {
  readonly status: number
  /** Lines that end with CRLF each, of printable characters: without date and connection, which are added. */
  readonly headers: string
  /** Text stands for bytes, one each (latin1). */
  readonly body: string | Buffer | null
  /** Called when it was written. @param bytes of the answer with its head */
  readonly left: (bytes: number) => void
}

/**
 * Answers requests from memory before they become objects of `node:http`, which take two thirds of a small answer. What it does not answer goes the usual
 * way, so it may decline whatever is unusual, and must decline whatever it would have to wait for.
 */
export interface Shortcut {
  /** How targets begin that are worth a look. */
  readonly prefix: string
  /** Names of headers, in small letters, that may be there. A request with any other goes the usual way. */
  readonly headers: ReadonlySet<string>
  /** Reads the headers: once for all requests of a connection that bring the same. Null: the usual way. */
  readonly asker: (headers: ReadonlyMap<string, string>, socket: Socket) => Asker | null
}

/** Answers a GET or HEAD without a body. @param target as it was sent */
export type Asker = (method: 'GET' | 'HEAD', target: string) => ShortAnswer | null

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
