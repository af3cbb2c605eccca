import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Database } from '@haven/db'
import { harborEnvelope, problems, toProblem } from '@haven/errors'
import {
  Family,
  finish,
  listen,
  sendProblem,
  serviceApp,
  type Listening,
  type Logger,
  type Metrics,
  type Service,
  type Trust,
} from '@haven/runtime'
import type { SettingsReader } from '@haven/settings'
import type { Redis } from 'ioredis'
import { Components } from './components.ts'
import type { ExporterConfig } from './config.ts'
import { readFigures } from './figures.ts'
import { presentFigures } from './present.ts'
import { Scrape } from './scrape.ts'

export type ExporterDeps = {
  readonly config: ExporterConfig
  readonly db: Database
  readonly redis: Redis
  readonly settings: SettingsReader
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
}

/** Adds what the platform holds to the metrics of its process; opens the one port for all metrics when it is asked for. */
export function createExporter(deps: ExporterDeps): Service {
  const { config, db, log, metrics, trust } = deps
  const components = new Components(config, deps)
  const platform = lately(config.cacheMs, async () => {
    const [states, figures] = await Promise.all([
      components.states(),
      // Without Postgres the rest is still told, and that Postgres is away.
      readFigures(deps, config.projects).then(presentFigures, (err: unknown) => {
        log.warn({ err }, 'the figures of the platform could not be read')
        return ''
      }),
    ])
    return presentStates(states) + figures
  })
  metrics.derive(platform)

  const port = config.metricEnable ? metricPort(config, metrics) : null
  let listening: Listening | null = null
  return {
    name: 'exporter',
    handler: finish(serviceApp({ name: 'exporter', log, metrics, trust, envelope: harborEnvelope })),
    checks: { database: () => db.check() },
    async start() {
      if (!port) return
      const onError = (err: Error) => log.error({ err }, 'the port of all metrics reported an error')
      const { metricHost: host, metricPort } = config
      listening = await listen(port, { host, port: metricPort, portSetting: 'METRIC_PORT', onError })
    },
    async [Symbol.asyncDispose]() {
      await listening?.drain(0)
    },
  }
}

/** As Harbor's: METRIC_PATH, and the component in `comp`. */
function metricPort(config: ExporterConfig, metrics: Metrics) {
  const scrape = new Scrape(config)
  const textOf = (req: IncomingMessage): Promise<string> => {
    const { pathname, searchParams } = new URL(req.url ?? '/', 'http://metrics')
    if (pathname !== config.metricPath) throw problems.pathNotFound({ path: pathname })
    const component = searchParams.get('comp')
    return component === null || component === 'exporter' ? metrics.text() : scrape.of(component)
  }
  const answer = async (req: IncomingMessage, res: ServerResponse) => {
    try {
      const text = await textOf(req)
      res.writeHead(200, { 'Content-Type': metrics.registry.contentType, 'Cache-Control': 'no-store' }).end(text)
    } catch (error) {
      sendProblem(req, res, toProblem(error), harborEnvelope)
    }
  }
  return (req: IncomingMessage, res: ServerResponse) => void answer(req, res)
}

function presentStates(states: ReadonlyMap<string, boolean>): string {
  const up = new Family('harbor_up', 'gauge', 'Whether a component works.')
  for (const [component, is] of states) up.add({ component }, Number(is))
  const health = new Family('harbor_health', 'gauge', 'Whether all components work.')
  return up.text() + health.add({}, Number([...states.values()].every(Boolean))).text()
}

/** Makes an answer for everybody who asks within `ms` of the last one. */
function lately(ms: number, make: () => Promise<string>): () => Promise<string> {
  let last: { at: number; answer: Promise<string> } | null = null
  let making = false
  return () => {
    if (!last || (!making && performance.now() - last.at >= ms)) {
      making = true
      const answer = make().finally(() => {
        making = false
      })
      last = { at: performance.now(), answer }
    }
    return last.answer
  }
}
