import { collectDefaultMetrics, Registry } from 'prom-client'

export interface RequestMeasure {
  readonly service: string
  readonly method: string
  /** The template, not the path: paths are chosen by clients and each would be a series of its own. */
  readonly route: string
  readonly status: number
  readonly seconds: number
}

/** What one method of one route of a service was asked so far. */
export interface Served {
  readonly route: string
  readonly method: string
  readonly statuses: ReadonlyMap<number, number>
  /** How many took no longer than each of `requestSeconds`, and at last those that took longer; not cumulative. */
  readonly buckets: readonly number[]
  readonly seconds: number
}

/** The metrics of a process, shared by all services in it. */
export interface Metrics {
  /** For everything that is no request. */
  readonly registry: Registry
  observe(measure: RequestMeasure): void
  /** The requests that a service has begun and not ended. Whoever begins one counts it, and counts it off. */
  inFlight(service: string): { now: number }
  /** What a service answered, each method of each route. */
  served(service: string): Iterable<Served>
  /** Adds to `text`, in Prometheus' format, what is found out when somebody asks. */
  derive(text: () => string | Promise<string>): void
  /** In Prometheus' text format. */
  text(): Promise<string>
}

const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** Upper bounds of the buckets of requests, in seconds. */
export const requestSeconds: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60,
]

/** Requests by service, method, route and status; event loop delay, garbage collection, memory, descriptors. */
export function createMetrics(): Metrics {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 20 })
  const requests = new Requests()
  const derived: (() => string | Promise<string>)[] = []
  return {
    registry,
    observe: (measure) => requests.observe(measure),
    inFlight: (service) => requests.inFlight(service),
    served: (service) => requests.served(service),
    derive: (text) => void derived.push(text),
    async text() {
      const [own, ...more] = await Promise.all([registry.metrics(), ...derived.map(async (text) => text())])
      return own + requests.text() + more.join('')
    },
  }
}

type Series = { statuses: Map<number, number>; buckets: number[]; seconds: number }

/**
 * What every request counts, twice where the proxy is in the same process. By the texts themselves, whose hashes V8 keeps: prom-client makes a new
 * key of all labels each time.
 */
class Requests {
  readonly #services = new Map<string, Map<string, Map<string, Series>>>()
  readonly #inFlight = new Map<string, { now: number }>()

  observe({ service, method, route, status, seconds }: RequestMeasure): void {
    const series = this.#series(service, route, knownMethods.has(method) ? method : 'other')
    series.statuses.set(status, (series.statuses.get(status) ?? 0) + 1)
    series.seconds += seconds
    let bucket = 0
    while (bucket < requestSeconds.length && seconds > requestSeconds[bucket]!) bucket += 1
    series.buckets[bucket]! += 1
  }

  inFlight(service: string): { now: number } {
    let count = this.#inFlight.get(service)
    if (!count) this.#inFlight.set(service, (count = { now: 0 }))
    return count
  }

  *served(service: string): Generator<Served> {
    for (const [route, methods] of this.#services.get(service) ?? []) {
      for (const [method, series] of methods) yield { route, method, ...series }
    }
  }

  #series(service: string, route: string, method: string): Series {
    let routes = this.#services.get(service)
    if (!routes) this.#services.set(service, (routes = new Map()))
    let methods = routes.get(route)
    if (!methods) routes.set(route, (methods = new Map()))
    let series = methods.get(method)
    if (!series) {
      series = { statuses: new Map(), buckets: Array<number>(requestSeconds.length + 1).fill(0), seconds: 0 }
      methods.set(method, series)
    }
    return series
  }

  /** In Prometheus' text format. */
  text(): string {
    const count = new Family('haven_http_requests_total', 'counter', 'Requests answered.')
    const time = new Family(
      'haven_http_request_seconds',
      'histogram',
      'Time from the headers of a request to the end of its answer.',
    )
    for (const service of this.#services.keys()) {
      for (const { method, route, statuses, buckets, seconds } of this.served(service)) {
        const labels = { service, method, route }
        for (const [status, n] of statuses) count.add({ ...labels, status }, n)
        time.addHistogram(labels, requestSeconds, buckets, seconds)
      }
    }
    const flying = new Family('haven_http_requests_in_flight', 'gauge', 'Requests that are not answered yet.')
    for (const [service, { now }] of this.#inFlight) flying.add({ service }, now)
    return `\n${count.text()}\n${time.text()}\n${flying.text()}`
  }
}

type Labels = Readonly<Record<string, string | number>>

/** One family of Prometheus' text format, for figures that are kept elsewhere. */
export class Family {
  readonly #name: string
  readonly #lines: string[]

  constructor(name: string, type: 'counter' | 'gauge' | 'histogram' | 'summary', help: string) {
    this.#name = name
    this.#lines = [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`]
  }

  add(labels: Labels, value: number, suffix = ''): this {
    const pairs = Object.entries(labels).map(([name, text]) => `${name}="${escape(String(text))}"`)
    this.#lines.push(`${this.#name}${suffix}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}`)
    return this
  }

  /** @param buckets one more than `bounds`, not cumulative. */
  addHistogram(labels: Labels, bounds: readonly number[], buckets: readonly number[], sum: number): this {
    let count = 0
    for (const [i, n] of buckets.entries()) {
      count += n
      this.add({ le: bounds[i] ?? '+Inf', ...labels }, count, '_bucket')
    }
    return this.add(labels, sum, '_sum').add(labels, count, '_count')
  }

  /** Quantiles as a histogram knows them: between two bounds as if all were spread evenly. */
  addSummary(labels: Labels, bounds: readonly number[], buckets: readonly number[], sum: number): this {
    const count = buckets.reduce((total, n) => total + n, 0)
    for (const quantile of [0.5, 0.9, 0.99]) this.add({ ...labels, quantile }, quantileOf(quantile, bounds, buckets))
    return this.add(labels, sum, '_sum').add(labels, count, '_count')
  }

  text(): string {
    return `${this.#lines.join('\n')}\n`
  }
}

function quantileOf(quantile: number, bounds: readonly number[], buckets: readonly number[]): number {
  let below = 0
  const rank = quantile * buckets.reduce((total, n) => total + n, 0)
  for (const [i, n] of buckets.entries()) {
    const from = bounds[i - 1] ?? 0
    if (n > 0 && below + n >= rank) return from + ((bounds[i] ?? from) - from) * ((rank - below) / n)
    below += n
  }
  return NaN
}

const escape = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
