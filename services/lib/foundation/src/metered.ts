import { cacheUses, type Database } from '@haven/db'
import { Family, type Metrics } from '@haven/runtime'
import type { BlobStorage } from '@haven/storage'
import { Counter, Histogram } from 'prom-client'

/** Tells of the pool of a database, and of the caches of this process. */
export function meterDatabase(metrics: Metrics, db: Database): void {
  metrics.derive(() => {
    const pool = new Family('haven_postgres_pool_connections', 'gauge', 'Connections of the pool for writes.')
    const waiting = new Family('haven_postgres_pool_waiting', 'gauge', 'Who waits for one of them.')
    const { size, idle, waiting: n } = db.pool
    pool.add({ state: 'busy' }, size - idle).add({ state: 'idle' }, idle)
    const caches = new Family('haven_cache_requests_total', 'counter', 'Questions to caches, by whether they knew.')
    for (const [cache, { hits, misses }] of cacheUses()) {
      caches.add({ cache, outcome: 'hit' }, hits).add({ cache, outcome: 'miss' }, misses)
    }
    return pool.text() + waiting.add({}, n).text() + caches.text()
  })
}

const STORE_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Measures the store under the name that dashboards of Distribution ask for; in place, so that a step costs no more than its two clocks. */
export function meterStorage(metrics: Metrics, storage: BlobStorage): void {
  const registers = [metrics.registry]
  const driver = storage.name
  const time = new Histogram({
    name: 'registry_storage_action_seconds',
    help: 'How long steps of the store took.',
    labelNames: ['driver', 'action'] as const,
    buckets: STORE_SECONDS,
    registers,
  })
  const bytes = new Counter({
    name: 'haven_store_bytes_total',
    help: 'Bytes that went into the store and out of it.',
    labelNames: ['driver', 'direction'] as const,
    registers,
  })
  const timed = <Given extends unknown[], T>(action: string, step: (...given: Given) => Promise<T>) => {
    const observer = time.labels({ driver, action })
    return async (...given: Given): Promise<T> => {
      const startedAt = performance.now()
      try {
        return await step(...given)
      } finally {
        observer.observe((performance.now() - startedAt) / 1000)
      }
    }
  }
  const append = timed('append', storage.append.bind(storage))
  const send = timed('send', storage.send.bind(storage))
  const into = bytes.labels({ driver, direction: 'in' })
  const out = bytes.labels({ driver, direction: 'out' })
  Object.assign(storage, {
    async append(...given) {
      const appended = await append(...given)
      into.inc(appended.written)
      return appended
    },
    async send(...given) {
      await send(...given)
      out.inc(given[1].length)
    },
    complete: timed('complete', storage.complete.bind(storage)),
    discard: timed('discard', storage.discard.bind(storage)),
    stat: timed('stat', storage.stat.bind(storage)),
    remove: timed('remove', storage.remove.bind(storage)),
  } satisfies Partial<BlobStorage>)
}
