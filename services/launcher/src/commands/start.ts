import { ConfigProblem, defineConfig, readConfig, secretsOf, text } from '@haven/config'
import { Problem, toProblem } from '@haven/errors'
import { Foundation } from '@haven/foundation'
import {
  collectAtRest,
  createLogger,
  createMetrics,
  Health,
  listen,
  openLogDestination,
  serviceSettings,
  stop,
  untilStopped,
  withHealth,
  type Listening,
  type Service,
} from '@haven/runtime'
import { startTracing } from '@haven/telemetry'
import { assemble } from '../assembly.ts'
import { prepareInstallation } from '../installation.ts'
import { portalFolder } from '../program.ts'
import type { ChildMessage } from '../supervisor.ts'
import type { ServiceName } from '../targets.ts'

/** What a process acts on whichever services it runs. Each service reads its own settings besides. */
const processConfig = defineConfig('PROCESS', {
  ...serviceSettings({ port: 8080 }),
  name: text({ env: 'HAVEN_PROCESS', default: 'haven', doc: 'The name of this process in its own log lines.' }),
})

/**
 * Runs services in this process until SIGTERM, or until the supervisor that started it is gone. With the proxy among them the others are called
 * directly and only what other processes need listens.
 */
export async function start(names: readonly ServiceName[], given: NodeJS.ProcessEnv): Promise<number> {
  const env: NodeJS.ProcessEnv = { PROXY_PORTAL_FOLDER: portalFolder, ...given }
  // From the first moment: a supervisor that is killed while we start must not leave us behind.
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'))
  const resources = new AsyncDisposableStack()
  try {
    const config = readConfig(processConfig, env)
    const destination = openLogDestination({
      // Also where the collector runs: what it is sent makes no line, so its own lines do not go round.
      collectorUrl: config.logCollectorUrl,
      collectorSecret: config.logCollectorSecret,
      alwaysStdout: config.logStdout,
      secrets: secretsOf(config),
    })
    const hide = (secrets: readonly string[]) => destination.hide(secrets)
    const traces = await startTracing({
      process: config.name,
      env,
      hide,
      onFailure: (err) => log.warn({ err }, 'traces are lost'),
    })
    if (traces) resources.use(traces)
    const logOf = (service: string) => createLogger({ service, level: config.logLevel, destination })
    const log = logOf(config.name)
    const host = {
      env,
      metrics: createMetrics(),
      trust: { proxySecret: config.proxySecret },
      hide,
      use: <R extends AsyncDisposable>(resource: R) => resources.use(resource),
    }
    const foundation = new Foundation({ ...host, log })
    await prepareInstallation(foundation)
    const services = await assemble(names, { host, foundation, logOf })
    const health = new Health([...services.values()], host.metrics)
    const listening = await openPorts(services, health, env, log)
    for (const service of services.values()) await service.start?.()
    resources.use(collectAtRest())
    health.started()
    log.info({ services: names }, 'ready')
    tellSupervisor({ kind: 'ready' })
    await untilStopped({
      log,
      destination,
      stop: () => stop({ health, listening, drainMs: config.drainMs, resources }),
    })
    return 0
  } catch (error) {
    const problem = toProblem(error)
    const message = error instanceof Problem ? error.message : String((error as Error).stack)
    process.stderr.write(`${message}\n`)
    tellSupervisor({
      kind: 'failed',
      message: error instanceof Problem ? message : (error as Error).message,
      exitCode: problem.kind.exitCode,
    })
    await resources[Symbol.asyncDispose]()
    process.exit(problem.kind.exitCode)
  }
}

async function openPorts(
  services: ReadonlyMap<ServiceName, Service>,
  health: Health,
  env: NodeJS.ProcessEnv,
  log: ReturnType<typeof createLogger>,
): Promise<readonly Listening[]> {
  const proxy = services.get('proxy')
  const onError = (err: Error) => log.error({ err }, 'a server reported an error')
  if (proxy) {
    const [{ proxyConfig }, { openProxyPorts }] = await Promise.all([
      import('@haven/proxy/config'),
      import('@haven/proxy/ports'),
    ])
    const config = readConfig(proxyConfig, env)
    const tls = config.tls !== 'off'
    return openProxyPorts(
      proxy,
      { config, log, health },
      { reusePort: true, portSettings: { plain: tls ? 'HAVEN_HTTP_PORT' : 'HAVEN_PORT', tls: 'HAVEN_PORT' } },
    )
  }
  const opened: Listening[] = []
  for (const [name, service] of services) {
    const prefix = name.toUpperCase().replaceAll('-', '_')
    const { host, port } = addressOf(prefix, env)
    opened.push(
      await listen(withHealth(service.handler, health), {
        host,
        port,
        shortcut: service.shortcut,
        portSetting: `${prefix}_PORT`,
        onError,
      }),
    )
  }
  return opened
}

/** Without the proxy each service listens where its own settings say. @throws ConfigProblem */
function addressOf(prefix: string, env: NodeJS.ProcessEnv): { host: string; port: number } {
  const given = env[`${prefix}_PORT`]
  if (given === undefined || !/^\d{1,5}$/.test(given) || Number(given) > 65_535) {
    throw new ConfigProblem([
      { name: `${prefix}_PORT`, given: given ?? null, expected: 'a port, since other processes look for it' },
    ])
  }
  return { host: env[`${prefix}_HOST`] || '127.0.0.1', port: Number(given) }
}

const tellSupervisor = (message: ChildMessage) => process.send?.(message)
