import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { queryOnce } from './database.ts'
import { freePort } from '@haven/embedded'
import pg from 'pg'

/** The program behind `haven`. */
export const launcher = fileURLToPath(new URL('../../../launcher/src/main.ts', import.meta.url))

export const ADMIN_PASSWORD = 'Harbor12345'

export type HavenInstallation = AsyncDisposable & {
  /** http://127.0.0.1:<port>, or https when HAVEN_TLS says so */
  readonly url: string
  /** 127.0.0.1:<port>, as clients name the registry */
  readonly host: string
  readonly home: string
  /** Runs a `haven` command on this installation. */
  command(...args: string[]): Promise<{ code: number; output: string }>
  /** Pids by process name (postgres, redis, front, back, …), as the supervisor sees them now. */
  processes(): Record<string, number | null>
  /** Where its embedded servers listen. */
  servers(): { databaseUrl: string; redisUrl: string }
  /** One statement on its embedded Postgres, for what no API tells. */
  query<Row extends pg.QueryResultRow>(sql: string, values?: readonly unknown[]): Promise<Row[]>
  /** A connection to its embedded Postgres, to hold locks with. */
  session(): Promise<AsyncDisposable & { query(sql: string): Promise<unknown> }>
}

export type HavenOptions = {
  shape?: 'single' | 'split'
  env?: Record<string, string>
  /** Default: a new folder. */
  home?: string
}

/**
 * Haven as a user starts it (`haven up`), in a folder of its own with an embedded, durable Postgres and Redis. Disposing it stops and deletes it.
 * @throws with what `haven up` printed when it does not become healthy.
 */
export async function startHaven(options: HavenOptions = {}): Promise<HavenInstallation> {
  const home = options.home ?? mkdtempSync(join(tmpdir(), 'haven-home-'))
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
  const command = (...args: string[]) => runHaven(args, env)
  const state = () =>
    JSON.parse(readFileSync(join(home, 'state.json'), 'utf8')) as {
      databaseUrl: string
      redisUrl: string
      processes: { name: string; pid: number | null }[]
    }
  const up = await command('up')
  if (up.code !== 0) {
    await command('down')
    rmSync(home, { recursive: true, force: true })
    throw new Error(`haven up ended with ${up.code}:\n${up.output}`)
  }
  return {
    url: `${(options.env?.HAVEN_TLS ?? 'off') === 'off' ? 'http' : 'https'}://127.0.0.1:${port}`,
    host: `127.0.0.1:${port}`,
    home,
    command,
    processes: () => Object.fromEntries(state().processes.map(({ name, pid }) => [name, pid])),
    servers: () => ({ databaseUrl: state().databaseUrl, redisUrl: state().redisUrl }),
    query: <Row extends pg.QueryResultRow>(sql: string, values: readonly unknown[] = []) =>
      queryOnce<Row>(state().databaseUrl, sql, values),
    async session() {
      const client = new pg.Client({ connectionString: state().databaseUrl })
      await client.connect()
      return { query: (sql) => client.query(sql), [Symbol.asyncDispose]: () => client.end() }
    },
    async [Symbol.asyncDispose]() {
      await command('down')
      rmSync(home, { recursive: true, force: true })
    },
  }
}

/** Runs a `haven` command to its end, in an environment of the caller's. */
export function runHaven(args: readonly string[], env: NodeJS.ProcessEnv): Promise<{ code: number; output: string }> {
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
