import { describe, expect, it } from '@jest/globals'
import { readConfig } from '@haven/config'
import { targetOf, tracingConfig } from './config.ts'
import { cause, causedBy, inSpan, tracing } from './index.ts'

const target = (env: Record<string, string>) => targetOf(readConfig(tracingConfig, env))

describe('the settings of traces', () => {
  it('ask for none by default', () => {
    expect(target({ TRACE_OTEL_ENDPOINT: 'collector:4318' })).toBeNull()
  })

  it.each([
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318/' }, 'http://collector:4318/v1/traces'],
    [{ TRACE_ENABLED: 'true', TRACE_OTEL_ENDPOINT: 'collector:4318' }, 'https://collector:4318/v1/traces'],
    [
      {
        TRACE_ENABLED: 'true',
        TRACE_OTEL_ENDPOINT: 'collector:4318',
        TRACE_OTEL_INSECURE: 'true',
        TRACE_OTEL_URL_PATH: 'spans',
      },
      'http://collector:4318/spans',
    ],
  ])('read Harbor’s names and OpenTelemetry’s: %j', (env, url) => {
    expect(target(env as Record<string, string>)?.url).toBe(url)
  })

  it('read headers, the share and attributes', () => {
    expect(
      target({
        OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c',
        OTEL_EXPORTER_OTLP_HEADERS: 'a=b%20c, d=e=f',
        TRACE_SAMPLE_RATE: '0.25',
        TRACE_ATTRIBUTES: '{"zone":"x"}',
      }),
    ).toMatchObject({ headers: { a: 'b c', d: 'e=f' }, sampleRate: 0.25, attributes: { zone: 'x' } })
  })

  it.each([
    ['TRACE_OTEL_ENDPOINT', { TRACE_ENABLED: 'true' }],
    ['TRACE_OTEL_ENDPOINT', { TRACE_ENABLED: 'true', TRACE_OTEL_ENDPOINT: 'a b' }],
    ['TRACE_SAMPLE_RATE', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c', TRACE_SAMPLE_RATE: '2' }],
    ['TRACE_ATTRIBUTES', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c', TRACE_ATTRIBUTES: '[1]' }],
    ['OTEL_EXPORTER_OTLP_HEADERS', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c', OTEL_EXPORTER_OTLP_HEADERS: 'nothing' }],
    ['OTEL_EXPORTER_OTLP_HEADERS', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c', OTEL_EXPORTER_OTLP_HEADERS: 'a=%' }],
    ['OTEL_EXPORTER_OTLP_HEADERS', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://c', OTEL_EXPORTER_OTLP_HEADERS: 'a=%ff' }],
  ])('name the one that is wrong: %s', (name, env) => {
    expect(() => target(env as Record<string, string>)).toThrow(name)
  })
})

describe('without traces', () => {
  it('work is just done, and its cause is the request', async () => {
    expect(tracing()).toBeNull()
    expect(await inSpan({ name: 'work' }, async () => 1)).toBe(1)
    expect(cause()).toEqual({})
    expect(await causedBy('r1', async () => cause())).toEqual({ request: 'r1' })
  })
})
