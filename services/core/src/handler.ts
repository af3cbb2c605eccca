import type { IncomingMessage } from 'node:http'
import type { BodyOf, HeadersOf, OperationId, PathOf, QueryOf } from '@haven/proto'
import type { ProjectFacts } from '@haven/projects'
import type { Caller } from './caller.ts'
import type { CoreContext } from './context.ts'
import type { Answer } from './http/answer.ts'
import type { Target } from './http/request.ts'

/** One call of an operation: its values by the contract, who calls, and the project that the path names. */
export type Call<K extends OperationId> = {
  path: PathOf<K>
  query: QueryOf<K>
  headers: HeadersOf<K>
  body: BodyOf<K>
  caller: Caller
  /** Set where the operation's permission is one on a project: it was found, and the caller may do this there. */
  project: ProjectFacts
  at: Target
  req: IncomingMessage
}

export type Handler<K extends OperationId> = (call: Call<K>, deps: CoreContext) => Promise<Answer> | Answer

export type Handlers = { [K in OperationId]?: Handler<K> }
