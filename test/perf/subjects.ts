import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ADMIN_PASSWORD, freePort, startHaven, type HavenInstallation } from '@haven/testkit'
import { call } from './http.ts'
import { floorProgram, tool } from './programs.ts'

export const subjectNames = {
  haven: 'Haven',
  split: 'Haven, split',
  'haven-tls': 'Haven, TLS',
  D2: 'nginx + Distribution 2.8',
  D3: 'Distribution 3.1',
  N3: 'nginx + Distribution 3.1',
  H: 'Harbor-shaped floor',
  'N3-tls': 'nginx TLS + Distribution 3.1',
  static: 'nginx, static file',
  'static-tls': 'nginx TLS, static file',
} as const

export type SubjectKey = keyof typeof subjectNames

/** A running registry to measure. `roots`: the processes whose trees count as its own. */
export type Subject = AsyncDisposable & {
  readonly key: SubjectKey
  readonly port: number
  readonly tls: boolean
  readonly roots: readonly number[]
  /** Headers that a client of it sends; read afresh, since tokens end. */
  headers(scope: Scope): Promise<Record<string, string>>
  /** Where a client gets a token; null when it asks for none. */
  readonly token: ((scope: Scope) => { path: string; authorization: string }) | null
  /** Removes the bytes of large blobs that were pushed since a time; nobody reads them again, and disks are finite. */
  sweep(since: number): void
  /** Of static files: puts one there. */
  readonly put?: (name: string, bytes: Buffer) => void
  readonly installation?: HavenInstallation
  /** Of a Distribution: the root of its file store. */
  readonly dataFolder?: string
}

export type Scope = { repositories: readonly string[]; actions: string } | 'catalog' | 'none'

const SWEPT_BYTES = 1024 * 1024

/** Haven as `make up` starts it: durable, with token checks, access log, audit and its own Postgres, all of which count as its CPU. */
export async function haven(key: 'haven' | 'split' | 'haven-tls', env: Record<string, string> = {}): Promise<Subject> {
  const tls = key === 'haven-tls'
  const installation = await startHaven({
    shape: key === 'split' ? 'split' : 'single',
    env: { ...(tls && { HAVEN_TLS: 'self-signed' }), ...env },
  })
  const { pid } = JSON.parse(readFileSync(join(installation.home, 'state.json'), 'utf8')) as { pid: number }
  const authorization = `Basic ${Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')}`
  const port = Number(new URL(installation.url).port)
  const token = (scope: Scope) => {
    const scopes =
      scope === 'catalog'
        ? ['registry:catalog:*']
        : scope === 'none'
          ? []
          : scope.repositories.map((repository) => `repository:${repository}:${scope.actions}`)
    return {
      path: `/service/token?service=harbor-registry&${scopes.map((s) => `scope=${s}`).join('&')}`,
      authorization,
    }
  }
  return known({
    key,
    port,
    tls,
    roots: [pid],
    installation,
    token,
    async headers(scope) {
      if (scope === 'none') return {}
      const { path } = token(scope)
      const answer = await call({ port, tls }, 'GET', path, { headers: { authorization } })
      return { authorization: `Bearer ${(JSON.parse(answer.body.toString()) as { token: string }).token}` }
    },
    sweep: (since) => sweep(join(installation.home, 'blobs'), since),
    [Symbol.asyncDispose]: () => installation[Symbol.asyncDispose](),
  })
}

/** Who runs now: a measurement that is interrupted stops them, since nobody else would. */
const running = new Set<AsyncDisposable>()
export const stopAll = () => Promise.all([...running].map((each) => each[Symbol.asyncDispose]()))

/** The same, known to `stopAll` until it stops. */
function known(subject: Subject): Subject {
  const stop = () => subject[Symbol.asyncDispose]()
  const wrapped: Subject = {
    ...subject,
    async [Symbol.asyncDispose]() {
      if (running.delete(wrapped)) await stop()
    },
  }
  running.add(wrapped)
  return wrapped
}

type Peer = { folder: string; processes: ChildProcess[]; port: number; tls?: boolean }

function peer(key: SubjectKey, { folder, processes, port, tls = false }: Peer, more: Partial<Subject> = {}): Subject {
  return known({
    key,
    port,
    tls,
    roots: processes.map(({ pid }) => pid!),
    token: null,
    headers: async () => ({}),
    dataFolder: join(folder, 'data'),
    sweep: (since) => sweep(join(folder, 'data'), since),
    ...more,
    async [Symbol.asyncDispose]() {
      for (const each of processes.toReversed()) await ended(each)
      rmSync(folder, { recursive: true, force: true })
    },
  })
}

