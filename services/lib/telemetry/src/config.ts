import { bool, ConfigProblem, defineConfig, duration, secret, text, url, type ConfigOf } from '@haven/config'

/** Traces: Harbor's names (harbor-jobs-and-data.md, TRACE_*) and OpenTelemetry's own. */
export const tracingConfig = defineConfig('TRACE', {
  enabled: bool({ default: false, doc: 'Send traces. Also on when OTEL_EXPORTER_OTLP_ENDPOINT is given.' }),
  otlpEndpoint: url({
    env: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    optional: true,
    doc: 'Base URL of an OTLP/HTTP receiver, such as http://collector:4318; /v1/traces is added.',
  }),
  otelEndpoint: text({ optional: true, doc: 'Host and port of an OTLP/HTTP receiver, as Harbor writes it.' }),
  otelUrlPath: text({ default: '/v1/traces', doc: 'Path of the receiver.' }),
  otelInsecure: bool({ default: false, doc: 'Reach TRACE_OTEL_ENDPOINT over http instead of https.' }),
  otelCompression: bool({ default: false, doc: 'Compress what is sent with gzip.' }),
  otelTimeoutMs: duration({ default: '10s', min: '100ms', max: '60s', doc: 'How long one batch may take.' }),
  otlpHeaders: secret({
    env: 'OTEL_EXPORTER_OTLP_HEADERS',
    optional: true,
    doc: 'Headers of each request to the receiver: name=value, separated by commas.',
  }),
  sampleRate: text({ default: '1', doc: 'Share of the traces that begin here and are kept, from 0 to 1.' }),
  serviceName: text({ optional: true, doc: 'Instead of haven-<service> as the name of the process in its traces.' }),
  namespace: text({ optional: true, doc: 'service.namespace of the traces.' }),
  attributes: text({ default: '{}', doc: 'More attributes of the process in its traces, as a JSON object of texts.' }),
})

export type TracingConfig = ConfigOf<typeof tracingConfig>

/** What an exporter needs, of what may be given in two ways; null when no traces are asked for. */
export type TracingTarget = {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly sampleRate: number
  readonly attributes: Readonly<Record<string, string>>
}

/** @throws ConfigProblem for traces that are asked for and have nowhere to go, and for values that cannot be read. */
export function targetOf(config: TracingConfig): TracingTarget | null {
  const { enabled, otlpEndpoint, otelEndpoint, otelUrlPath, otelInsecure } = config
  if (!enabled && otlpEndpoint === undefined) return null
  const path = otelUrlPath.startsWith('/') ? otelUrlPath : `/${otelUrlPath}`
  const base = otlpEndpoint ?? (otelEndpoint && withScheme(otelEndpoint, otelInsecure))
  if (base === undefined) {
    throw wrong('TRACE_OTEL_ENDPOINT', null, 'the host and port of an OTLP/HTTP receiver, since TRACE_ENABLED is true')
  }
  if (URL.parse(base) === null) throw wrong('TRACE_OTEL_ENDPOINT', base, 'a host and port, such as collector:4318')
  const sampleRate = Number(config.sampleRate)
  if (!(sampleRate >= 0 && sampleRate <= 1)) throw wrong('TRACE_SAMPLE_RATE', config.sampleRate, 'a number from 0 to 1')
  return {
    url: base.replace(/\/+$/, '') + path,
    headers: headersIn(config.otlpHeaders ?? ''),
    sampleRate,
    attributes: attributesIn(config.attributes),
  }
}

const withScheme = (endpoint: string, insecure: boolean) =>
  endpoint.includes('://') ? endpoint : `${insecure ? 'http' : 'https'}://${endpoint}`

function headersIn(list: string): Record<string, string> {
  const pairs = list.split(',').filter((pair) => pair.trim() !== '')
  return Object.fromEntries(
    pairs.map((pair) => {
      const [, name, value] = /^\s*([\w-]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? []
      if (name === undefined) throw wrong('OTEL_EXPORTER_OTLP_HEADERS', null, 'name=value, separated by commas')
      return [name, decoded(value!)]
    }),
  )
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    throw wrong('OTEL_EXPORTER_OTLP_HEADERS', null, 'values whose percent signs encode UTF-8')
  }
}

function attributesIn(json: string): Record<string, string> {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    value = null
  }
  if (typeof value !== 'object' || value === null || !Object.values(value).every((one) => typeof one === 'string')) {
    throw wrong('TRACE_ATTRIBUTES', json, 'a JSON object whose values are texts')
  }
  return value as Record<string, string>
}

const wrong = (name: string, given: string | null, expected: string) => new ConfigProblem([{ name, given, expected }])
