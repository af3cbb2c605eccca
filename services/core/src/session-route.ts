import type { IncomingMessage, ServerResponse } from 'node:http'
import type { EventSource } from '@haven/events'
import type { Principal } from '@haven/identity'
import { contextOf } from '@haven/runtime'
import type { Browser } from './browser.ts'
import type { CoreContext } from './context.ts'
import type { Answer } from './http/answer.ts'
import type { Target } from './http/request.ts'

/** A call of one of the pages' own endpoints. */
export type Asked = {
  deps: CoreContext
  req: IncomingMessage
  res: ServerResponse
  browser: Browser
  target: Target
}

export type Route = (asked: Asked) => Promise<Answer>

export function sourceOf(req: IncomingMessage, principal: Principal): EventSource {
  const { requestId, clientAddress } = contextOf(req)
  return { principal, requestId, address: clientAddress }
}
