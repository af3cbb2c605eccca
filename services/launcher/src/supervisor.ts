import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { problems } from '@haven/errors'

/** Something that should be running: a group of services, Postgres, Redis. */
export type Supervised = {
  readonly name: string
  /** Starts it and resolves when it is ready. */
  start(): Promise<Running>
}

export type Running = {
  readonly pid: number
  readonly exited: Promise<number | string>
  stop(): Promise<void>
}

export type SupervisorStatus = { name: string; pid: number | null; restarts: number; ready: boolean }

const FIRST_DELAY_MS = 200
// With the time of a start, a process that was killed is back within 10 s however often it was (reliability.md F02).
const LONGEST_DELAY_MS = 5_000
/** A process that ran this long starts its back-off anew. */
const STEADY_MS = 5_000

/** Keeps processes running: one that ends is started again, after a pause that doubles while it keeps ending. */
export class Supervisor {
  readonly #entries: Entry[] = []
  readonly #onChange: () => void
  readonly #log: (line: string) => void
  #stopping = false

  constructor(options: { onChange: () => void; log: (line: string) => void }) {
    this.#onChange = options.onChange
    this.#log = options.log
  }

  status(): SupervisorStatus[] {
    return this.#entries.map(({ name, running, restarts }) => ({
      name,
      pid: running?.pid ?? null,
      restarts,
      ready: running !== null,
    }))
  }

  /** Starts it for the first time; a failure now is the caller's. From then on it is kept running. */
  async add(supervised: Supervised): Promise<void> {
    const entry: Entry = {
      name: supervised.name,
      supervised,
      running: null,
      restarts: 0,
      kept: Promise.resolve(),
      discarded: false,
    }
    this.#entries.push(entry)
    entry.running = await supervised.start()
    this.#log(`${entry.name} is ready, pid ${entry.running.pid}`)
    this.#onChange()
    entry.kept = this.#keep(entry)
  }

  /** Stops what has these names and forgets it, whether it runs, is being started again, or never came up. */
  async discard(names: readonly string[]): Promise<void> {
    const discarded = this.#entries.filter(({ name }) => names.includes(name))
    for (const entry of discarded) {
      entry.discarded = true
      this.#entries.splice(this.#entries.indexOf(entry), 1)
    }
    await Promise.all(
      discarded.map(async (entry) => {
        await entry.running?.stop()
        await entry.kept
      }),
    )
    this.#onChange()
  }

  /** Stops everything, the last started first. Later calls wait for the first. */
  async stop(): Promise<void> {
    if (this.#stopping) return
    this.#stopping = true
    for (const entry of this.#entries.toReversed()) {
      await entry.running?.stop()
      await entry.kept
      this.#log(`${entry.name} has stopped`)
      this.#onChange()
    }
  }

  async #keep(entry: Entry): Promise<void> {
    let delayMs = FIRST_DELAY_MS
    while (entry.running) {
      const startedAt = performance.now()
      const how = await entry.running.exited
      entry.running = null
      this.#onChange()
      if (this.#stopping || entry.discarded) return
      if (performance.now() - startedAt > STEADY_MS) delayMs = FIRST_DELAY_MS
      this.#log(`${entry.name} ended with ${how}; starting it again in ${delayMs} ms`)
      entry.running = await this.#restart(entry, delayMs)
      this.#onChange()
      delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS)
    }
  }

  async #restart(entry: Entry, firstDelayMs: number): Promise<Running | null> {
    for (
      let delayMs = firstDelayMs;
      !this.#stopping && !entry.discarded;
      delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS)
    ) {
      await new Promise((resolve) => setTimeout(resolve, delayMs))
      if (this.#stopping || entry.discarded) return null
      entry.restarts++
      try {
        const running = await entry.supervised.start()
        this.#log(`${entry.name} is ready again, pid ${running.pid}`)
        // The stop may have come while it started.
        if (this.#stopping || entry.discarded) await running.stop()
        return running
      } catch (error) {
        this.#log(`${entry.name} did not start: ${(error as Error).message}`)
      }
    }
    return null
  }
}

type Entry = {
  name: string
  supervised: Supervised
  running: Running | null
  restarts: number
  kept: Promise<void>
  /** It is not wanted any more. */
  discarded: boolean
}

export type NodeProcess = {
  name: string
  args: readonly string[]
  env: NodeJS.ProcessEnv
  logFolder: string
  readyMs: number
  /** Between SIGTERM and SIGKILL. */
  drainMs: number
}

/**
 * For glibc (mallopt(3)), which otherwise has up to eight pools of freed memory a core, and keeps in them what large buffers leave.
 * With a fixed threshold these go back to the system as soon as they are freed.
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: '2', MALLOC_TRIM_THRESHOLD_: '131072' }

/**
 * A process of ours. It says `ready` over the IPC channel, or `failed` with a message and exit code; it drains on SIGTERM and when the
 * channel closes, so that none is left behind when the supervisor is killed.
 */
export function nodeProcess(options: NodeProcess): Supervised {
  return {
    name: options.name,
    async start() {
      const log = openSync(join(options.logFolder, `${options.name}.log`), 'a', 0o600)
      const child = spawn(process.execPath, options.args, {
        env: { ...ALLOCATOR, ...options.env },
        stdio: ['ignore', log, log, 'ipc'],
      })
      closeSync(log)
      const exited = new Promise<number | string>((resolve) => {
        child.once('exit', (code, signal) => resolve(code ?? signal ?? 0))
        child.once('error', (error) => resolve(error.message))
      })
      await whenReady(child, exited, options)
      return { pid: child.pid!, exited, stop: () => stop(child, exited, options.drainMs) }
    },
  }
}

/** A child of ours said why it could not start: passed on with its own exit code. */
export class StartRefused extends Error {
  readonly exitCode: number

  constructor(message: string, exitCode: number) {
    super(message)
    this.exitCode = exitCode
  }
}

/** What a child tells its supervisor over the IPC channel. */
export type ChildMessage = { kind: 'ready' } | { kind: 'failed'; message: string; exitCode: number }

async function whenReady(child: ChildProcess, exited: Promise<number | string>, options: NodeProcess) {
  const logs = join(options.logFolder, `${options.name}.log`)
  const told = new Promise<ChildMessage>((resolve) => child.once('message', (m) => resolve(m as ChildMessage)))
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, options.readyMs, 'late')
  })
  const first = await Promise.race([told, late, exited.then((how) => ({ kind: 'ended' as const, how }))])
  clearTimeout(timer)
  if (first !== 'late' && first.kind === 'ready') return
  await stop(child, exited, 1_000)
  if (first === 'late') throw problems.notReadyInTime({ what: options.name, seconds: options.readyMs / 1000, logs })
  if (first.kind === 'ended') throw problems.processEnded({ what: options.name, how: first.how, logs })
  throw new StartRefused(first.message, first.exitCode)
}

async function stop(child: ChildProcess, exited: Promise<unknown>, graceMs: number) {
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
  await exited
  clearTimeout(timer)
}
