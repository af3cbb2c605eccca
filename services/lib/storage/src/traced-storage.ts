import { inSpan, tracing } from '@haven/telemetry'
import type { BlobStorage } from './blob-storage.ts'

/** Those that are one step of a request or a job. Streams (`read`, `list`) have no end that a caller waits for. */
const steps: ReadonlySet<PropertyKey> = new Set<keyof BlobStorage>([
  'append',
  'complete',
  'discard',
  'stat',
  'send',
  'remove',
  'signedUrl',
])

/** The same store, each step in a span; the store itself when no traces are sent. */
export function tracedStorage(storage: BlobStorage): BlobStorage {
  if (tracing() === null) return storage
  return new Proxy(storage, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      const call = (...given: unknown[]) => Reflect.apply(value, target, given) as unknown
      if (!steps.has(name)) return call
      const options = {
        name: `store ${String(name)}`,
        kind: 'client',
        attributes: { 'haven.store': target.name },
      } as const
      return (...given: unknown[]) => inSpan(options, async () => call(...given))
    },
  })
}
