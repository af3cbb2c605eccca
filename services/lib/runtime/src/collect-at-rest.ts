import { getHeapSpaceStatistics } from 'node:v8'

const LOOKED_AT_MS = 5_000
/** A collection stops everything for a tenth of a second: a request that is alone must not meet one often. */
const APART_MS = 60_000
/** Of one core since the last look; timers alone take a third of it. CPU, not time: on a busy machine the loop of an idle process looks busy. */
const RESTING_SHARE = 0.02
const WORTH_BYTES = 4 * 1024 * 1024

type Given = { gc?: (() => unknown) | undefined; everyMs?: number; cpuMs?: () => number; youngBytes?: () => number }

/**
 * Gives memory back when there is little to do (decision 0021): V8 collects when it needs room, so a young generation that grew stays full of
 * what was thrown away while nobody allocates. Does nothing without Node's option --expose-gc.
 */
export function collectAtRest({
  gc = globalThis.gc,
  everyMs = LOOKED_AT_MS,
  cpuMs = cpuOfProcess,
  youngBytes = youngOfHeap,
}: Given = {}): Disposable {
  let notBefore = 0
  let before = { at: performance.now(), cpu: cpuMs() }
  const timer = setInterval(() => {
    const now = { at: performance.now(), cpu: cpuMs() }
    const share = (now.cpu - before.cpu) / (now.at - before.at)
    before = now
    if (!gc || share > RESTING_SHARE || now.at < notBefore || youngBytes() < WORTH_BYTES) return
    notBefore = now.at + APART_MS
    gc()
  }, everyMs)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

function cpuOfProcess(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

const youngOfHeap = () =>
  getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space')!.physical_space_size
