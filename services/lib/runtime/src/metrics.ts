import { collectDefaultMetrics, Registry } from 'prom-client'

export interface RequestMeasure {
  readonly service: string
  readonly method: string
  /** The template, not the path: paths are chosen by clients and each would be a series of its own. */
  readonly route: string
  readonly status: number
  readonly seconds: number
}

/** The metrics of a process, shared by all services in it. */
export interface Metrics {
  readonly registry: Registry
  observe(measure: RequestMeasure): void
  /** In Prometheus' text format. */
  text(): Promise<string>
}

const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** Upper bounds in seconds. */
const bounds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60]

/** Requests by service, method, route and status; event loop delay, garbage collection, memory, descriptors. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 20 })
  const requests = new Requests()
  return {
    registry,
    observe: (measure) => requests.observe(measure),
    text: async () => (await registry.metrics()) + requests.text(),
  }
}

type Series = { statuses: Map<number, number>; buckets: number[]; seconds: number }

/**
 * What every request counts, twice where the proxy is in the same process. By the texts themselves, whose hashes V8 keeps: prom-client makes a new
 * key of all labels each time.
 */
class Requests {
  readonly #services = new Map<string, Map<string, Map<string, Series>>>()

  observe({ service, method, route, status, seconds }: RequestMeasure): void {
    const series = this.#series(service, route, knownMethods.has(method) ? method : 'other')
    series.statuses.set(status, (series.statuses.get(status) ?? 0) + 1)
    series.seconds += seconds
    let bucket = 0
    while (bucket < bounds.length && seconds > bounds[bucket]!) bucket += 1
    series.buckets[bucket]! += 1
  }

  #series(service: string, route: string, method: string): Series {
    let routes = this.#services.get(service)
    if (!routes) this.#services.set(service, (routes = new Map()))
    let methods = routes.get(route)
    if (!methods) routes.set(route, (methods = new Map()))
    let series = methods.get(method)
    if (!series) {
      series = { statuses: new Map(), buckets: Array<number>(bounds.length + 1).fill(0), seconds: 0 }
      methods.set(method, series)
    }
    return series
  }

  /** In Prometheus' text format. */
  text(): string {
    const count = ['# HELP haven_http_requests_total Requests answered.', '# TYPE haven_http_requests_total counter']
    const time = [
      '# HELP haven_http_request_seconds Time from the headers of a request to the end of its answer.',
      '# TYPE haven_http_request_seconds histogram',
    ]
    for (const [service, routes] of this.#services) {
      for (const [route, methods] of routes) {
        for (const [method, { statuses, buckets, seconds }] of methods) {
          const labels = `service="${escape(service)}",method="${method}",route="${escape(route)}"`
          for (const [status, n] of statuses) count.push(`haven_http_requests_total{${labels},status="${status}"} ${n}`)
          let sum = 0
          for (const [i, n] of buckets.entries()) {
            sum += n
            time.push(`haven_http_request_seconds_bucket{le="${bounds[i] ?? '+Inf'}",${labels}} ${sum}`)
          }
          time.push(`haven_http_request_seconds_sum{${labels}} ${seconds}`)
          time.push(`haven_http_request_seconds_count{${labels}} ${sum}`)
        }
      }
    }
    return `\n${[...count, '', ...time].join('\n')}\n`
  }
}

const escape = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
