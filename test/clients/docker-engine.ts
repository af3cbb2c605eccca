import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, openSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findTool } from '@haven/testkit/tools'
import { startContainerd, type Containerd } from './containerd.ts'
import { must, run, type RunOptions } from './tools.ts'

export type DockerEngine = AsyncDisposable & {
  /** By which clients find the engine and their settings. */
  readonly env: { readonly DOCKER_HOST: string; readonly DOCKER_CONFIG: string }
  docker(args: readonly string[], options?: RunOptions): ReturnType<typeof run>
  mustDocker(args: readonly string[], options?: RunOptions): Promise<string>
}

type Parts = {
  folder: string
  daemon: string
  client: string
  args?: readonly string[]
  env?: Record<string, string>
  ofDaemon?: Record<string, string>
  containerd?: Containerd
  /** Without one, containers have no network of their own. */
  bridge?: string
}

const READY_MS = 60_000

/** What engine 29 needs, for `lacking`. */
export const engine29Tools = ['dockerd29', 'docker-proxy29', 'docker', 'docker-buildx', 'runc15', 'containerd', 'ctr']

/** Debian's engine (20.10) with its builder of old, and whichever client is in the PATH. */
export const startDocker20 = () =>
  start({
    folder: newFolder(),
    daemon: findTool('dockerd')!,
    client: findTool('docker')!,
    env: { DOCKER_BUILDKIT: '0' },
  })

/** Engine 29: images in containerd, BuildKit by the plug-in buildx. `daemon` is added to the environment of the engine itself. */
export async function startDocker29(options: { daemon?: Record<string, string> } = {}): Promise<DockerEngine> {
  const folder = newFolder()
  mkdirSync(join(folder, 'config/cli-plugins'))
  symlinkSync(findTool('docker-buildx')!, join(folder, 'config/cli-plugins/docker-buildx'))
  const containerd = await startContainerd(folder)
  const runtime = ['--add-runtime', `runc15=${findTool('runc15')!}`, '--default-runtime', 'runc15']
  const bridge = await addBridge()
  return start({
    bridge,
    folder,
    daemon: findTool('dockerd29')!,
    client: findTool('docker')!,
    args: ['--containerd', containerd.socket, ...runtime, '--userland-proxy-path', findTool('docker-proxy29')!],
    env: { DOCKER_BUILDKIT: '1' },
    ofDaemon: options.daemon ?? {},
    containerd,
  })
}

function newFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'haven-docker-'))
  mkdirSync(join(folder, 'config'))
  return folder
}

/** A network that ends in this machine: BuildKit runs generators of SBOMs in the engine's own. */
async function addBridge(): Promise<string> {
  const name = `hv${Math.floor(Math.random() * 16 ** 8).toString(16)}`
  await must('ip', ['link', 'add', 'name', name, 'type', 'bridge'])
  await must('ip', ['address', 'add', `10.${process.pid % 200}.${Math.floor(Math.random() * 250)}.1/24`, 'dev', name])
  await must('ip', ['link', 'set', name, 'up'])
  return name
}

/** An engine of the test's own: socket, data and client configuration in a temporary folder, no firewall rules. */
async function start({
  folder,
  daemon: file,
  client,
  args = [],
  env: more,
  ofDaemon,
  containerd,
  bridge,
}: Parts): Promise<DockerEngine> {
  const socket = `unix://${folder}/docker.sock`
  const log = openSync(join(folder, 'dockerd.log'), 'a')
  const daemon = spawn(
    file,
    [
      ...['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec'), '-H', socket],
      ...['-p', join(folder, 'docker.pid'), `--bridge=${bridge ?? 'none'}`],
      ...['--iptables=false', '--ip6tables=false', ...args],
    ],
    { stdio: ['ignore', log, log], env: { ...process.env, ...ofDaemon } },
  )
  const gone = new Promise<void>((resolve) => daemon.once('exit', () => resolve()))
  const env = { DOCKER_HOST: socket, DOCKER_CONFIG: join(folder, 'config'), ...more }
  const engine: DockerEngine = {
    env,
    docker: (args, options = {}) => run(client, args, { ...options, env: { ...env, ...options.env } }),
    mustDocker: (args, options = {}) => must(client, args, { ...options, env: { ...env, ...options.env } }),
    async [Symbol.asyncDispose]() {
      daemon.kill('SIGTERM')
      await gone
      await containerd?.[Symbol.asyncDispose]()
      await run('umount', [join(folder, 'exec/netns/default')])
      if (bridge !== undefined) await run('ip', ['link', 'delete', bridge])
      rmSync(folder, { recursive: true, force: true })
    },
  }
  const deadline = performance.now() + READY_MS
  while ((await engine.docker(['info'])).code !== 0) {
    if (performance.now() > deadline) {
      await engine[Symbol.asyncDispose]()
      throw new Error(`dockerd did not answer within ${READY_MS} ms`)
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return engine
}
