import { askDoor } from '../ask.ts'
import { Home, isAlive } from '../home.ts'

type Platform = { status: string; components: { name: string; status: string; error?: string }[] }

/** Prints where the installation stands, and what its clients would be told. Returns whether it runs and every part is well. */
export async function status(folder: string, print: (line: string) => void): Promise<boolean> {
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
  if (state.phase !== 'running') return false
  const health = await platformHealth(state.door)
  print(health.said)
  return health.well && state.processes.every((part) => part.ready)
}

/** What `/health` says through the door: the answer that a client and a load balancer see. */
async function platformHealth(door: string): Promise<{ well: boolean; said: string }> {
  try {
    const { status: code, body } = await askDoor(`${door}/api/v2.0/health`)
    if (code !== 200) return { well: false, said: `health: ${door}/api/v2.0/health answered ${code}` }
    const { status: overall, components } = JSON.parse(body) as Platform
    const unwell = components.filter((component) => component.status !== 'healthy')
    const said = unwell.map(({ name, error }) => `\n  ${name.padEnd(14)} ${error ?? 'not healthy'}`).join('')
    return { well: overall === 'healthy', said: `health: ${overall}${said}` }
  } catch (error) {
    return { well: false, said: `health: ${(error as Error).message}` }
  }
}
