import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Shortcut, ShortReply } from './shortcut.ts'

export type RequestHandler = (req: IncomingMessage, res: ServerResponse) => void

/** What a short answer depends on: a GET or HEAD without a body, by somebody who showed a bearer token. */
export interface Asked {
  readonly method: 'GET' | 'HEAD'
  readonly target: string
  readonly token: string
  readonly requestId: string
  readonly clientAddress: string
  /** As in `RequestContext`. */
  readonly handOver: boolean
}

/** Answers without an object of `node:http`, or leaves it to the handler. */
export type ShortAnswerer = (asked: Asked) => ShortReply

/** What every service is to the process that hosts it, alone or beside others. */
export interface Service extends AsyncDisposable {
  /** As logs and metrics call it: `registry`. */
  readonly name: string
  /** Called for a request over a socket, or directly by the proxy in the same process. */
  readonly handler: RequestHandler
  /** For the port that it is served at. */
  readonly shortcut?: Shortcut | undefined
  /** Called by the proxy in the same process. */
  readonly shortAnswer?: ShortAnswerer | undefined
  /** Readiness by component; each rejects with a reason that may be shown. */
  readonly checks: Readonly<Record<string, () => Promise<void>>>
  /** Background work, started when everything is constructed. */
  start?(): Promise<void>
}
