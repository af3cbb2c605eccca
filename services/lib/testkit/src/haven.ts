import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '@haven/embedded'

const launcher = fileURLToPath(new URL('../../../launcher/src/main.ts', import.meta.url))

export const ADMIN_PASSWORD = 'Harbor12345'

export type HavenInstallation = AsyncDisposable & {
  /** http://127.0.0.1:<port> */
  readonly url: string
  /** 127.0.0.1:<port>, as clients name the registry */
  readonly host: string
  readonly home: string
  /** Runs a `haven` command on this installation. */
  command(...args: string[]): Promise<{ code: number; output: string }>
  /** Pids by process name (postgres, redis, front, back, …), as the supervisor sees them now. */
  processes(): Record<string, number | null>
}

export type HavenOptions = { shape?: 'single' | 'split'; env?: Record<string, string> }

/**
 * Haven as a user starts it (`haven up`), in a folder of its own with an embedded, durable Postgres and Redis. Disposing it stops and deletes it.
 * @throws with what `haven up` printed when it does not become healthy.
 */
export async function startHaven(options: HavenOptions = {}): Promise<HavenInstallation> {
  const home = mkdtempSync(join(tmpdir(), 'haven-home-'))
  const port = await freePort()
  const env = {
    ...process.env,
    NODE_OPTIONS: '',
    HAVEN_HOME: home,
    HAVEN_PORT: String(port),
    HAVEN_SHAPE: options.shape ?? 'single',
    HAVEN_ADMIN_PASSWORD: ADMIN_PASSWORD,
    ...options.env,
  }
  const command = (...args: string[]) => runLauncher(args, env)
  const up = await command('up')
  if (up.code !== 0) {
    await command('down')
    throw new Error(`haven up ended with ${up.code}:\n${up.output}`)
  }
  return {
    url: `http://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    home,
    command,
    processes() {
      const state = JSON.parse(readFileSync(join(home, 'state.json'), 'utf8')) as {
        processes: { name: string; pid: number | null }[]
      }
      return Object.fromEntries(state.processes.map(({ name, pid }) => [name, pid]))
    },
    async [Symbol.asyncDispose]() {
      await command('down')
      rmSync(home, { recursive: true, force: true })
    },
  }
}

function runLauncher(args: string[], env: NodeJS.ProcessEnv): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [launcher, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (data: Buffer) => (output += data.toString()))
    child.stderr.on('data', (data: Buffer) => (output += data.toString()))
    child.once('error', reject)
    // `exit`, not `close`: the supervisor it leaves behind may hold inherited descriptors.
    child.once('exit', (code) => resolve({ code: code ?? -1, output }))
  })
}
