import { statfsSync } from 'node:fs'
import { createServer, isIPv6 } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { Problem, problems, toProblem } from '@haven/errors'
import { freePort, NoRedis, postgresUrl, startPostgres, startRedis } from '@haven/embedded'
import { Home, isAlive, type InstallationState } from '../home.ts'
import { endLeftOver } from '../left-over.ts'
import type { LauncherConfig } from '../settings.ts'
import { placeProgram, portalFolder } from '../program.ts'
import { nodeProcess, StartRefused, Supervisor, type Supervised } from '../supervisor.ts'
import { processGroups, serviceNames, type ProcessGroup } from '../targets.ts'

const READY_MS = 60_000
const DRAIN_MS = 30_000
const START_ATTEMPTS = 3
const MIN_FREE_BYTES = 256 * 1024 * 1024

/**
 * Runs one machine's worth of Haven until SIGTERM or SIGINT: Postgres and Redis where none is given, and the services. The state file
 * tells the other commands where it stands. Resolves with the exit code.
 */
export async function supervise(config: LauncherConfig, env: NodeJS.ProcessEnv): Promise<number> {
  const home = new Home(config.home)
  home.create()
  const state = openState(home, config)
  const log = (line: string) => process.stdout.write(`${new Date().toISOString()} ${line}\n`)
  const publish = (change: Partial<InstallationState>) => {
    Object.assign(state, change, { processes: supervisor.status() })
    home.writeState(state)
  }
  const supervisor: Supervisor = new Supervisor({ log, onChange: () => publish({}) })
  const told = new Promise<void>((resolve) => {
    process.once('SIGTERM', () => resolve())
    process.once('SIGINT', () => resolve())
  })
  try {
    await refuseBadGround(config)
    await startAll({ config, home, env, supervisor, publish })
    publish({ phase: 'running', detail: 'healthy' })
    await told
    publish({ phase: 'stopping', detail: 'draining' })
    await supervisor.stop()
    home.clearState()
    return 0
  } catch (error) {
    const { message, exitCode } = outcomeOf(error)
    log(`could not start: ${message}`)
    await supervisor.stop()
    publish({ phase: 'failed', detail: message, exitCode })
    return exitCode
  }
}

type Start = {
  config: LauncherConfig
  home: Home
  env: NodeJS.ProcessEnv
  supervisor: Supervisor
  publish: (change: Partial<InstallationState>) => void
}

async function startAll({ config, home, env, supervisor, publish }: Start) {
  publish({ detail: 'starting Postgres and Redis' })
  // Settled, not all: one that still starts when the other has failed must be stopped with the rest.
  const servers = await Promise.allSettled([
    config.databaseUrl === undefined ? ownPostgres(home, supervisor) : Promise.resolve(config.databaseUrl),
    config.redisUrl === undefined ? ownRedis(home, supervisor, publish) : Promise.resolve(config.redisUrl),
    placeProgram(home.program, home.supervisorLog),
  ])
  const [databaseUrl, redisUrl, program] = [valueOf(servers[0]), valueOf(servers[1]), valueOf(servers[2])]
  publish({
    detail: 'starting the services',
    // One of your own may hold a password, and the state file is for everybody who may read the folder.
    ...(config.databaseUrl === undefined && { databaseUrl }),
    ...(config.redisUrl === undefined && { redisUrl }),
  })
  const groups = processGroups(config.shape, availableParallelism()).flatMap((group) =>
    Array.from({ length: group.copies }, (_, copy) => ({
      ...group,
      name: group.copies > 1 ? `${group.name}-${copy + 1}` : group.name,
    })),
  )
  for (let attempt = 1; ; attempt++) {
    const childEnv = await serviceEnvironment({ config, home, env, databaseUrl, redisUrl })
    const fronts = config.shape === 'single' ? await frontPorts(groups, env.PROXY_METRICS_PORT) : {}
    const frontUrls = Object.values(fronts).map((ports) => `http://127.0.0.1:${ports.PROXY_METRICS_PORT}`)
    if (frontUrls.length > 0) childEnv.EXPORTER_FRONT_URLS = frontUrls.join(',')
    const failures = await startGroups(groups, program, childEnv, fronts, home, supervisor)
    if (failures.length === 0) return
    if (attempt === START_ATTEMPTS || !failures.every(isPortTaken)) throw oneOf(failures)
    // Somebody took an internal port between our choice and the service's start: choose anew.
    await supervisor.discard(groups.map(({ name }) => name))
  }
}

