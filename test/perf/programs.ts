import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findTool } from '@haven/testkit/tools'

const folder = join(homedir(), '.cache/haven/perf')

/** Builds the Go programs beside this file: the load, and what stands for Harbor's core. Go's own cache makes a second time cheap. */
export function buildPrograms(): void {
  mkdirSync(folder, { recursive: true })
  const here = fileURLToPath(new URL('.', import.meta.url))
  execFileSync(tool('go'), ['build', '-o', `${folder}/`, './...'], {
    cwd: here,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
}

export const loadProgram = join(folder, 'load')
export const floorProgram = join(folder, 'floor')

/** @throws naming what `.ci/tools` would install. */
export function tool(name: string): string {
  const found = findTool(name)
  if (found === null) throw new Error(`${name} is not installed; .ci/tools installs it`)
  return found
}
