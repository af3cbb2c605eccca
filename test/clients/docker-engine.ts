import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findTool } from '@haven/testkit/tools'
import { must, run, type RunOptions } from './tools.ts'

export type DockerEngine = AsyncDisposable & {
  docker(args: readonly string[], options?: RunOptions): ReturnType<typeof run>
  mustDocker(args: readonly string[], options?: RunOptions): Promise<string>
  readonly env: Record<string, string>
}

const READY_MS = 60_000

/** A Docker engine of the test's own: socket, data and client configuration in a temporary folder, no bridge, no firewall rules. */
export async function startDocker(): Promise<DockerEngine> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-docker-'))
  const socket = `unix://${folder}/docker.sock`
  mkdirSync(join(folder, 'config'))
  const log = openSync(join(folder, 'dockerd.log'), 'a')
  const daemon = spawn(
    findTool('dockerd')!,
    [
      ...['--data-root', join(folder, 'data'), '--exec-root', join(folder, 'exec'), '-H', socket],
      ...['-p', join(folder, 'docker.pid'), '--bridge=none', '--iptables=false', '--ip6tables=false'],
    ],
    { stdio: ['ignore', log, log] },
  )
  const gone = new Promise<void>((resolve) => daemon.once('exit', () => resolve()))
  const env = { DOCKER_HOST: socket, DOCKER_CONFIG: join(folder, 'config') }
  const client = findTool('docker')!
  const engine: DockerEngine = {
    env,
    docker: (args, options = {}) => run(client, args, { ...options, env: { ...env, ...options.env } }),
    mustDocker: (args, options = {}) => must(client, args, { ...options, env: { ...env, ...options.env } }),
    async [Symbol.asyncDispose]() {
      daemon.kill('SIGTERM')
      await gone
      await run('umount', [join(folder, 'exec/netns/default')])
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
