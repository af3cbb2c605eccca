import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals'
import { isAlive } from './home.ts'
import { endLeftOver } from './left-over.ts'

let folder: string
let pidFile: string
let ends: (() => Promise<void>)[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'haven-left-over-'))
  pidFile = join(folder, 'server.pid')
})
afterEach(async () => {
  for (const end of ends) await end()
  ends = []
  rmSync(folder, { recursive: true, force: true })
})

/** A shell that says a pid and goes on. */
async function running(script: string, cwd: string): Promise<number> {
  const child = spawn('sh', ['-c', script], { cwd, stdio: ['ignore', 'pipe', 'ignore'] })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  ends.push(() => {
    child.kill('SIGKILL')
    return exited
  })
  return Number(await new Promise<string>((resolve) => child.stdout.once('data', (data: Buffer) => resolve(`${data}`))))
}

describe('endLeftOver', () => {
  it('ends the server that works in the folder', async () => {
    const pid = await running('echo $$; exec sleep 600', folder)
    writeFileSync(pidFile, `${pid}\n${folder}\n`)
    await endLeftOver(pidFile, 'SIGTERM', 10_000)
    expect(isAlive(pid)).toBe(false)
    expect(existsSync(pidFile)).toBe(false)
  })

  it('spares whoever has that id now, after the machine was restarted (F34)', async () => {
    const pid = await running('echo $$; exec sleep 600', tmpdir())
    writeFileSync(pidFile, String(pid))
    await endLeftOver(pidFile, 'SIGTERM', 10_000)
    expect(isAlive(pid)).toBe(true)
    expect(existsSync(pidFile)).toBe(false)
  })

  it('takes the file of one away that ended and that nobody has waited for (F34)', async () => {
    // `exec` leaves a parent that knows of no child.
    const pid = await running('sleep 0 & echo $!; exec sleep 600', folder)
    for (let waited = 0; isAlive(pid) && waited < 10_000; waited += 20)
      await new Promise((resolve) => setTimeout(resolve, 20))
    expect(() => process.kill(pid, 0)).not.toThrow()
    writeFileSync(pidFile, String(pid))
    await endLeftOver(pidFile, 'SIGTERM', 10_000)
    expect(existsSync(pidFile)).toBe(false)
  })

  it('does nothing where there is no file, and takes one without an id away', async () => {
    await endLeftOver(pidFile, 'SIGTERM', 0)
    writeFileSync(pidFile, '')
    await endLeftOver(pidFile, 'SIGTERM', 0)
    expect(existsSync(pidFile)).toBe(false)
  })
})
