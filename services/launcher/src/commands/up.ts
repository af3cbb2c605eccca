import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { problems } from '@haven/errors'
import { Home, isAlive, type InstallationState } from '../home.ts'
import { StartRefused } from '../supervisor.ts'
import type { LauncherConfig } from '../settings.ts'

const HEALTHY_MS = 120_000
const POLL_MS = 50
const ENDING_MS = 5_000
const compileCache = fileURLToPath(new URL('../../../../node_modules/.cache/compiled', import.meta.url))
const main = fileURLToPath(new URL('../main.ts', import.meta.url))

/**
 * Starts the installation in the background and returns when every part is healthy. Starting one that runs is no mistake: it says where it is.
 * @throws with the reason and exit code of what did not start; nothing is left running then.
 */
export async function up(config: LauncherConfig, print: (line: string) => void): Promise<void> {
  const home = new Home(config.home)
  home.create()
  const before = home.readState()
  if (before && before.phase === 'running' && isAlive(before.pid)) {
    print(`Haven is already running at ${before.address}`)
    return
  }
  const startedAt = performance.now()
  home.clearState()
  const log = openSync(home.supervisorLog, 'a', 0o600)
  const child = spawn(process.execPath, ['--max-semi-space-size=2', main, 'supervise'], {
    detached: true,
    stdio: ['ignore', log, log],
    // Stripped and compiled once: a process then starts in half the time, with a quarter less memory.
    env: { NODE_COMPILE_CACHE: compileCache, ...process.env },
  })
  closeSync(log)
  child.unref()
  const state = await untilHealthy(home, child.pid!, print)
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  print('')
  print(welcome(state, config, home, seconds))
}

async function untilHealthy(home: Home, pid: number, print: (line: string) => void): Promise<InstallationState> {
  const deadline = performance.now() + HEALTHY_MS
  let said = ''
  for (;;) {
    const state = home.readState()
    if (state && state.detail !== said && state.phase === 'starting') {
      said = state.detail
      print(`  ${said} …`)
    }
    if (state?.phase === 'running') return state
    if (state?.phase === 'failed') {
      // It has said why and is about to end: whoever reads the message may start again at once.
      for (let waited = 0; isAlive(pid) && waited < ENDING_MS; waited += POLL_MS) {
        await new Promise((resolve) => setTimeout(resolve, POLL_MS))
      }
      throw new StartRefused(state.detail, state.exitCode ?? 1)
    }
    if (!isAlive(pid)) {
      throw problems.processEnded({ what: 'the supervisor', how: 'an error', logs: home.supervisorLog })
    }
    if (performance.now() > deadline) {
      process.kill(pid, 'SIGTERM')
      throw problems.notReadyInTime({ what: 'Haven', seconds: HEALTHY_MS / 1000, logs: home.logs })
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

function welcome(state: InstallationState, config: LauncherConfig, home: Home, seconds: string): string {
  const host = state.address.replace(/^https?:\/\//, '')
  const password =
    config.adminPassword === undefined ? `in ${home.adminPasswordFile}` : 'the one given in HAVEN_ADMIN_PASSWORD'
  return [
    `Haven is running at ${state.address} (healthy after ${seconds} s)`,
    `  user admin, password ${password}`,
    ...(config.tls === 'self-signed' ? trust(host, home) : []),
    '',
    'Your first push:',
    `  docker login ${host} -u admin`,
    `  docker tag alpine ${host}/library/alpine:1`,
    `  docker push ${host}/library/alpine:1`,
  ].join('\n')
}

/** Engines look for an authority by the registry's name; podman, skopeo and buildah below /etc/containers/certs.d. */
const trust = (host: string, home: Home) => [
  `  certificate ${home.certificate}, self-signed`,
  '',
  'So that docker trusts it:',
  `  sudo install -D -m 644 ${home.certificate} /etc/docker/certs.d/${host}/ca.crt`,
]
