import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { freePort, postgresPrograms } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { startDocker29, type DockerEngine } from '../clients/docker-engine.ts'
import { buildImage } from '../clients/images.ts'
import { must } from '../clients/tools.ts'
import { addCompose, bundle, imageTools, importBase, importImage, root } from './images.ts'

const lack = lacking(...imageTools)
const suite = lack ? describe.skip : describe

/** Plays Postgres', Redis' and MinIO's images to compose.yaml: what is asked of theirs, by the programs of this machine. */
const start = `#!/bin/sh
set -e
case "$1" in
redis-server) exec "$@" ;;
server)
  export ROOT_ACCESS_KEY=$(cat "$MINIO_ROOT_USER_FILE") ROOT_SECRET_KEY=$(cat "$MINIO_ROOT_PASSWORD_FILE")
  exec versitygw -q -p :9000 posix /data ;;
esac
data=/var/lib/postgresql/18
if [ ! -s $data/PG_VERSION ]; then
  /postgres/bin/initdb -D $data -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=trust --no-sync
  echo 'host all all all scram-sha-256' >>$data/pg_hba.conf
  echo "create database $POSTGRES_DB" | /postgres/bin/postgres --single -D $data postgres
fi
exec /postgres/bin/postgres -D $data -h 0.0.0.0 -k /var/run/postgresql
`
const answers = (port: number) => `#!/bin/sh\nexec nc -w 1 127.0.0.1 ${port} </dev/null\n`

type Container = { Service: string; State: string; ExitCode: number; Health: string }
type Service = {
  image: string
  read_only: boolean
  cap_drop: string[]
  security_opt: string[]
  mem_limit: string
  pids_limit: number
  environment?: Record<string, string>
  networks: Record<string, unknown>
  ports?: { host_ip: string; published: string; target: number }[]
  secrets?: { source: string }[]
  privileged?: boolean
}
type Config = { services: Record<string, Service>; networks: Record<string, { internal?: boolean }> }

