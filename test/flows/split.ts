import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ADMIN_PASSWORD, freePort, freshDatabaseUrl, runHaven, testRedis } from '@haven/testkit'
import { Client, send, until, type Reply } from './client.ts'

export const serviceNames = [
  'token',
  'registry',
  'core',
  'jobservice',
  'registryctl',
  'exporter',
  'log-collector',
  'proxy',
] as const
export type ServiceName = (typeof serviceNames)[number]

export type Started = { name: ServiceName; child: ChildProcess; output: () => string; exited: Promise<number | string> }

const mainOf = (name: ServiceName) => fileURLToPath(new URL(`../../services/${name}/src/main.ts`, import.meta.url))
/** What the names of a service's settings begin with. */
export const variable = (name: ServiceName) => name.toUpperCase().replaceAll('-', '_')

/** Every service in a process of its own, started by its main.ts as a container does. */
export type Split = AsyncDisposable & {
  readonly client: Client
  /** Where the collector keeps the lines. */
  readonly logs: string
  readonly processes: readonly Started[]
  /** Where a service answers /metrics. */
  metricsUrl(name: ServiceName): string
}

/** @param more settings beside those that deploy/README.md asks for. @throws with what a service printed that did not become ready. */
export async function startSplit(more: Record<string, string> = {}): Promise<Split> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-split-'))
  const env = { ...(await splitEnvironment(folder)), ...more }
  const started: Started[] = []
  const stop = async () => {
    for (const { child } of started) child.kill('SIGKILL')
    await Promise.all(started.map(({ exited }) => exited))
    rmSync(folder, { recursive: true, force: true })
  }
  const metricsUrl = (name: ServiceName) =>
    `http://127.0.0.1:${name === 'proxy' ? env.PROXY_METRICS_PORT : env[`${variable(name)}_PORT`]}/metrics`
  try {
    await migrate(env)
    for (const name of serviceNames) started.push(startService(name, env))
    const died = (service: Started) =>
      service.exited.then((how) => Promise.reject(new Error(`${service.name} ended with ${how}: ${service.output()}`)))
    const ready = async ({ name }: Started) => {
      const ask = () => send(new URL('/readyz', metricsUrl(name)).href, 'GET').catch(() => null)
      await until(`${name} is ready`, ask, (reply: Reply | null) => reply?.status === 200, 80_000)
    }
    await Promise.all(started.map((service) => Promise.race([ready(service), died(service)])))
  } catch (error) {
    await stop()
    throw error
  }
  return {
    client: new Client(`http://127.0.0.1:${env.PROXY_PORT}`),
    logs: env.LOG_COLLECTOR_PATH!,
    processes: started,
    metricsUrl,
    [Symbol.asyncDispose]: stop,
  }
}

/** The environment that deploy/README.md asks for, with blobs on a disk. */
export async function splitEnvironment(folder: string): Promise<Record<string, string>> {
  const { url, prefix } = testRedis()
  const env: Record<string, string> = {
    PATH: process.env.PATH!,
    DATABASE_URL: freshDatabaseUrl(),
    REDIS_URL: url,
    REDIS_PREFIX: prefix,
    STORAGE_DRIVER: 'files',
    STORAGE_PATH: join(folder, 'blobs'),
    LOG_COLLECTOR_PATH: join(folder, 'logs'),
    HAVEN_ADMIN_PASSWORD: ADMIN_PASSWORD,
    PROXY_PORTAL_FOLDER: fileURLToPath(new URL('../../portal/public', import.meta.url)),
    PROXY_METRICS_PORT: String(await freePort()),
  }
  for (const secret of [
    'HAVEN_ENCRYPTION_KEY',
    'HAVEN_PROXY_SECRET',
    'CORE_SECRET',
    'JOBSERVICE_SECRET',
    'REGISTRYCTL_SECRET',
    'LOG_COLLECTOR_SECRET',
  ])
    env[secret] = randomBytes(32).toString('base64')
  for (const name of serviceNames) {
    const port = String(await freePort())
    env[`${variable(name)}_PORT`] = port
    if (name !== 'proxy') env[`${variable(name)}_URL`] = `http://127.0.0.1:${port}`
  }
  env.PORTAL_URL = `http://127.0.0.1:${env.PROXY_METRICS_PORT}/readyz`
  return env
}

/** @throws with what it printed when it fails. */
export async function migrate(env: Record<string, string>): Promise<void> {
  const { code, output } = await runHaven(['migrate'], env)
  if (code !== 0) throw new Error(`haven migrate ended with ${code}: ${output}`)
}

/** A service in a process of its own, by its main.ts. */
export function startService(name: ServiceName, env: Record<string, string>): Started {
  const child = spawn(process.execPath, ['--disable-warning=DEP0060', mainOf(name)], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
  const exited = new Promise<number | string>((resolve) =>
    child.once('exit', (code, signal) => resolve(code ?? signal ?? '')),
  )
  return { name, child, output: () => output, exited }
}
