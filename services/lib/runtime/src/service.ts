import type { IncomingMessage, ServerResponse } from 'node:http'

export type RequestHandler = (req: IncomingMessage, res: ServerResponse) => void

/** What every service is to the process that hosts it, alone or beside others. */
export interface Service extends AsyncDisposable {
  /** As logs and metrics call it: `registry`. */
  readonly name: string
  /** Called for a request over a socket, or directly by the proxy in the same process. */
  readonly handler: RequestHandler
  /** Readiness by component; each rejects with a reason that may be shown. */
  readonly checks: Readonly<Record<string, () => Promise<void>>>
  /** Background work, started when everything is constructed. */
  start?(): Promise<void>
}