suite(titled('compose.yaml', lack), () => {
  let engine: DockerEngine
  let folder: string
  let env: Record<string, string>
  let host: string
  let printed: string

  const compose = (...args: string[]) =>
    engine.mustDocker(['compose', '-f', join(root, 'deploy/compose/compose.yaml'), ...args], { env })
  const config = async () => JSON.parse(await compose('config', '--format', 'json')) as Config
  const containers = async () => {
    const lines = (await compose('ps', '--all', '--format', 'json')).trim().split('\n')
    return lines.map((line) => JSON.parse(line) as Container)
  }
  /** As a person types it; what `make` gives to its own children would say otherwise. */
  const make = (target: string, args = '') =>
    must('make', [target, `ARGS=${args}`], { cwd: root, env: { ...engine.env, ...env, MAKEFLAGS: '' } })
  const up = () =>
    // Bundles are made here, not in a container, which would fetch packages.
    make('compose-up', `--load --allow=fs.read=${env.BUNDLES}`).catch(async (error: Error) => {
      throw new Error(`${error.message}\n${await compose('logs', '--tail', '20')}`)
    })
  const secret = (name: string) => readFileSync(join(folder, 'secrets', name), 'utf8')
  const api = (path: string) =>
    fetch(`http://${host}${path}`, {
      headers: { authorization: `Basic ${Buffer.from(`admin:${secret('admin-password')}`).toString('base64')}` },
    })

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-compose-'))
    const port = await freePort()
    host = `127.0.0.1:${port}`
    env = {
      HAVEN_PROJECT: `haven-${port}`,
      HAVEN_PORT: String(port),
      HAVEN_SECRETS: join(folder, 'secrets'),
      BUNDLES: join(folder, 'bundles'),
      BUILDX_NO_DEFAULT_ATTESTATIONS: '1',
    }
    engine = await startDocker29()
    addCompose(engine)
  }, 120_000)
  afterAll(async () => {
    if (env) await compose('down', '--volumes', '--timeout', '5').catch(() => undefined)
    await engine?.[Symbol.asyncDispose]()
    rmSync(folder, { recursive: true, force: true })
  }, 120_000)

  it('gives no container more than it needs', async () => {
    const { services } = await config()
    expect(Object.keys(services).length).toBeGreaterThan(10)
    for (const [name, service] of Object.entries(services)) {
      expect([name, service]).toEqual([
        name,
        expect.objectContaining({
          read_only: true,
          cap_drop: ['ALL'],
          security_opt: ['no-new-privileges:true'],
          pids_limit: 200,
          mem_limit: expect.stringMatching(/^\d{9,}$/) as unknown,
        }),
      ])
      expect([name, service.privileged]).toEqual([name, undefined])
    }
  })

  it('lets nobody in but through the proxy, and only those to the data who work on it', async () => {
    const { services, networks } = await config()
    const published = Object.entries(services).filter(([, { ports }]) => ports !== undefined)
    expect(published.map(([name, { ports }]) => [name, ports!.map((port) => [port.host_ip, port.target])])).toEqual([
      ['proxy', [['127.0.0.1', 8080]]],
    ])
    const on = (network: string) =>
      Object.keys(services)
        .filter((name) => network in services[name]!.networks)
        .sort()
    const closed = Object.keys(networks).filter((name) => networks[name]!.internal === true)
    expect(Object.fromEntries(closed.sort().map((name) => [name, on(name)]))).toEqual({
      records: ['core', 'exporter', 'jobservice', 'migrate', 'postgres', 'redis', 'registry', 'registryctl', 'token'],
      services: ['core', 'exporter', 'jobservice', 'log-collector', 'proxy', 'registry', 'registryctl', 'token'],
      store: ['core', 'minio', 'proxy', 'registry', 'registryctl'],
    })
    expect([on('door'), on('outside')]).toEqual([['proxy'], ['core', 'jobservice', 'registry', 'token']])
  })

  it('names every version, and gives secrets as files only to those who use them', async () => {
    const { services } = await config()
    for (const { image } of Object.values(services)) expect(image).toMatch(/:(?!latest$)[\w.-]+$/)
    const used = Object.entries(services).flatMap(([name, { environment = {}, secrets = [] }]) =>
      secrets
        .filter(({ source }) => !Object.values(environment).includes(`/run/secrets/${source}`))
        .map(({ source }) => `${name} ${source}`),
    )
    expect(used).toEqual(['redis redis.conf', 'redis redis-password']) // by its command and its health check
    const named = Object.values(services).flatMap(({ environment = {} }) =>
      Object.keys(environment).filter((key) => /SECRET|PASSWORD|KEY|DATABASE_URL|REDIS_URL/.test(key)),
    )
    expect(named.filter((key) => !key.endsWith('_FILE'))).toEqual([])
  })

  it('comes up healthy by `make compose-up`, which builds what is missing, with secrets made once, and tells how to push', async () => {
    const { services } = await config()
    const theirs = ['postgres', 'redis', 'minio'].map((name) => services[name]!.image)
    await Promise.all([importBase(engine), bundle(join(folder, 'bundles')), importStandIns(engine, theirs)])
    const first = await up()
    printed = first
    const texts = () => readdirSync(env.HAVEN_SECRETS!).map((name) => [name, secret(name)])
    const made = texts()
    expect(new Set(made.map(([, text]) => text)).size).toBe(made.length)
    expect(first).not.toContain(secret('admin-password'))
    expect(statSync(env.HAVEN_SECRETS!).mode & 0o777).toBe(0o700)
    await up()
    expect(texts()).toEqual(made)
    const all = await containers()
    expect(all.filter(({ Service }) => Service !== 'migrate').map(({ Service, Health }) => [Service, Health])).toEqual(
      all.filter(({ Service }) => Service !== 'migrate').map(({ Service }) => [Service, 'healthy']),
    )
    expect(all.find(({ Service }) => Service === 'migrate')).toMatchObject({ State: 'exited', ExitCode: 0 })
  }, 400_000)

  it('takes the first push as it is printed, and gives it back, through the proxy', async () => {
    await buildImage(engine, 'alpine', 'hello from haven')
    const commands = [...printed.matchAll(/^  docker (.*)$/gm)].map(([, args]) => args!.split(' '))
    expect(commands.map(([verb]) => verb)).toEqual(['login', 'tag', 'push'])
    for (const [verb, ...args] of commands) {
      if (verb === 'login')
        await engine.mustDocker([verb, ...args, '--password-stdin'], { input: secret('admin-password') })
      else await engine.mustDocker([verb!, ...args])
    }
    const image = commands.at(-1)!.at(-1)!
    await engine.mustDocker(['rmi', image])
    await engine.mustDocker(['pull', image])
    expect(await engine.mustDocker(['run', '--rm', '--network', 'none', image])).toBe('hello from haven\n')
  }, 60_000)

  it('works in every part, and keeps the lines of each service', async () => {
    const health = (await (await api('/api/v2.0/health')).json()) as { status: string; components: unknown[] }
    expect(health).toMatchObject({ status: 'healthy' })
    expect(health.components).toHaveLength(7)
    expect((await api('/devcenter-api-2.0/swagger-ui-bundle.js')).status).toBe(200)
    // The page whatever is asked for, and never the code beside the explorer's files.
    expect((await api('/devcenter-api-2.0/main.js')).headers.get('content-type')).toContain('text/html')
    expect((await api('/swagger.json')).status).toBe(200)
    expect((await api('/')).headers.get('content-type')).toContain('text/html')
    const { lines } = (await (await api('/api/haven/v1/logs?limit=1000')).json()) as { lines: { service: string }[] }
    expect([...new Set(lines.map(({ service }) => service))].sort()).toEqual([
      'core',
      'exporter',
      'jobservice',
      'log-collector',
      'proxy',
      'registry',
      'registryctl',
      'token',
    ])
  }, 30_000)

  it('stops cleanly', async () => {
    await compose('stop')
    const ours = (await containers()).filter(({ Service }) => !['postgres', 'redis', 'minio'].includes(Service))
    expect(ours.map(({ Service, ExitCode }) => [Service, ExitCode])).toEqual(ours.map(({ Service }) => [Service, 0]))
    expect(ours).toHaveLength(9)
  }, 120_000)

  it('goes by `make compose-down`, and its data only when that is asked for', async () => {
    const volumes = async () =>
      (await engine.mustDocker(['volume', 'ls', '-q', '--filter', `name=^${env.HAVEN_PROJECT}_`]))
        .split('\n')
        .filter(Boolean)
    await make('compose-down')
    expect(await engine.mustDocker(['ps', '--all', '-q'])).toBe('')
    expect(await volumes()).toHaveLength(4)
    await make('compose-down', '--volumes')
    expect(await volumes()).toEqual([])
  }, 60_000)
})

async function importStandIns(engine: DockerEngine, [first, ...more]: readonly string[]): Promise<void> {
  await importImage(engine, first!, {
    programs: ['redis-server', 'redis-cli', 'versitygw', 'busybox'].map((name) => findTool(name)!),
    links: { busybox: ['sh', 'cat', 'grep', 'nc'] },
    folders: { [dirname(postgresPrograms())]: 'postgres' },
    scripts: { 'bin/start': start, 'bin/pg_isready': answers(5432), 'bin/mc': answers(9000) },
    users: ['postgres', 'redis'],
    writable: ['data', 'var/run/postgresql', 'var/lib/postgresql'],
    changes: ['ENTRYPOINT ["/bin/start"]'],
  })
  for (const name of more) await engine.mustDocker(['tag', first!, name])
}
