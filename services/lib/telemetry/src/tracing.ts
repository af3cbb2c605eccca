import type { EventEmitter } from 'node:events'
import { readConfig, secretsOf, type Environment } from '@haven/config'
import { targetOf, tracingConfig } from './config.ts'

type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

/** What travels beside work that another process does: W3C Trace Context. */
export type Carrier = { readonly traceparent?: string | undefined; readonly tracestate?: string | undefined }

export type SpanOptions = {
  readonly name: string
  readonly kind?: 'internal' | 'server' | 'client' | 'producer' | 'consumer'
  readonly attributes?: Attributes
  /** Where the work came from; otherwise the span that is open here. */
  readonly from?: Carrier
}

/** A span whose end is not the end of a function. */
export interface OpenSpan {
  /** Runs `work` inside of the span. */
  run<T>(work: () => T): T
  /** Listeners that are added from now on run inside of the span, whoever emits. */
  bind(emitter: EventEmitter): void
  readonly carrier: Carrier
  end(attributes?: Attributes, options?: { readonly name?: string; readonly failure?: string }): void
}

/** Traces that are being sent. */
export interface Tracing extends AsyncDisposable {
  open(options: SpanOptions): OpenSpan
  /** As `open`, but null where no span is open: work that nobody asked for (a poll, a sign of life) makes no trace of its own. */
  openInside(options: SpanOptions): OpenSpan | null
  /** The span that is open here, for another process. */
  carrier(): Carrier
  /** The span that is open here, for a log line. */
  ids(): { readonly trace: string; readonly span: string } | null
}

let active: Tracing | null = null

/**
 * Null unless `startTracing` found traces asked for. Whoever has something to trace asks once, when it is constructed, and is not wrapped when they are off.
 */
export const tracing = (): Tracing | null => active

/**
 * Starts to send traces when the settings ask for it; otherwise loads nothing and returns null. Call it before anything that is to be traced is made.
 * @param process what the process is called, `registry`
 * @throws ConfigProblem
 */
export async function startTracing(options: {
  readonly process: string
  readonly env: Environment
  readonly hide: (secrets: readonly string[]) => void
  /** Told when spans are lost. */
  readonly onFailure: (failure: Error) => void
}): Promise<Tracing | null> {
  const config = readConfig(tracingConfig, options.env)
  const target = targetOf(config)
  if (target === null) return null
  options.hide([...secretsOf(config), ...Object.values(target.headers)])
  const { OtlpTracing } = await import('./otlp-tracing.ts')
  active = new OtlpTracing(target, config, options)
  return active
}

/** Runs `work` under a span; just runs it when traces are off or nobody's trace is open here. */
export async function inSpan<T>(options: SpanOptions, work: () => Promise<T>): Promise<T> {
  const span = options.from ? active?.open(options) : active?.openInside(options)
  if (!span) return work()
  try {
    const result = await span.run(work)
    span.end()
    return result
  } catch (error) {
    span.end({}, { failure: error instanceof Error ? error.message : String(error) })
    throw error
  }
}
