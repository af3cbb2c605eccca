import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createInterface } from 'node:readline'
import { childrenCpuSeconds } from './cpu.ts'
import { loadProgram, tool } from './programs.ts'

/** What test/perf/load does on each connection again and again; its fields are explained there. */
export type Operation =
  | {
      kind: 'read'
      method: 'GET' | 'HEAD' | 'DELETE'
      paths: readonly string[]
      status: number
      bytes: number
      sha256?: string
      once?: boolean
    }
  | { kind: 'push'; repositories: readonly string[]; bytes: number }
  | { kind: 'manifest'; repositories: readonly string[]; config: string; configBytes: number }
  | { kind: 'pull'; paths: readonly string[]; token: Token | null }
  | { kind: 'image'; repositories: readonly string[]; bytes: number; layers: number; token: Token | null }

type Token = { path: string; authorization: string }

export type Load = {
  port: number
  tls: boolean
  headers: Record<string, string>
  connections: number
  seconds: number
  /** Ends it before its time. */
  atMost?: number
} & ({ tool: 'client'; operation: Operation } | { tool: 'wrk'; path: string })

export type LoadResult = { operations: number; seconds: number; p50Ms: number; p99Ms: number; cpuSeconds: number }

/** A load that has connected and proved its first operations, and waits for `run`. */
export type PreparedLoad = { run(): Promise<LoadResult> } & Disposable

/** @throws when an answer is not the expected one. */
export async function prepareLoad(load: Load): Promise<PreparedLoad> {
  return load.tool === 'wrk' ? { run: () => wrk(load), [Symbol.dispose]() {} } : client(load)
}

async function client(load: Load & { tool: 'client' }): Promise<PreparedLoad> {
  const { tool: _, port, ...rest } = load
  const child = spawn(loadProgram)
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const failed = failureOf(child)
  const next = async () => {
    const line = await Promise.race([lines.next(), failed])
    if (line.done) return failed
    return line.value
  }
  child.stdin.write(`${JSON.stringify({ address: `127.0.0.1:${port}`, ...rest })}\n`)
  try {
    await next()
  } catch (error) {
    child.kill()
    throw new Error(`${load.operation.kind} load`, { cause: error })
  }
  return {
    async run() {
      child.stdin.write('go\n')
      return JSON.parse(await next()) as LoadResult
    },
    [Symbol.dispose]: () => void child.kill(),
  }
}

function failureOf(child: ChildProcessWithoutNullStreams): Promise<never> {
  let complaint = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text))
  const failed = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('close', (code) => reject(new Error(`the load ended with ${code}: ${complaint.slice(0, 1000)}`)))
  })
  failed.catch(() => {}) // also when nobody waits any more
  return failed
}

const UNITS: Record<string, number> = { us: 0.001, ms: 1, s: 1000, m: 60_000 }

/** One thread of wrk: the cheapest client for small GETs, which speaks to one path. */
async function wrk({ port, tls, headers, connections, seconds, path }: Load & { tool: 'wrk' }): Promise<LoadResult> {
  // wrk knows whole seconds only.
  const args = ['-t1', `-c${connections}`, `-d${Math.max(1, Math.round(seconds))}s`, '--timeout', '10s', '--latency']
  for (const [name, value] of Object.entries(headers)) args.push('-H', `${name}: ${value}`)
  const before = childrenCpuSeconds()
  const output = await run(tool('wrk'), [...args, `${tls ? 'https' : 'http'}://127.0.0.1:${port}${path}`])
  const refused = /Non-2xx or 3xx responses: \d+|Socket errors: .*/.exec(output)
  if (refused) throw new Error(`${path}: ${refused[0]}`)
  const [, requests, took, unit] = /(\d+) requests in ([\d.]+)(m?s|m)/.exec(output) ?? []
  const latency = (share: number) => {
    const [, value, each] = new RegExp(`^ +${share}%\\s+([\\d.]+)(us|ms|s|m)$`, 'm').exec(output) ?? []
    return Number(value) * UNITS[each ?? '']!
  }
  if (requests === undefined || Number.isNaN(latency(99))) throw new Error(`wrk said ${output}`)
  return {
    operations: Number(requests),
    seconds: (Number(took) * UNITS[unit!]!) / 1000,
    p50Ms: latency(50),
    p99Ms: latency(99),
    cpuSeconds: childrenCpuSeconds() - before,
  }
}

function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output += text))
    child.once('error', reject)
    child.once('close', (code) => (code === 0 ? resolve(output) : reject(new Error(`${command}: ${output}`))))
  })
}
