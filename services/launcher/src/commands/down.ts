import { rmSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'
import { problems } from '@haven/errors'
import { Home, isAlive } from '../home.ts'

const STOP_MS = 120_000

/** Stops what `up` started in this home, and nothing else. Returns whether something ran. */
export async function down(folder: string, print: (line: string) => void): Promise<boolean> {
  const home = new Home(folder)
  const state = home.exists() ? home.readState() : null
  if (!state || !isAlive(state.pid)) {
    if (state) home.clearState()
    print('Haven is not running')
    return false
  }
  if (state.phase === 'failed') return false
  process.kill(state.pid, 'SIGTERM')
  print('  draining …')
  for (let waited = 0; isAlive(state.pid); waited += 50) {
    if (waited > STOP_MS) throw new Error(`process ${state.pid} did not stop; see ${home.supervisorLog}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  print('Haven has stopped')
  return true
}

/**
 * Deletes the installation: database, blobs, logs, secrets. Asks first, unless `assumeYes`.
 * @throws Problem when nobody is there to answer.
 */
export async function reset(folder: string, assumeYes: boolean, print: (line: string) => void): Promise<void> {
  const home = new Home(folder)
  if (!home.exists()) {
    print(`there is nothing at ${folder}`)
    return
  }
  if (!assumeYes && !(await confirmed(folder))) {
    print('nothing was deleted')
    return
  }
  await down(folder, print)
  rmSync(folder, { recursive: true, force: true })
  print(`deleted ${folder}`)
}

async function confirmed(folder: string): Promise<boolean> {
  if (!process.stdin.isTTY) {
    throw problems.badUsage({ message: 'reset deletes everything and nobody is there to confirm it; pass --yes' })
  }
  const lines = createInterface({ input: process.stdin, output: process.stdout })
  const answer = await lines.question(`Delete every image, account and setting below ${folder}? Type "delete": `)
  lines.close()
  return answer.trim() === 'delete'
}
