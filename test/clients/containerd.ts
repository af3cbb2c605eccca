import { spawn } from 'node:child_process'
import { mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findTool } from '@haven/testkit/tools'
import { must, run } from './tools.ts'

export type Containerd = AsyncDisposable & {
  readonly socket: string
  ctr(...args: string[]): Promise<string>
}

const READY_MS = 60_000

/** A containerd of the test's own: socket, images and containers below `folder`, which its user deletes. */
export async function startContainerd(folder: string): Promise<Containerd> {
  const home = join(folder, 'containerd')
  mkdirSync(home)
  const socket = join(home, 'c.sock')
  const config = join(home, 'config.toml')
  writeFileSync(
    config,
    `version = 2\nroot = "${home}/root"\nstate = "${home}/state"\n` +
      `disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "${socket}"\n`,
  )
  const log = openSync(join(home, 'log'), 'a')
  const daemon = spawn(findTool('containerd')!, ['-c', config], { stdio: ['ignore', log, log] })
  const gone = new Promise<void>((resolve) => daemon.once('exit', () => resolve()))
  const ctr = (...args: string[]) => must(findTool('ctr')!, ['-a', socket, ...args])
  const stop = async () => {
    daemon.kill('SIGTERM')
    await gone
  }
  const deadline = performance.now() + READY_MS
  while ((await run(findTool('ctr')!, ['-a', socket, 'version'])).code !== 0) {
    if (performance.now() > deadline) {
      await stop()
      throw new Error(`containerd did not answer within ${READY_MS} ms`)
    }
    await sleep(100)
  }
  return { socket, ctr, [Symbol.asyncDispose]: stop }
}
