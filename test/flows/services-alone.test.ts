import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN, send, until, type Client } from './client.ts'
import { serviceNames, startSplit, type Split } from './split.ts'

describe('each service in a process of its own, started by its main.ts', () => {
  let platform: Split
  let client: Client

  beforeAll(async () => {
    platform = await startSplit()
    client = platform.client
  }, 120_000)

  afterAll(async () => {
    await platform?.[Symbol.asyncDispose]()
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
      (services) => serviceNames.every((name) => services.has(name)),
    )
    // The proxy's access lines keep coming; the collector, who is sent them, says nothing about it.
    expect((await logs('service=log-collector')).map(({ message }) => message)).toEqual(['log-collector is ready'])
  })

  it('stops each when it is asked to, with exit code 0', async () => {
    for (const { child } of platform.processes) child.kill('SIGTERM')
    const codes = await Promise.all(
      platform.processes.map(async ({ name, exited, output }) => [
        name,
        await exited,
        output().includes('"level":"error"'),
      ]),
    )
    expect(codes).toEqual(serviceNames.map((name) => [name, 0, false]))
  }, 40_000)
})
