import { describe, expect, it } from '@jest/globals'
import { inSpan, startTracing, tracing } from './index.ts'

describe('a receiver that is away', () => {
  it('changes no result, is told of, and keeps nobody from stopping', async () => {
    const failures: string[] = []
    const hidden: string[] = []
    // Port 9 (discard): nobody listens there.
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
      TRACE_OTEL_TIMEOUT: '100ms',
      OTEL_EXPORTER_OTLP_HEADERS: 'authorization=Bearer%20hush',
    }
    const onFailure = ({ message }: Error) => failures.push(message)
    const traces = await startTracing({ process: 'test', env, hide: (secrets) => hidden.push(...secrets), onFailure })
    expect(tracing()).toBe(traces)
    expect(hidden).toContain('Bearer hush')
    const seen = await inSpan({ name: 'work', from: {} }, async () => tracing()!.ids())
    expect(seen!.trace).toMatch(/^[\da-f]{32}$/)
    await expect(
      inSpan({ name: 'broken', from: {} }, async () => Promise.reject(new Error('of the work'))),
    ).rejects.toThrow('of the work')
    await traces![Symbol.asyncDispose]()
    expect(failures.length).toBeGreaterThan(0)
    expect(failures.join(' ')).not.toContain('{')
  }, 20_000)
})
