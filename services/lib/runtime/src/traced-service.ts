import type { IncomingMessage, ServerResponse } from 'node:http'
import { tracing, type Tracing } from '@haven/telemetry'
import { requestIdOf, routeOf } from './context.ts'
import type { Service } from './service.ts'

/** A service whose requests are spans; the service itself when no traces are sent. Not the log collector's, which is sent a line for each. */
export function tracedService<S extends Service>(service: S): S {
  const on = tracing()
  if (on === null || service.name === 'log-collector') return service
  const handler = tracedHandler(service, on)
  // Each of its requests is a span, so none takes the shortcut.
  return Object.create(service, { handler: { value: handler }, shortcut: { value: undefined } }) as S
}

/**
 * The span of a request goes on from the one that its `traceparent` names (W3C Trace Context), and takes its place there: whoever passes the request on,
 * as the proxy does, passes the new one.
 */
function tracedHandler({ name, handler }: Service, on: Tracing): Service['handler'] {
  return (req: IncomingMessage, res: ServerResponse) => {
    const { headers, method = '' } = req
    const from = { traceparent: one(headers.traceparent), tracestate: one(headers.tracestate) }
    const span = on.open({ name: `${name} ${method}`, kind: 'server', from, attributes: { 'haven.service': name } })
    Object.assign(headers, span.carrier)
    span.bind(req)
    span.bind(res)
    res.once('close', () => {
      const { statusCode: status, writableFinished } = res
      const route = routeOf(req)
      span.end(
        {
          'http.request.method': method,
          ...(route !== 'none' && { 'http.route': route }),
          'http.response.status_code': writableFinished ? status : 499,
          'haven.request': requestIdOf(req) ?? one(headers['x-request-id']),
        },
        {
          name: route === 'none' ? `${name} ${method}` : `${name} ${method} ${route}`,
          ...(status >= 500 && { failure: `answered ${status}` }),
        },
      )
    })
    span.run(() => handler(req, res))
  }
}

const one = (header: string | string[] | undefined) => (typeof header === 'string' ? header : undefined)
