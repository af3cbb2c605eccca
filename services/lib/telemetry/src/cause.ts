import { AsyncLocalStorage } from 'node:async_hooks'
import { tracing, type Carrier } from './tracing.ts'

const requests = new AsyncLocalStorage<string>()

/** Why work is done, for whoever does a part of it later or in another process: the request's id, and its span when traces are on. */
export type Cause = Carrier & { readonly request?: string | undefined }

/** Runs `work` as part of a request: what it hands to queues and other services names it. */
export const causedBy = <T>(requestId: string, work: () => T): T => requests.run(requestId, work)

/** What caused what is done here. Plain JSON. */
export function cause(): Cause {
  const request = requests.getStore()
  return { ...(request !== undefined && { request }), ...tracing()?.carrier() }
}