const newFolder = () => {
  const folder = mkdtempSync(join(tmpdir(), 'haven-peer-'))
  mkdirSync(join(folder, 'data'))
  return folder
}

type RegistrySettings = { storage?: object; auth?: object; redis?: object }

/** Distribution with its file store, which syncs what it writes; access log off, as is kind to it, and errors to nowhere. */
async function distribution(binary: string, folder: string, more: RegistrySettings = {}) {
  const port = await freePort()
  const config = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    http: { addr: `127.0.0.1:${port}`, relativeurls: true, secret: 'perf' },
    ...more,
    storage: {
      filesystem: { rootdirectory: join(folder, 'data') },
      cache: { blobdescriptor: 'inmemory' },
      delete: { enabled: true },
      ...more.storage,
    },
  }
  writeFileSync(join(folder, 'registry.yml'), JSON.stringify(config))
  const child = spawn(tool(binary), ['serve', join(folder, 'registry.yml')], {
    stdio: 'ignore',
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  })
  return { port, child }
}

/** Distribution 3.1 with nothing before it: no authentication, no TLS, no access log. */
export async function distribution3(): Promise<Subject> {
  const folder = newFolder()
  const { port, child } = await distribution('registry', folder)
  await answers(port)
  return peer('D3', { folder, processes: [child], port })
}

/** A Distribution behind nginx, as kind to it as nginx can be set: upstream keep-alive, buffering off, log off. */
export async function behindNginx(key: 'D2' | 'N3' | 'N3-tls', certificate?: Certificate): Promise<Subject> {
  const folder = newFolder()
  const { port: upstream, child } = await distribution(key === 'D2' ? 'docker-registry' : 'registry', folder)
  const port = await freePort()
  const tls = key === 'N3-tls'
  const nginx = startNginx(
    folder,
    `
  access_log off;
  upstream registry { server 127.0.0.1:${upstream}; keepalive 64; }
  server {
    ${listen(port, tls ? certificate : undefined)}
    keepalive_requests 1000000;
    client_max_body_size 0;
    location / {
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_buffering off;
      proxy_request_buffering off;
    }
  }`,
  )
  await answers(port, tls)
  return peer(key, { folder, processes: [child, nginx], port, tls })
}

/** bcrypt, cost 5, of FLOOR_PASSWORD: what Harbor's installer writes for its registry. */
const FLOOR_HASH = '$2y$05$66TkT77n.w5z1vrGWJdiT.JM5TEv0Sg8x9UjlWPSQmFG4JtFUrQ7K'
const FLOOR_USER = 'harbor_registry_user'
const FLOOR_PASSWORD = 'floor'

/**
 * Harbor's data path with less than it does: nginx as Harbor's template sets it (no upstream keep-alive, access log on), the hop of core, and
 * Distribution 2.8 with Harbor's settings (htpasswd with bcrypt of cost 5, Redis cache). No database, token, quota, event.
 */
export async function harborFloor(): Promise<Subject> {
  const folder = newFolder()
  const redisPort = await freePort()
  const redis = spawn(
    tool('redis-server'),
    ['--port', String(redisPort), '--bind', '127.0.0.1', '--save', '', '--dir', folder],
    { stdio: 'ignore' },
  )
  writeFileSync(join(folder, 'htpasswd'), `${FLOOR_USER}:${FLOOR_HASH}\n`)
  await until('redis-server', async () => (await listens(redisPort)) || null)
  const { port: registryPort, child } = await distribution('docker-registry', folder, {
    storage: { cache: { layerinfo: 'redis' } },
    redis: {
      addr: `127.0.0.1:${redisPort}`,
      db: 1,
      dialtimeout: '10s',
      readtimeout: '10s',
      writetimeout: '10s',
      pool: { maxidle: 100, maxactive: 500, idletimeout: '60s' },
    },
    auth: { htpasswd: { realm: 'harbor-registry-basic-realm', path: join(folder, 'htpasswd') } },
  })
  const [corePort, port] = [await freePort(), await freePort()]
  const core = spawn(
    floorProgram,
    [`127.0.0.1:${corePort}`, `http://127.0.0.1:${registryPort}`, FLOOR_USER, FLOOR_PASSWORD],
    { stdio: 'ignore' },
  )
  const nginx = startNginx(
    folder,
    `
  tcp_nodelay on;
  proxy_http_version 1.1;
  upstream core { server 127.0.0.1:${corePort}; }
  log_format timed_combined '$remote_addr - "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" $request_time $upstream_response_time $pipe';
  access_log ${folder}/access.log timed_combined;
  server {
    listen 127.0.0.1:${port};
    server_tokens off;
    client_max_body_size 0;
    chunked_transfer_encoding on;
    location /v2/ {
      proxy_pass http://core/v2/;
      proxy_set_header Host $http_host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_send_timeout 900;
      proxy_read_timeout 900;
    }
  }`,
    'worker_connections 3096; use epoll; multi_accept on;',
  )
  await answers(port)
  return peer('H', { folder, processes: [redis, child, core, nginx], port })
}

