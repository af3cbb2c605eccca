import { bool, defineConfig, duration, int, port, text, url, type ConfigOf } from '@haven/config'
import { serviceSettings } from '@haven/runtime'

const address = (name: string, port: number) =>
  url({ env: `${name}_URL`, default: `http://127.0.0.1:${port}`, doc: 'Where it answers /readyz and /metrics.' })

/** The exporter, and the port on which the metrics of all services are found as Harbor's are (harbor-features.md W). */
export const exporterConfig = defineConfig('EXPORTER', {
  ...serviceSettings({ port: 5007 }),
  coreUrl: address('CORE', 5002),
  registryUrl: address('REGISTRY', 5000),
  tokenUrl: address('TOKEN', 5001),
  jobserviceUrl: address('JOBSERVICE', 5004),
  registryctlUrl: address('REGISTRYCTL', 5003),
  portalUrl: url({ env: 'PORTAL_URL', optional: true, doc: 'Where to ask after the portal: /readyz of the proxy.' }),
  frontUrls: text({
    optional: true,
    doc: 'Where the processes that run proxy, registry, token and core together answer, separated by commas, when those have no ports of their own.',
  }),
  projects: int({
    default: 1000,
    min: 0,
    max: 100_000,
    doc: 'Projects that have series of their own, the oldest first; the totals count all.',
  }),
  cacheMs: duration({ default: '15s', max: '1h', doc: 'How old an answer may be.' }),
  metricEnable: bool({
    env: 'METRIC_ENABLE',
    default: false,
    doc: 'Open METRIC_PORT: the exporter’s metrics, and with ?comp=core, registry, jobservice, … those of a service.',
  }),
  metricHost: text({ env: 'METRIC_HOST', default: '127.0.0.1', doc: 'Address of METRIC_PORT.' }),
  metricPort: port({ env: 'METRIC_PORT', default: 9090, doc: 'Port for Prometheus.' }),
  metricPath: text({ env: 'METRIC_PATH', default: '/metrics', doc: 'Path of the metrics on METRIC_PORT.' }),
})

export type ExporterConfig = ConfigOf<typeof exporterConfig>
