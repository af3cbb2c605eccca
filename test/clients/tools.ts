import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'

export type Outcome = { code: number; stdout: string; stderr: string; output: string }
export type RunOptions = { env?: Record<string, string>; input?: string | Buffer; cwd?: string }

/** Where a real client is: HAVEN_TOOLS, the cache that `.ci/tools` fills, or PATH. Null when it is not installed. */
export function findTool(name: string): string | null {
  const folders = [
    process.env.HAVEN_TOOLS,
    join(homedir(), '.cache/haven/tools'),
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/sbin',
  ]
  for (const folder of folders) {
    if (!folder) continue
    try {
      accessSync(join(folder, name), constants.X_OK)
      return join(folder, name)
    } catch {
      continue
    }
  }
  return null
}

/** Runs a program to its end. A code other than 0 is an outcome, not an error. */
export function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      env: { ...process.env, NODE_OPTIONS: '', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (data: Buffer) => (stdout += data.toString()))
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()))
    child.once('error', reject)
    child.once('close', (code) => resolve({ code: code ?? -1, stdout, stderr, output: stdout + stderr }))
    child.stdin.on('error', () => undefined) // a program that does not read its input
    child.stdin.end(options.input)
  })
}

/** Runs a program that must succeed; the error holds all that it printed. */
export async function must(file: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const outcome = await run(file, args, options)
  if (outcome.code !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${outcome.code}:\n${outcome.output}`)
  return outcome.stdout
}

/**
 * What a test needs and this machine lacks, as a reason to skip; null when all is there. With HAVEN_SKIP_NOTHING=1 (CI) a lack is an error.
 */
export function lacking(...names: string[]): string | null {
  const missing = names.filter((name) => findTool(name) === null)
  if (missing.length === 0) return null
  const reason = `needs ${missing.join(', ')}; .ci/tools installs it`
  if (process.env.HAVEN_SKIP_NOTHING === '1') throw new Error(reason)
  return reason
}