/** Copies of the front share the door; the figures of each are on a port of its own, where the exporter finds them. */
async function frontPorts(
  groups: readonly ProcessGroup[],
  ofFirst: string | undefined,
): Promise<Record<string, NodeJS.ProcessEnv>> {
  const ports: Record<string, NodeJS.ProcessEnv> = {}
  for (const { name } of groups.filter(({ services }) => services.includes('proxy'))) {
    const given = Object.keys(ports).length === 0 ? ofFirst : undefined
    ports[name] = { PROXY_METRICS_PORT: given ?? String(await freePort()) }
  }
  return ports
}

/** Starts all of them. @returns why some did not start; what runs keeps running. */
async function startGroups(
  groups: readonly ProcessGroup[],
  program: string,
  childEnv: NodeJS.ProcessEnv,
  portsOf: Readonly<Record<string, NodeJS.ProcessEnv>>,
  home: Home,
  supervisor: Supervisor,
): Promise<Error[]> {
  // Settled, as above.
  const started = await Promise.allSettled(
    groups.map((group) =>
      supervisor.add(
        nodeProcess({
          name: group.name,
          args: [
            '--disable-warning=DEP0060',
            '--expose-gc',
            ...group.nodeOptions,
            program,
            'start',
            '--services',
            group.services.join(','),
          ],
          env: { ...childEnv, HAVEN_PROCESS: group.name, ...portsOf[group.name] },
          logFolder: home.logs,
          readyMs: READY_MS,
          drainMs: DRAIN_MS,
        }),
      ),
    ),
  )
  return started.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as Error] : []))
}

function valueOf<T>(outcome: PromiseSettledResult<T>): T {
  if (outcome.status === 'rejected') throw outcome.reason
  return outcome.value
}

const isPortTaken = (failure: Error) =>
  failure instanceof StartRefused && failure.exitCode === problems.portInUse.kind.exitCode

/** Everything that is wrong in one answer, when it is of one kind: each process tells only of its own settings. */
function oneOf(failures: readonly Error[]): Error {
  const [first] = failures
  if (!(first instanceof StartRefused)) return first!
  const alike = failures.filter((each) => each instanceof StartRefused && each.exitCode === first.exitCode)
  const said = new Set(alike.map(({ message }) => message))
  return said.size === 1 ? first : new StartRefused([...said].join('\n'), first.exitCode)
}

/** Where each service finds the others: internal ports of loopback, fixed for the life of the supervisor. */
async function serviceEnvironment(given: {
  config: LauncherConfig
  home: Home
  env: NodeJS.ProcessEnv
  databaseUrl: string
  redisUrl: string
}): Promise<NodeJS.ProcessEnv> {
  const { config, home, env, databaseUrl, redisUrl } = given
  const addresses: NodeJS.ProcessEnv = {}
  for (const name of serviceNames) {
    if (name === 'proxy') continue
    const variable = name.toUpperCase().replaceAll('-', '_')
    const port = String(await freePort())
    addresses[`${variable}_PORT`] = port
    addresses[`${variable}_URL`] = `http://127.0.0.1:${port}`
  }
  if (config.shape === 'split') {
    // In `single` core asks the proxy in its own process, and copies of the proxy cannot share a port that tells of one.
    const port = env.PROXY_METRICS_PORT ?? String(await freePort())
    addresses.PROXY_METRICS_PORT = port
    addresses.PORTAL_URL = `http://127.0.0.1:${port}/readyz`
  }
  // Ours: what it has read it keeps, as much again as the code itself.
  const { NODE_COMPILE_CACHE: _cache, ...withoutCache } = env
  const { PROXY_TLS_CERT: _cert, PROXY_TLS_KEY: _key, ...withoutFiles } = withoutCache
  return {
    PROXY_PORTAL_FOLDER: portalFolder,
    ...(config.tls === 'files' ? withoutCache : withoutFiles),
    ...addresses,
    ...home.secrets(),
    DATABASE_URL: databaseUrl,
    REDIS_URL: redisUrl,
    HAVEN_HOME: home.folder,
    HAVEN_ADMIN_PASSWORD: home.adminPassword(config.adminPassword),
    ...doorSettings(config, home),
    STORAGE_PATH: env.STORAGE_PATH ?? home.blobs,
    LOG_COLLECTOR_PATH: home.serviceLogs,
    UV_THREADPOOL_SIZE: env.UV_THREADPOOL_SIZE ?? '8',
  }
}

