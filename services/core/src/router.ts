import type { IncomingMessage, ServerResponse } from 'node:http'
import { problems } from '@haven/errors'
import { bindRequest, operations, type Operation, type OperationId } from '@haven/proto'
import { contextOf, readBody } from '@haven/runtime'
import { permit } from './access.ts'
import { unsafeMethod, type Caller } from './caller.ts'
import type { CoreContext } from './context.ts'
import type { Call, Handler, Handlers } from './handler.ts'
import { send, sendPieces, type Answer } from './http/answer.ts'
import type { Target } from './http/request.ts'
import { tellOfRefusal } from './refused-change.ts'

const BASES = ['/api/v2.0', '/api/haven/v1']
const MAX_BODY_BYTES = 1024 * 1024

type Node = {
  readonly literals: Map<string, Node>
  parameter?: Node
  /** In the order of the contract: a 405 lists them. */
  readonly methods: Map<string, Operation>
}

const newNode = (): Node => ({ literals: new Map(), methods: new Map() })

export type Match = { operation: Operation; values: string[] } | { allowed: string[] } | null

/** The paths of a contract as a tree of segments; a literal segment wins over a parameter. */
export class RouteTable {
  readonly #root = newNode()

  constructor(table: Iterable<Operation>) {
    for (const operation of table) {
      let node = this.#root
      for (const segment of segmentsOf(operation.path)) {
        if (segment.startsWith('{')) node = node.parameter ??= newNode()
        else {
          const next = node.literals.get(segment) ?? newNode()
          node.literals.set(segment, next)
          node = next
        }
      }
      node.methods.set(operation.method, operation)
    }
  }

  /** What a method on a path leads to; null when there is no such path. A slash at the end changes nothing. */
  find(method: string, path: string): Match {
    const values: string[] = []
    const node = this.#walk(this.#root, segmentsOf(path), 0, values)
    if (!node) return null
    const operation = node.methods.get(method)
    return operation ? { operation, values } : { allowed: [...node.methods.keys()].sort() }
  }

  #walk(node: Node, segments: readonly string[], at: number, values: string[]): Node | null {
    const segment = segments[at]
    if (segment === undefined) return node.methods.size > 0 ? node : null
    const literal = node.literals.get(segment)
    const found = literal && this.#walk(literal, segments, at + 1, values)
    if (found) return found
    if (!node.parameter) return null
    values.push(segment)
    const below = this.#walk(node.parameter, segments, at + 1, values)
    if (!below) values.pop()
    return below
  }
}

const segmentsOf = (path: string): string[] => path.split('/').filter((segment) => segment !== '')

/**
 * Harbor's API and our own as the contracts declare them: finds the operation, binds its values, checks its permission, calls its handler.
 * An operation that has no handler yet answers 501.
 */
export class ApiRouter {
  readonly #deps: CoreContext
  readonly #handlers: Handlers
  readonly #routes: RouteTable

  /** @throws for a handler of an operation that is not in the contract. */
  constructor(deps: CoreContext, handlers: Handlers) {
    this.#deps = deps
    this.#handlers = handlers
    const ours = Object.values(operations).filter((operation) => operation.api !== 'oci')
    const known = new Set<string>(ours.map((operation) => operation.operationId))
    for (const id of Object.keys(handlers)) {
      if (!known.has(id)) throw new Error(`the handler ${id} belongs to no operation of the contract`)
    }
    this.#routes = new RouteTable(ours)
  }

  async handle(
    req: IncomingMessage,
    res: ServerResponse,
    target: Target,
    identify: () => Promise<Caller>,
  ): Promise<void> {
    const method = req.method ?? ''
    const match = this.#routes.find(method, target.path)
    if (!match) throw problems.pathNotFound({ path: target.path })
    if ('allowed' in match) throw problems.methodNotAllowed({ method, allowed: match.allowed })
    const { operation } = match
    contextOf(req).route = operation.path
    if (unsafeMethod(method) && !allowedWhenReadOnly.has(operation.operationId)) {
      if ((await this.#deps.settings.read()).read_only) throw problems.readOnly()
    }

    const caller = await identify()
    const handler = this.#handlers[operation.operationId]
    if (!handler) throw problems.notImplemented({ operation: operation.operationId })

    const body = await readBody(req, { limitBytes: MAX_BODY_BYTES })
    const path = pathValues(operation, match.values)
    const call = { operation, path, target, body, req, caller, handler: handler as Handler<OperationId> }
    const answer = await this.#call(call).catch(async (error: unknown) => {
      await tellOfRefusal(this.#deps, caller, operation, path, error)
      throw error
    })
    if (answer.write) await answer.write(res)
    else if (answer.pieces) await sendPieces(res, answer.status, answer.pieces)
    else send(res, answer, { head: method === 'HEAD' })
  }

  async #call({ operation, path, target, body, req, caller, handler }: Asked): Promise<Answer> {
    const bound = bindRequest(operation, { path, query: target.query, headers: req.headers, body })
    if (!bound.ok) throw problems.unprocessable({ failures: bound.failures })
    const project = await permit(this.#deps, caller, operation, bound)
    return handler({ ...bound, caller, project, at: target, req } as Call<OperationId>, this.#deps)
  }
}

/** A request whose operation is known, before its values are. */
type Asked = {
  operation: Operation
  path: Record<string, string>
  target: Target
  body: Buffer
  req: IncomingMessage
  caller: Caller
  handler: Handler<OperationId>
}

const allowedWhenReadOnly = new Set(['updateConfigurations'])

/** Repository names are encoded twice in a path, since they hold slashes: the second layer comes off here. */
function pathValues(operation: Operation, values: readonly string[]): Record<string, string> {
  const names = [...operation.path.matchAll(/\{([^}]+)\}/g)].map((found) => found[1] ?? '')
  return Object.fromEntries(
    names.map((name, i) => {
      const value = values[i] ?? ''
      return [name, name === 'repository_name' ? decodeAgain(value) : value]
    }),
  )
}

function decodeAgain(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    throw problems.badRequest({ message: `invalid URL escape in ${JSON.stringify(value)}` })
  }
}

/** Whether a path is an API's; everything else under /api is a page that does not exist. */
export const isApiPath = (path: string): boolean => BASES.some((base) => path === base || path.startsWith(`${base}/`))
