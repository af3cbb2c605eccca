import type { Database } from '@haven/db'
import type { Redis } from 'ioredis'
import type { ExporterConfig } from './config.ts'

const ASK_MS = 3_000

/** Whether each component works, by Harbor's names for them. */
export class Components {
  readonly #checks: Readonly<Record<string, () => Promise<void>>>

  constructor(
    config: Pick<
      ExporterConfig,
      'coreUrl' | 'registryUrl' | 'jobserviceUrl' | 'registryctlUrl' | 'portalUrl' | 'frontUrls'
    >,
    { db, redis }: { db: Pick<Database, 'check'>; redis: Pick<Redis, 'ping'> },
  ) {
    const fronts = splitUrls(config.frontUrls)
    const front = (url: string) => (fronts.length > 0 ? () => anyReady(fronts) : () => ready(url))
    this.#checks = {
      core: front(config.coreUrl),
      registry: front(config.registryUrl),
      jobservice: () => ready(config.jobserviceUrl),
      registryctl: () => ready(config.registryctlUrl),
      ...((config.portalUrl !== undefined || fronts.length > 0) && { portal: front(config.portalUrl ?? '') }),
      database: () => db.check(),
      async redis() {
        await redis.ping()
      },
    }
  }

  /** Never rejects. */
  async states(): Promise<Map<string, boolean>> {
    const states = Object.entries(this.#checks).map(
      async ([name, check]) =>
        [
          name,
          await check().then(
            () => true,
            () => false, // which is all that is told; why not stands in the component's own log
          ),
        ] as const,
    )
    return new Map(await Promise.all(states))
  }
}

export const splitUrls = (list: string | undefined): string[] =>
  (list ?? '').split(',').flatMap((url) => (url.trim() === '' ? [] : [url.trim()]))

async function ready(url: string): Promise<void> {
  const answer = await fetch(new URL('/readyz', url), { signal: AbortSignal.timeout(ASK_MS) })
  await answer.body?.cancel()
  if (!answer.ok) throw new Error(`answered ${answer.status}`)
}

const anyReady = (urls: readonly string[]) => Promise.any(urls.map(ready))
