import { spawn } from 'node:child_process'

export type Outcome = { code: number; stdout: string; stderr: string; output: string }
export type RunOptions = { env?: Record<string, string>; input?: string | Buffer; cwd?: string }

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
