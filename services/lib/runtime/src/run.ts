import { Problem, toProblem } from '@haven/errors'
import { readConfig, secretsOf, type Config, type Definition, type Environment, type Settings } from '@haven/config'
import { startTracing } from '@haven/telemetry'
import { collectAtRest } from './collect-at-rest.ts'
import { exitCodes } from './exit-codes.ts'
import { Health, withHealth } from './health.ts'
import { listen, type Listening } from './listen.ts'
import { openLogDestination, type LogDestination } from './log-destination.ts'
import { createLogger, type Logger, type LogLevel } from './logger.ts'
import { createMetrics, type Metrics } from './metrics.ts'
import type { Service } from './service.ts'
import { tracedService } from './traced-service.ts'
import type { Trust } from './context.ts'

/** What a process gives to the service it is to run. */
export interface Host<C> {
  readonly config: C
  readonly log: Logger
  readonly metrics: Metrics
  readonly trust: Trust
  /** The environment, for settings that a library reads itself. */
  readonly env: Environment
  /** Hides further secrets from the log. */
  hide(secrets: readonly string[]): void
  /** Keeps something open until the service has stopped; closed in reverse order. */
  use<R extends AsyncDisposable>(resource: R): R
}

/** The settings that `run` itself acts on: those of `serviceSettings`. */
export interface HostedConfig {
  readonly host: string
  readonly port: number
  readonly proxySecret: string
  readonly logLevel: LogLevel
  readonly logStdout: boolean
  readonly logCollectorUrl: string | undefined
  readonly logCollectorSecret: string | undefined
  readonly drainMs: number
}

export interface RunOptions<C> {
  /** Opens the ports in another way than one port for the service, its health and its metrics. */
  readonly open?: (service: Service, host: Host<C>, health: Health) => Promise<readonly Listening[]>
}

/**
 * The whole life of a service that has a process of its own: settings, log, construction, listening, readiness, drain at
 * SIGTERM or SIGINT (exit 0), exit codes (`exitCodes`).
 */
export async function run<S extends Settings>(
  create: (host: Host<Config<S>>) => Promise<Service> | Service,
  definition: Definition<S>,
  { open }: RunOptions<Config<S>> = {},
): Promise<void> {
  const resources = new AsyncDisposableStack()
  let log: Logger | null = null
  let destination: LogDestination | null = null
  const { env } = process
  try {
    const read = readConfig(definition, env)
    const config = read as unknown as HostedConfig
    destination = openLogDestination({
      collectorUrl: config.logCollectorUrl,
      collectorSecret: config.logCollectorSecret,
      alwaysStdout: config.logStdout,
      secrets: secretsOf(read),
    })
    const name = definition.prefix.toLowerCase().replaceAll('_', '-')
    const sink = destination
    const traces = await startTracing({
      process: name,
      env,
      hide: (secrets) => sink.hide(secrets),
      onFailure: (err) => log?.warn({ err }, 'traces are lost'),
    })
    if (traces) resources.use(traces)
    log = createLogger({ service: name, level: config.logLevel, destination })
    const metrics = createMetrics()
    const host: Host<Config<S>> = {
      config: read,
      env,
      log,
      metrics,
      trust: { proxySecret: config.proxySecret },
      hide: (secrets) => sink.hide(secrets),
      use: (resource) => resources.use(resource),
    }
    const service = tracedService(resources.use(await create(host)))
    const health = new Health([service], metrics)
    const listening = open
      ? await open(service, host, health)
      : [
          await listen(withHealth(service.handler, health), {
            host: config.host,
            port: config.port,
            shortcut: service.shortcut,
            portSetting: `${definition.prefix}_PORT`,
            onError: (err) => log?.error({ err }, 'the server reported an error'),
          }),
        ]
    await service.start?.()
    resources.use(collectAtRest())
    health.started()
    log.info({ host: config.host, ports: listening.map(({ port }) => port) }, `${service.name} is ready`)
    const { drainMs } = config
    await untilStopped({ log, destination, stop: () => stop({ health, listening, drainMs, resources }) })
  } catch (error) {
    await fail(error, log, destination, resources)
  }
}

/** The steps of a stop: not ready any more, nothing new accepted, what was accepted finished, then everything closed. */
export async function stop(parts: {
  readonly health: Health
  readonly listening: readonly Listening[]
  readonly drainMs: number
  readonly resources: AsyncDisposable
}): Promise<void> {
  parts.health.stopping()
  await Promise.all(parts.listening.map((listening) => listening.drain(parts.drainMs)))
  await parts.resources[Symbol.asyncDispose]()
}

/** The longest drain that may be set, and what closing pools may take beyond it: nothing keeps a process for ever. */
const LONGEST_STOP_MS = 30_000 + 5_000

/**
 * Resolves never: the process exits. SIGTERM and SIGINT stop it (exit 0), a second one at once (exit 130). An uncaught error or
 * rejection is logged, stops it in the same way, and exits with `exitCodes.bug` (threats.md R16).
 */
export function untilStopped(options: {
  readonly log: Logger
  readonly destination: AsyncDisposable
  readonly stop: () => Promise<void>
}): Promise<never> {
  const { log, destination } = options
  let leaving = false
  const leave = async (code: number) => {
    if (leaving) {
      if (code === exitCodes.ok) process.exit(130)
      return
    }
    leaving = true
    const overdue = setTimeout(() => process.exit(code || exitCodes.bug), LONGEST_STOP_MS)
    try {
      await options.stop()
      log.info('stopped')
    } catch (err) {
      log.error({ err }, 'stopping failed')
      code ||= exitCodes.bug
    }
    await destination[Symbol.asyncDispose]()
    clearTimeout(overdue)
    process.exit(code)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      log.info({ signal }, 'asked to stop')
      void leave(exitCodes.ok)
    })
  }
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (err: unknown) => {
      log.fatal({ err }, `${event}: this is a bug`)
      void leave(exitCodes.bug)
    })
  }
  return new Promise<never>(() => {})
}

async function fail(
  error: unknown,
  log: Logger | null,
  destination: AsyncDisposable | null,
  resources: AsyncDisposable,
): Promise<never> {
  const problem = toProblem(error)
  // A person starts a service: a problem is a sentence for him; anything else is a bug, with its stack.
  if (error instanceof Problem) process.stderr.write(`${problem.message}\n`)
  if (log && error instanceof Problem) log.fatal({ problem: problem.kind.name }, problem.message)
  else if (log) log.fatal({ err: error }, 'the service could not start')
  else if (!(error instanceof Problem))
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`)
  try {
    await resources[Symbol.asyncDispose]()
  } catch (err) {
    log?.error({ err }, 'closing failed')
  }
  await destination?.[Symbol.asyncDispose]()
  process.exit(problem.kind.exitCode)
}
