import type { Foundation } from '@haven/foundation'
import type { Host, Service } from '@haven/runtime'
import type { ExporterConfig } from './config.ts'
import { createExporter } from './service.ts'

/** The exporter from its settings and what its process shares. */
export async function openExporter(
  { config, ...host }: Host<ExporterConfig>,
  foundation: Foundation,
): Promise<Service> {
  return createExporter({
    ...host,
    config,
    db: foundation.db(),
    redis: foundation.redis(),
    settings: foundation.settings(),
  })
}
