import type { Definition, Settings } from '@haven/config'
import { coreConfig } from '@haven/core/config'
import { exporterConfig } from '@haven/exporter/config'
import { foundationConfig } from '@haven/foundation'
import { jobserviceConfig } from '@haven/jobservice/config'
import { logCollectorConfig } from '@haven/log-collector/config'
import { outboundConfig } from '@haven/outbound'
import { proxyConfig } from '@haven/proxy/config'
import { registryConfig } from '@haven/registry/config'
import { registryctlConfig } from '@haven/registryctl/config'
import { storageConfig } from '@haven/storage'
import { tracingConfig } from '@haven/telemetry'
import { tokenConfig } from '@haven/token/config'
import { launcherConfig } from './settings.ts'

/** Every setting that something reads, by who reads it. */
export const definitions: Readonly<Record<string, Definition<Settings>>> = {
  'make up': launcherConfig,
  'every service with a database': foundationConfig,
  'every service that reads or writes blobs': storageConfig,
  'requests to other servers': outboundConfig,
  traces: tracingConfig,
  proxy: proxyConfig,
  registry: registryConfig,
  token: tokenConfig,
  core: coreConfig,
  jobservice: jobserviceConfig,
  registryctl: registryctlConfig,
  exporter: exporterConfig,
  'log-collector': logCollectorConfig,
}
