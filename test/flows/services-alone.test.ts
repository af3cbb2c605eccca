import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, freePort, freshDatabaseUrl, runHaven, testRedis } from '@haven/testkit'
import { ADMIN, Client, send, until, type Reply } from './client.ts'

const names = ['token', 'registry', 'core', 'jobservice', 'registryctl', 'log-collector', 'proxy'] as const
type Name = (typeof names)[number]
type Started = { name: Name; child: ChildProcess; output: () => string; exited: Promise<number | string> }

const mainOf = (name: Name) => fileURLToPath(new URL(`../../services/${name}/src/main.ts`, import.meta.url))
const variable = (name: Name) => name.toUpperCase().replaceAll('-', '_')

/** The environment that deploy/README.md asks for, with blobs on a disk. */
async function environment(folder: string): Promise<Record<string, string>> {
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
  for (const name of names) {
    const port = String(await freePort())
    env[`${variable(name)}_PORT`] = port
    if (name !== 'proxy') env[`${variable(name)}_URL`] = `http://127.0.0.1:${port}`
  }
  env.PORTAL_URL = `http://127.0.0.1:${env.PROXY_METRICS_PORT}/readyz`
  return env
}

function start(name: Name, env: Record<string, string>): Started {
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

describe('each service in a process of its own, started by its main.ts', () => {
  let folder: string
  let env: Record<string, string>
  let started: Started[] = []
  let client: Client

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-alone-'))
    env = await environment(folder)
    const migrated = await runHaven(['migrate'], env)
    expect(migrated).toMatchObject({ code: 0, output: expect.stringContaining('applied') as unknown })
    started = names.map((name) => start(name, env))
    const died = (service: Started) =>
      service.exited.then((how) => Promise.reject(new Error(`${service.name} ended with ${how}: ${service.output()}`)))
    const ready = async ({ name }: Started) => {
      const port = name === 'proxy' ? env.PROXY_METRICS_PORT : env[`${variable(name)}_PORT`]
      const ask = () => send(`http://127.0.0.1:${port}/readyz`, 'GET').catch(() => null)
      await until(`${name} is ready`, ask, (reply: Reply | null) => reply?.status === 200, 40_000)
    }
    await Promise.all(started.map((service) => Promise.race([ready(service), died(service)])))
    client = new Client(`http://127.0.0.1:${env.PROXY_PORT}`)
  }, 60_000)

  afterAll(async () => {
    for (const { child } of started) child.kill('SIGKILL')
    await Promise.all(started.map(({ exited }) => exited))
    rmSync(folder, { recursive: true, force: true })
  })

  it('pushes and pulls through the proxy', async () => {
    const token = await client.token(ADMIN, 'library/app')
    const image = await client.pushImage('library/app', '1', token, 100_000)
    expect((await client.pull('library/app', '1', token)).headers.get('docker-content-digest')).toBe(image.digest)
    const blob = await fetch(`${client.url}/v2/library/app/blobs/${image.layer}`, {
      headers: { Authorization: `Bearer ${token}` },
    })
    expect([blob.status, (await blob.arrayBuffer()).byteLength]).toEqual([200, 100_000])
    expect([...blob.headers.keys()].filter((name) => name.startsWith('x-haven'))).toEqual([])
  })

  it('tells that every part is well', async () => {
    const { json } = await client.mustApi('GET', '/health', null)
    const { status, components } = json as { status: string; components: { name: string }[] }
    expect(status).toBe('healthy')
    expect(components.map(({ name }) => name)).toEqual([
      'core',
      'database',
      'jobservice',
      'portal',
      'redis',
      'registry',
      'registryctl',
    ])
  })

  it('runs a job across jobservice and registryctl', async () => {
    const run = await client.mustApi('POST', '/system/gc/schedule', ADMIN, {
      schedule: { type: 'Manual' },
      parameters: { dry_run: true },
    })
    await until(
      'the dry run',
      async () =>
        (await client.api('GET', run.headers.get('location')!.replace('/api/v2.0', ''))).json as { job_status: string },
      ({ job_status: status }) => status === 'Success',
    )
  })

  it('finds the lines of all of them, and makes none by asking', async () => {
    const logs = async (query: string) =>
      (
        (await send(`${client.url}/api/haven/v1/logs?limit=1000&${query}`, 'GET', { as: ADMIN })).json as {
          lines: { service: string; message: string }[]
        }
      ).lines
    await until(
      'a line of each',
      async () => new Set((await logs('')).map(({ service }) => service)),
      (services) => names.every((name) => services.has(name)),
    )
    // The proxy's access lines keep coming; the collector, who is sent them, says nothing about it.
    expect((await logs('service=log-collector')).map(({ message }) => message)).toEqual(['log-collector is ready'])
  })

  it('stops each when it is asked to, with exit code 0', async () => {
    for (const { child } of started) child.kill('SIGTERM')
    const codes = await Promise.all(
      started.map(async ({ name, exited, output }) => [name, await exited, output().includes('"level":"error"')]),
    )
    expect(codes).toEqual(names.map((name) => [name, 0, false]))
  }, 40_000)
})
