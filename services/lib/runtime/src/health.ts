import { Problem, toProblem } from '@haven/errors'
import type { Metrics } from './metrics.ts'
import type { RequestHandler, Service } from './service.ts'

/** Components are asked at most so often, however many ask us. */
const KEPT_MS = 1_000
/** A component that says nothing for so long is not well. */
const CHECK_MS = 5_000

/** Whether the services of a process can do their work. */
export class Health {
  readonly #services: readonly Service[]
  readonly metrics: Metrics
  #state: 'starting' | 'up' | 'stopping' = 'starting'
  #last: { at: number; report: Promise<Record<string, string>> } | null = null

  constructor(services: readonly Service[], metrics: Metrics) {
    this.#services = services
    this.metrics = metrics
  }

  started(): void {
    this.#state = 'up'
  }

  stopping(): void {
    this.#state = 'stopping'
  }

  /** `ready`, and for each component `ok` or why not. */
  async report(): Promise<{ ready: boolean; state: string; components: Record<string, string> }> {
    if (!this.#last || Date.now() - this.#last.at > KEPT_MS) this.#last = { at: Date.now(), report: this.#check() }
    const components = await this.#last.report
    const ready = this.#state === 'up' && Object.values(components).every((state) => state === 'ok')
    return { ready, state: this.#state, components }
  }

  async #check(): Promise<Record<string, string>> {
    const entries = this.#services.flatMap((service) =>
      Object.entries(service.checks).map(async ([component, check]) => {
        const outcome = await within(CHECK_MS, check())
        return [this.#services.length > 1 ? `${service.name}.${component}` : component, outcome] as const
      }),
    )
    return Object.fromEntries(await Promise.all(entries))
  }
}

async function within(ms: number, check: Promise<void>): Promise<string> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(resolve, ms, `no answer within ${ms / 1000} s`)
  })
  const outcome = check.then(
    () => 'ok',
    // Only a Problem's text is made to be shown (threats.md §1).
    (error: unknown) => (error instanceof Problem ? error.message : 'failed'),
  )
  return Promise.race([outcome, late]).finally(() => clearTimeout(timer))
}

/** `/healthz`, `/readyz` and `/metrics` and nothing else, for a port of their own. */
export function healthOnly(health: Health): RequestHandler {
  return withHealth((_req, res) => {
    res.writeHead(404, { 'Content-Length': 0 }).end()
  }, health)
}

/** `/healthz`, `/readyz` and `/metrics` before a service's own paths. */
export function withHealth(handler: RequestHandler, health: Health): RequestHandler {
  return (req, res) => {
    const asked = req.method === 'GET' || req.method === 'HEAD'
    const answer = (status: number, type: string, body: string) => {
      res.writeHead(status, {
        'Content-Type': type,
        'Content-Length': Buffer.byteLength(body),
        'Cache-Control': 'no-store',
      })
      res.end(req.method === 'HEAD' ? undefined : body)
    }
    const failed = (error: unknown) => {
      if (!res.headersSent) answer(500, 'text/plain; charset=utf-8', `${toProblem(error).message}\n`)
    }
    if (asked && req.url === '/healthz') answer(200, 'text/plain; charset=utf-8', 'ok\n')
    else if (asked && req.url === '/readyz') {
      health
        .report()
        .then((report) => answer(report.ready ? 200 : 503, 'application/json', `${JSON.stringify(report)}\n`))
        .catch(failed)
    } else if (asked && req.url === '/metrics') {
      health.metrics
        .text()
        .then((text) => answer(200, health.metrics.registry.contentType, text))
        .catch(failed)
    } else handler(req, res)
  }
}
