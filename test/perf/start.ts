import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort, startHaven } from '@haven/testkit'
import { memoryOf, type Memory } from './cpu.ts'

export type StartFigures = {
  /** `haven up` in an empty home: the database is made and migrated. */
  firstSeconds: number
  /** `haven up` in the same home. */
  againSeconds: number
  /** `make up` in a fresh clone with an empty HOME: packages are installed, code is generated. Null when not asked for. */
  coldSeconds: number | null
  /** Our Node processes at rest, and everything with Postgres and Redis. */
  ours: Memory
  all: Memory
}

/** What is still being loaded or collected after a start has settled by then. */
const SETTLE_MS = 5000

export async function measureStart({ cold }: { cold: boolean }): Promise<StartFigures> {
  const coldSeconds = cold ? await coldStart() : null
  const before = performance.now()
  await using installation = await startHaven({ shape: 'single' })
  const firstSeconds = (performance.now() - before) / 1000
  await installation.command('down')
  const again = performance.now()
  const { code, output } = await installation.command('up')
  if (code !== 0) throw new Error(`the second start ended with ${code}: ${output}`)
  const againSeconds = (performance.now() - again) / 1000
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
  const { pid } = JSON.parse(readFileSync(join(installation.home, 'state.json'), 'utf8')) as { pid: number }
  const { postgres, redis } = installation.processes()
  const stores = [postgres, redis].filter((p) => typeof p === 'number')
  return { firstSeconds, againSeconds, coldSeconds, ours: memoryOf([pid], stores), all: memoryOf([pid]) }
}

/** What is committed, cloned, with nothing installed and nothing cached by npm or pnpm. */
async function coldStart(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'haven-cold-'))
  const clone = join(folder, 'clone')
  const repository = fileURLToPath(new URL('../..', import.meta.url))
  const env = {
    ...process.env,
    // The machine's own Node, not the one that is installed here.
    PATH: (process.env.PATH ?? '')
      .split(delimiter)
      .filter((path) => !path.startsWith(repository))
      .join(delimiter),
    HOME: join(folder, 'home'),
    XDG_DATA_HOME: '',
    XDG_CACHE_HOME: '',
    PNPM_HOME: '',
    NODE_OPTIONS: '',
    HAVEN_PORT: String(await freePort()),
  }
  const make = (target: string) =>
    execFileSync('make', [target], { cwd: clone, env, stdio: ['ignore', 'pipe', 'pipe'] })
  try {
    execFileSync('git', ['clone', '--quiet', '--no-hardlinks', repository, clone])
    const before = performance.now()
    make('up')
    const seconds = (performance.now() - before) / 1000
    make('down')
    return seconds
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
