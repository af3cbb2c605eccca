import { problems } from '@haven/errors'

/** Many proxies and clients give up after a minute, and then nobody knows what was done. */
const LONGEST_MS = 50_000

/**
 * Work that goes on from where it was when it is asked for again, for as long as a request may take.
 * @throws serviceUnavailable when it did not end in time
 */
export async function inTime<T>(work: (signal: AbortSignal) => Promise<T>, ms = LONGEST_MS): Promise<T> {
  const signal = AbortSignal.timeout(ms)
  try {
    return await work(signal)
  } catch (error) {
    if (error !== signal.reason) throw error
    throw problems.serviceUnavailable({ message: 'a part is done: ask again to go on', retryAfterSeconds: 1 })
  }
}
