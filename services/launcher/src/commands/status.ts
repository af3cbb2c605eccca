import { Home, isAlive } from '../home.ts'

/** Prints where the installation stands. Returns whether it runs and every part is ready. */
export function status(folder: string, print: (line: string) => void): boolean {
  const home = new Home(folder)
  const state = home.exists() ? home.readState() : null
  if (!state || (!isAlive(state.pid) && state.phase !== 'failed')) {
    print(`not running (${folder})`)
    return false
  }
  print(`${state.phase} at ${state.address}, since ${state.startedAt}${state.detail ? `: ${state.detail}` : ''}`)
  for (const part of state.processes) {
    const restarts = part.restarts === 0 ? '' : `, restarted ${part.restarts} times`
    print(`  ${part.name.padEnd(14)} ${part.ready ? `ready, pid ${part.pid}` : 'not ready'}${restarts}`)
  }
  return state.phase === 'running' && state.processes.every((part) => part.ready)
}
