import { readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { problems } from '@haven/errors'
import { isAlive } from './home.ts'

/**
 * Ends the server that a killed supervisor left running on a folder of ours, by the pid file it keeps there, and takes that file away: Postgres
 * refuses to start while any process has the id in it, be it a dead one that its parent has not yet looked at. The shared memory that a backend
 * of before may hold is found by Postgres without the file.
 * @throws problems.alreadyRunning when it has not ended within `patienceMs`.
 */
export async function endLeftOver(pidFile: string, signal: NodeJS.Signals, patienceMs: number): Promise<void> {
  let pid: number
  try {
    pid = Number.parseInt(readFileSync(pidFile, 'utf8'), 10)
  } catch {
    return // no pid file: it was stopped in order, or never ran
  }
  if (Number.isInteger(pid) && isAlive(pid) && worksIn(pid, dirname(pidFile))) {
    process.kill(pid, signal)
    for (let waited = 0; isAlive(pid); waited += 50) {
      if (waited > patienceMs) throw problems.alreadyRunning({ pid })
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }
  rmSync(pidFile, { force: true })
}

/** Embedded servers work in their folder. After a restart of the machine the id may be that of any other process. */
function worksIn(pid: number, folder: string): boolean {
  if (process.platform !== 'linux') return true
  try {
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(folder)
  } catch {
    return false // it has just ended, or is another user's
  }
}
