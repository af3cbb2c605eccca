import type { IncomingMessage, ServerResponse } from 'node:http'
import { Problem, problems, toProblem } from '@haven/errors'
import { causedBy } from '@haven/telemetry'
import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express'
import { contextOf, enter, settle, type Gate } from './context.ts'
import type { Logger } from './logger.ts'

/** How an API writes its errors: `ociEnvelope`, `harborEnvelope`. */
export type Envelope = (problem: Problem) => object

/**
 * An Express app for one API surface: every request gets its context (`contextOf`), is counted, and is the cause of what it hands to others. Mount
 * routes on it, then call `finish`: rejected promises of handlers are answered with the envelope.
 */
export function serviceApp(options: Gate & { readonly envelope: Envelope }): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.set('query parser', 'simple')
  app.set('strict routing', true)
  app.set('case sensitive routing', true)
  app.locals.envelope = options.envelope
  app.use((req, res, next) => {
    causedBy(enter(req, res, options).requestId, next)
  })
  return app
}

/** Ends an app: what no route took is a 404, what was thrown becomes an answer. */
export function finish(app: Express): Express {
  const envelope = app.locals.envelope as Envelope
  const notFound: RequestHandler = (req) => {
    throw problems.pathNotFound({ path: req.path })
  }
  const failed: ErrorRequestHandler = (error, req, res, _next) => {
    answerProblem(req, res, error, envelope)
  }
  app.use(notFound)
  app.use(failed)
  return app
}

/** Express middleware of a route: names the request's metrics by the route's template. */
export const named =
  (template: string): RequestHandler =>
  (req, _res, next) => {
    contextOf(req).route = template
    next()
  }

/**
 * Answers a request with what was thrown: a Problem as it is, anything else as an internal error whose details only the log has.
 * When the answer has begun the connection is cut, so that a part never looks whole.
 */
export function answerProblem(req: IncomingMessage, res: ServerResponse, thrown: unknown, envelope: Envelope): void {
  const { log, requestId } = contextOf(req)
  const problem = toProblem(fromBodyParser(thrown), requestId)
  // A client that left is told nothing, and its leaving is no fault of ours.
  if (res.destroyed || res.writableEnded) {
    if (problem.status >= 500) logFailure(log, req, problem, thrown)
    return
  }
  if (problem.status >= 500) logFailure(log, req, problem, thrown)
  else log.debug({ status: problem.status, problem: problem.kind.name }, problem.message)
  if (res.headersSent) {
    res.destroy()
    return
  }
  settle(req, res)
  sendProblem(req, res, problem, envelope)
}

/** Writes a problem as an answer. For answers outside `serviceApp`. */
export function sendProblem(req: IncomingMessage, res: ServerResponse, problem: Problem, envelope: Envelope): void {
  for (const name of res.getHeaderNames()) {
    // Of an answer that was being prepared; they would describe a body that is not sent.
    if (/^(?:content-|etag$|last-modified$|accept-ranges$|cache-control$|transfer-encoding$|x-haven-)/.test(name)) {
      res.removeHeader(name)
    }
  }
  const body = JSON.stringify(envelope(problem))
  res.statusCode = problem.status
  res.setHeader('Content-Type', 'application/json; charset=utf-8')
  res.setHeader('Content-Length', Buffer.byteLength(body))
  for (const [name, value] of Object.entries(problem.headers)) res.setHeader(name, value)
  res.end(req.method === 'HEAD' ? undefined : body)
}

function logFailure(log: Logger, req: IncomingMessage, problem: Problem, thrown: unknown): void {
  log.error({ err: thrown, status: problem.status, method: req.method, url: req.url }, 'a request failed')
}

/** body-parser and Express mark errors of the client with a status; they are no bugs. */
function fromBodyParser(thrown: unknown): unknown {
  if (thrown instanceof Problem || !(thrown instanceof Error)) return thrown
  const { status, type } = thrown as { status?: unknown; type?: unknown }
  if (status === 413) return problems.payloadTooLarge({}, { cause: thrown })
  if (type === 'entity.parse.failed') {
    return problems.unprocessable({ failures: ['the body is not valid'] }, { cause: thrown })
  }
  if (status === 400 || status === 415) return problems.badRequest({ message: thrown.message }, { cause: thrown })
  return thrown
}