function doorSettings(config: LauncherConfig, home: Home): NodeJS.ProcessEnv {
  const { host, port, tls, httpPort } = config
  const common = { PROXY_HOST: host, PROXY_TLS: tls }
  if (tls === 'off') return { ...common, PROXY_PORT: String(port) }
  return {
    ...common,
    PROXY_TLS_PORT: String(port),
    PROXY_TLS_FOLDER: home.tls,
    ...(tls === 'self-signed' && { CORE_SELF_SIGNED_CERTIFICATE: home.certificate }),
    PROXY_TLS_REDIRECT: String(httpPort !== undefined),
    ...(httpPort !== undefined && { PROXY_PORT: String(httpPort) }),
  }
}

async function ownPostgres(home: Home, supervisor: Supervisor): Promise<string> {
  await endLeftOver(join(home.postgres, 'postmaster.pid'), 'SIGINT', DRAIN_MS)
  const place = { folder: home.postgres, port: await freePort() }
  await supervisor.add({
    name: 'postgres',
    async start() {
      const server = await startPostgres({ ...place, durable: true })
      return { ...server, stop: () => server.stop('SIGINT') }
    },
  })
  return postgresUrl(place, 'haven')
}

async function ownRedis(home: Home, supervisor: Supervisor, publish: Start['publish']): Promise<string> {
  const pidFile = join(home.redis, 'redis.pid')
  await endLeftOver(pidFile, 'SIGTERM', DRAIN_MS)
  const port = await freePort()
  const redis: Supervised = {
    name: 'redis',
    async start() {
      const onOutput = (text: string) => {
        if (text.startsWith('installing')) publish({ detail: text.trim() })
      }
      const server = await startRedis({ folder: home.redis, port, durable: true, onOutput })
      return { ...server, stop: () => server.stop('SIGTERM') }
    },
  }
  await supervisor.add(redis)
  return `redis://127.0.0.1:${port}`
}

async function refuseBadGround(config: LauncherConfig) {
  const { bavail, bsize } = statfsSync(config.home)
  if (bavail * bsize < MIN_FREE_BYTES) {
    const freeMiB = Math.floor((bavail * bsize) / 1024 / 1024)
    throw problems.diskFull({
      reason: `only ${freeMiB} MiB are free below ${config.home}; Haven needs 256 MiB to start`,
    })
  }
  await refuseTakenPort(config.host, config.port, 'HAVEN_PORT')
  if (config.httpPort !== undefined) await refuseTakenPort(config.host, config.httpPort, 'HAVEN_HTTP_PORT')
}

const refuseTakenPort = (host: string, port: number, setting: string) =>
  new Promise<void>((resolve, reject) => {
    const probe = createServer()
    probe.once('error', (cause: NodeJS.ErrnoException) => {
      const taken = cause.code === 'EADDRINUSE' ? problems.portInUse({ host, port, setting }, { cause }) : null
      reject(taken ?? problems.badUsage({ message: `cannot listen on ${host}:${port}: ${cause.message}` }, { cause }))
    })
    probe.listen(port, host, () => probe.close(() => resolve()))
  })

function openState(home: Home, config: LauncherConfig): InstallationState {
  const last = home.readState()
  if (last && last.phase !== 'failed' && last.pid !== process.pid && isAlive(last.pid)) {
    throw problems.alreadyRunning({ pid: last.pid })
  }
  const scheme = config.tls === 'off' ? 'http' : 'https'
  const address = config.externalUrl?.replace(/\/$/, '') ?? `${scheme}://${visibleHost(config.host)}:${config.port}`
  const door = `${scheme}://${everyAddress(config.host) ? '127.0.0.1' : bracketed(config.host)}:${config.port}`
  return {
    pid: process.pid,
    startedAt: new Date().toISOString(),
    address,
    door,
    phase: 'starting',
    detail: 'starting',
    processes: [],
  }
}

const everyAddress = (host: string) => host === '0.0.0.0' || host === '::'
const bracketed = (host: string) => (isIPv6(host) ? `[${host}]` : host)
const visibleHost = (host: string) => (everyAddress(host) ? 'localhost' : bracketed(host))

/** What to tell the person, and the exit code. Of a bug the log gets the stack. */
function outcomeOf(error: unknown): { message: string; exitCode: number } {
  if (error instanceof StartRefused) return error
  if (error instanceof NoRedis) {
    const problem = problems.programMissing({ program: 'redis-server', advice: error.message }, { cause: error })
    return { message: problem.message, exitCode: problem.kind.exitCode }
  }
  if (error instanceof Problem) return { message: error.message, exitCode: error.kind.exitCode }
  process.stderr.write(`${(error as Error).stack}\n`)
  return { message: (error as Error).message, exitCode: toProblem(error).kind.exitCode }
}
