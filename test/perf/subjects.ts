import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ADMIN_PASSWORD, freePort, startHaven } from '@haven/testkit'

/** A running registry to measure. `roots`: the processes whose trees count as its own. */
export type Subject = AsyncDisposable & {
  readonly name: string
  readonly port: number
  readonly roots: readonly number[]
  /** Headers that a client of it sends for this repository; read afresh, since tokens end. */
  headers(repository: string): Promise<Record<string, string>>
}

/** Haven as `make up` starts it: durable, with token checks, audit and its own Postgres, all of which count as its CPU. */
export async function haven(shape: 'single' | 'split'): Promise<Subject & { readonly home: string }> {
  const installation = await startHaven({ shape })
  const state = JSON.parse(readFileSync(join(installation.home, 'state.json'), 'utf8')) as { pid: number }
  const credentials = Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')
  return {
    name: shape === 'single' ? 'Haven' : 'Haven, split',
    port: Number(new URL(installation.url).port),
    roots: [state.pid],
    home: installation.home,
    async headers(repository) {
      const scope = `repository:${repository}:pull,push`
      const answer = await fetch(`${installation.url}/service/token?service=harbor-registry&scope=${scope}`, {
        headers: { authorization: `Basic ${credentials}` },
      })
      const { token } = (await answer.json()) as { token: string }
      return { authorization: `Bearer ${token}` }
    },
    [Symbol.asyncDispose]: () => installation[Symbol.asyncDispose](),
  }
}

/**
 * Debian's docker-registry (Distribution 2.8) behind Debian's nginx: file store, descriptors cached in memory, access log off, no authentication,
 * upstream keep-alive, buffering off. Kind to it: a Harbor has none of these.
 */
export async function distributionBehindNginx(): Promise<Subject> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-peer-'))
  const [registryPort, port] = [await freePort(), await freePort()]
  mkdirSync(join(folder, 'data'))
  writeFileSync(
    join(folder, 'registry.yml'),
    JSON.stringify({
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: join(folder, 'data') }, cache: { blobdescriptor: 'inmemory' } },
      http: { addr: `127.0.0.1:${registryPort}`, relativeurls: true },
    }),
  )
  writeFileSync(join(folder, 'nginx.conf'), nginxConf(folder, registryPort, port))
  const registry = spawn('docker-registry', ['serve', join(folder, 'registry.yml')], {
    stdio: 'ignore',
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
  })
  const nginx = spawn('/usr/sbin/nginx', ['-p', folder, '-c', join(folder, 'nginx.conf'), '-g', 'daemon off;'], {
    stdio: 'ignore',
  })
  await answers(port)
  return {
    name: 'nginx + Distribution 2.8',
    port,
    roots: [registry.pid!, nginx.pid!],
    headers: async () => ({}),
    async [Symbol.asyncDispose]() {
      await Promise.all([ended(nginx, 'SIGQUIT'), ended(registry, 'SIGTERM')])
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

const nginxConf = (folder: string, upstream: number, port: number) => `
user root;
worker_processes auto;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log error;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path ${folder}/body;
  proxy_temp_path ${folder}/proxy;
  fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi;
  scgi_temp_path ${folder}/scgi;
  upstream registry { server 127.0.0.1:${upstream}; keepalive 64; }
  server {
    listen 127.0.0.1:${port};
    client_max_body_size 0;
    location / {
      proxy_pass http://registry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_buffering off;
      proxy_request_buffering off;
    }
  }
}
`

async function answers(port: number) {
  const deadline = performance.now() + 20_000
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => null)
    if (answer?.ok) return
    if (performance.now() > deadline) throw new Error('the peer did not answer within 20 s')
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  return new Promise((resolve) => {
    child.once('exit', () => resolve())
    child.kill(signal)
  })
}
