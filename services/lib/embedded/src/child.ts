import { spawn, type ChildProcess } from 'node:child_process'

export type ServerProcess = {
  readonly pid: number
  /** Resolves with the exit code or the signal's name once the process is gone. */
  readonly exited: Promise<number | string>
  /** Sends the signal, waits, and kills after `graceMs`. */
  stop(signal: NodeJS.Signals, graceMs?: number): Promise<void>
}

export type ServerStart = {
  file: string
  args: readonly string[]
  cwd?: string
  env?: NodeJS.ProcessEnv
  /** The server is up when a line of its output matches. */
  ready: RegExp
  readyMs: number
  onOutput?: (text: string) => void
}

/**
 * Starts a server and waits until it says that it is ready.
 * @throws with the end of its output when it ends or stays silent instead.
 */
export async function startServer(start: ServerStart): Promise<ServerProcess> {
  const child = spawn(start.file, start.args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(start.cwd === undefined ? {} : { cwd: start.cwd }),
    ...(start.env === undefined ? {} : { env: start.env }),
  })
  const exited = new Promise<number | string>((resolve) => {
    child.once('exit', (code, signal) => resolve(code ?? signal ?? 0))
    child.once('error', () => resolve('ENOENT'))
  })
  await untilReady(child, exited, start)
  const { pid } = child
  if (pid === undefined) throw new Error(`${start.file} has no pid`)
  return { pid, exited, stop: (signal, graceMs = 30_000) => stop(child, exited, signal, graceMs) }
}

async function untilReady(child: ChildProcess, exited: Promise<number | string>, start: ServerStart) {
  let tail = ''
  const ready = new Promise<'ready'>((resolve) => {
    const see = (data: Buffer) => {
      const text = data.toString()
      start.onOutput?.(text)
      tail = (tail + text).slice(-4096)
      if (start.ready.test(tail)) resolve('ready')
    }
    child.stdout?.on('data', see)
    child.stderr?.on('data', see)
  })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, start.readyMs, 'late')
  })
  const first = await Promise.race([ready, late, exited.then((how) => ({ how }))])
  clearTimeout(timer)
  if (first === 'ready') return
  if (first === 'late') {
    child.kill('SIGKILL')
    throw new Error(`${start.file} was not ready within ${start.readyMs} ms:\n${tail}`)
  }
  throw new Error(`${start.file} ended with ${first.how} before it was ready:\n${tail}`)
}

async function stop(child: ChildProcess, exited: Promise<unknown>, signal: NodeJS.Signals, graceMs: number) {
  child.kill(signal)
  const timer = setTimeout(() => child.kill('SIGKILL'), graceMs)
  await exited
  clearTimeout(timer)
}
