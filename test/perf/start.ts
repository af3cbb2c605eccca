import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { startHaven } from '@haven/testkit'
import { usageOf } from './cpu.ts'

export type StartFigures = { firstSeconds: number; againSeconds: number; ourMiB: number }

/** How long `haven up` takes in an empty home and again in the same one, and what our own processes hold at rest. */
export async function measureStart(): Promise<StartFigures> {
  const before = performance.now()
  await using installation = await startHaven({ shape: 'single' })
  const firstSeconds = (performance.now() - before) / 1000
  await installation.command('down')
  const again = performance.now()
  await installation.command('up')
  const againSeconds = (performance.now() - again) / 1000
  // What is still being loaded or collected after the start settles.
  await new Promise((resolve) => setTimeout(resolve, 5000))
  const { pid } = JSON.parse(readFileSync(join(installation.home, 'state.json'), 'utf8')) as { pid: number }
  const { postgres, redis } = installation.processes()
  const all = usageOf([pid]).rssMiB
  const notOurs = usageOf([postgres, redis].filter((p) => p !== null && p !== undefined)).rssMiB
  return { firstSeconds, againSeconds, ourMiB: all - notOurs }
}
