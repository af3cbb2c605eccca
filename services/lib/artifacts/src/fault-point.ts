/** Places between two steps of a push where a test can stop, fail or kill the process (reliability.md F01). */
export type FaultPoint =
  | 'session.create'
  | 'chunk.beforeStage'
  | 'chunk.afterStage'
  | 'chunk.afterDb'
  | 'finish.beforeHash'
  | 'finish.afterVerify'
  | 'finish.afterMove'
  | 'finish.beforeDb'
  | 'finish.afterDb'
  | 'finish.beforeAnswer'
  | 'mount.beforeDb'
  | 'manifest.beforeDb'
  | 'manifest.afterCheck'
  | 'manifest.afterDb'
  | 'blob.beforeUnlink'
  | 'gc.candidates'
  | 'gc.locked'
  | 'gc.committed'
  | 'gc.beforeErase'
  | 'gc.erased'

// Read here and not through a config: in production the whole thing must not exist, whatever a service is configured to do.
const enabled = process.env.NODE_ENV === 'test'
const [faultAt, faultCount = '1', faultAction = 'exit'] = (process.env.FAULT ?? '').split(':')

const interceptors = new Map<FaultPoint, () => Promise<void>>()
let reached = 0

/** Does nothing outside tests. `FAULT=finish.beforeDb:2:exit` kills the process (`throw` fails the request) the second time. */
export async function faultPoint(name: FaultPoint): Promise<void> {
  if (!enabled) return
  await interceptors.get(name)?.()
  if (name !== faultAt || ++reached !== Number(faultCount)) return
  if (faultAction === 'exit') process.kill(process.pid, 'SIGKILL')
  throw new Error(`fault injected at ${name}`)
}

/** For tests in the same process: holds whoever comes to `name` until the promise settles. Returns how to end it. */
export function interceptFaultPoint(name: FaultPoint, hold: () => Promise<void>): () => void {
  interceptors.set(name, hold)
  return () => interceptors.delete(name)
}
