import { collectDefaultMetrics, Counter, Histogram, Registry } from 'prom-client'

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

/** Requests by service, method, route and status; event loop delay, garbage collection, memory, descriptors. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 20 })
  const requests = new Counter({
    name: 'haven_http_requests_total',
    help: 'Requests answered.',
    labelNames: ['service', 'method', 'route', 'status'],
    registers: [registry],
  })
  const latency = new Histogram({
    name: 'haven_http_request_seconds',
    help: 'Time from the headers of a request to the end of its answer.',
    labelNames: ['service', 'method', 'route'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60],
    registers: [registry],
  })
  // prom-client hashes its labels on each call; the children are kept instead.
  const series = new Map<string, { count: Counter.Internal; time: Histogram.Internal<string> }>()
  return {
    registry,
    observe({ service, method, route, status, seconds }) {
      const verb = knownMethods.has(method) ? method : 'other'
      const key = `${service} ${verb} ${status} ${route}`
      let found = series.get(key)
      if (!found) {
        found = {
          count: requests.labels(service, verb, route, String(status)),
          time: latency.labels(service, verb, route),
        }
        series.set(key, found)
      }
      found.count.inc()
      found.time.observe(seconds)
    },
    text: () => registry.metrics(),
  }
}