/** nginx serving files itself by sendfile: what no registry can be faster than in C. */
export async function staticFiles(key: 'static' | 'static-tls', certificate?: Certificate): Promise<Subject> {
  const folder = newFolder()
  const port = await freePort()
  const tls = key === 'static-tls'
  const nginx = startNginx(
    folder,
    `
  access_log off;
  sendfile on;
  tcp_nopush on;
  server {
    ${listen(port, tls ? certificate : undefined)}
    keepalive_requests 1000000;
    root ${folder}/data;
    location = /v2/ { return 200; }
  }`,
  )
  await answers(port, tls)
  return peer(
    key,
    { folder, processes: [nginx], port, tls },
    { put: (name, bytes) => writeFileSync(join(folder, 'data', name), bytes, { flush: true }) },
  )
}

export type Certificate = { cert: string; key: string }

/** Made by `haven up`, so that everybody pays for the same kind of key. */
export const certificateOf = ({ home }: HavenInstallation): Certificate => ({
  cert: join(home, 'tls/tls.pem'),
  key: join(home, 'tls/tls.pem'),
})

const listen = (port: number, certificate?: Certificate) =>
  certificate
    ? `listen 127.0.0.1:${port} ssl; ssl_certificate ${certificate.cert}; ssl_certificate_key ${certificate.key};`
    : `listen 127.0.0.1:${port};`

function startNginx(folder: string, http: string, events = 'worker_connections 1024;'): ChildProcess {
  const asRoot = process.getuid?.() === 0 ? 'user root;' : ''
  const text = `${asRoot}
worker_processes auto;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log error;
events { ${events} }
http {
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
${http}
}
`
  writeFileSync(join(folder, 'nginx.conf'), text)
  return spawn(tool('nginx'), ['-p', folder, '-c', join(folder, 'nginx.conf'), '-g', 'daemon off;'], {
    stdio: 'ignore',
  })
}

/** Versions of what is measured, for the report. */
export function versions(): string {
  const said = (name: string, ...args: string[]) => execFileSync(tool(name), args, { encoding: 'utf8' }).trim()
  const nginx = execFileSync('sh', ['-c', `${tool('nginx')} -v 2>&1`], { encoding: 'utf8' }).trim()
  return [
    said('registry', '--version').split(' ').slice(1).join(' '),
    said('docker-registry', '--version').split(' ').slice(1).join(' '),
    nginx.replace('nginx version: ', ''),
    said('redis-server', '--version').split(' ').slice(0, 3).join(' '),
  ].join('; ')
}

function sweep(folder: string, since: number) {
  if (!existsSync(folder)) return // bytes are in an object store
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const file = join(entry.parentPath, entry.name)
    const { size, mtimeMs } = statSync(file, { throwIfNoEntry: false }) ?? { size: 0, mtimeMs: 0 }
    if (size >= SWEPT_BYTES && mtimeMs >= since) truncateSync(file)
  }
}

const READY_WITHIN_MS = 20_000

async function until(what: string, attempt: () => Promise<unknown>) {
  const deadline = performance.now() + READY_WITHIN_MS
  while ((await attempt()) === null) {
    if (performance.now() > deadline) throw new Error(`${what} did not answer within ${READY_WITHIN_MS / 1000} s`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const answers = (port: number, tls = false) =>
  until('the peer', async () => {
    const answer = await call({ port, tls }, 'GET', '/v2/').catch(() => null)
    return answer?.status === 200 ? answer : null
  })

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}

function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once('exit', () => resolve())
    child.kill('SIGTERM')
  })
}
