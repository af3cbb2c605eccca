import { randomUUID } from 'node:crypto'
import type { EventEmitter } from 'node:events'
import { hostname } from 'node:os'
import {
  context,
  diag,
  DiagLogLevel,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Context,
  type Span,
} from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { W3CTraceContextPropagator } from '@opentelemetry/core'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { CompressionAlgorithm } from '@opentelemetry/otlp-exporter-base'
import { resourceFromAttributes } from '@opentelemetry/resources'
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace'
import type { TracingConfig, TracingTarget } from './config.ts'
import { followRedis } from './redis-spans.ts'
import type { Carrier, OpenSpan, SpanOptions, Tracing } from './tracing.ts'

const BATCH_MS = 1_000
/** A receiver that is away must not keep a process that was asked to stop. */
const LAST_BATCH_MS = 3_000

const kinds = {
  internal: SpanKind.INTERNAL,
  server: SpanKind.SERVER,
  client: SpanKind.CLIENT,
  producer: SpanKind.PRODUCER,
  consumer: SpanKind.CONSUMER,
}

/**
 * Spans by OpenTelemetry's SDK, from our own seams and not by its instrumentations: those patch modules as they are loaded, which a bundle does not let
 * them, and would see each poll of each queue.
 */
export class OtlpTracing implements Tracing {
  readonly #provider: TracerProvider
  readonly #onFailure: (failure: Error) => void
  readonly #tracer
  readonly #contexts = new AsyncLocalStorageContextManager().enable()

  constructor(
    target: TracingTarget,
    config: TracingConfig,
    { process: name, onFailure }: { process: string; onFailure: (failure: Error) => void },
  ) {
    const lost = (message: string) => onFailure(new Error(`sending traces: ${sentenceOf(message)}`))
    this.#onFailure = onFailure
    const silent = () => undefined
    diag.setLogger(
      { error: lost, warn: lost, info: silent, debug: silent, verbose: silent },
      { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
    )
    context.setGlobalContextManager(this.#contexts)
    propagation.setGlobalPropagator(new W3CTraceContextPropagator())
    const exporter = new OTLPTraceExporter({
      url: target.url,
      headers: target.headers,
      timeoutMillis: config.otelTimeoutMs,
      compression: config.otelCompression ? CompressionAlgorithm.GZIP : CompressionAlgorithm.NONE,
    })
    this.#provider = new TracerProvider({
      resource: resourceFromAttributes({
        'service.name': config.serviceName ?? `haven-${name}`,
        ...(config.namespace !== undefined && { 'service.namespace': config.namespace }),
        'service.instance.id': randomUUID(),
        'host.name': hostname(),
        'process.pid': process.pid,
        ...target.attributes,
      }),
      sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(target.sampleRate) }),
      spanLimits: { attributeValueLengthLimit: 2048, attributeCountLimit: 64 },
      spanProcessors: [new BatchSpanProcessor({ exporter, scheduledDelayMillis: BATCH_MS, maxQueueSize: 8192 })],
    })
    this.#tracer = this.#provider.getTracer('haven')
    followRedis(this)
  }

  open({ name, kind = 'internal', attributes = {}, from }: SpanOptions): OpenSpan {
    const parent = from ? propagation.extract(ROOT_CONTEXT, from) : context.active()
    const span = this.#tracer.startSpan(name, { kind: kinds[kind], attributes: { ...attributes } }, parent)
    return new Opened(span, trace.setSpan(parent, span), this.#contexts)
  }

  openInside(options: SpanOptions): OpenSpan | null {
    return trace.getActiveSpan() ? this.open(options) : null
  }

  carrier(): Carrier {
    return carrierOf(context.active())
  }

  ids(): { trace: string; span: string } | null {
    const active = trace.getActiveSpan()?.spanContext()
    return active ? { trace: active.traceId, span: active.spanId } : null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LAST_BATCH_MS)
    })
    const sent = this.#provider.shutdown().catch((cause: unknown) => {
      this.#onFailure(new Error('sending the last traces', { cause }))
    })
    await Promise.race([sent, late])
    clearTimeout(timer)
  }
}

class Opened implements OpenSpan {
  readonly #span: Span
  readonly #context: Context
  readonly #contexts: AsyncLocalStorageContextManager

  constructor(span: Span, own: Context, contexts: AsyncLocalStorageContextManager) {
    this.#span = span
    this.#context = own
    this.#contexts = contexts
  }

  run<T>(work: () => T): T {
    return context.with(this.#context, work)
  }

  bind(emitter: EventEmitter): void {
    this.#contexts.bind(this.#context, emitter)
  }

  get carrier(): Carrier {
    return carrierOf(this.#context)
  }

  end(
    attributes: Readonly<Record<string, string | number | boolean | undefined>> = {},
    { name, failure }: { name?: string; failure?: string } = {},
  ): void {
    for (const [key, value] of Object.entries(attributes)) if (value !== undefined) this.#span.setAttribute(key, value)
    if (name !== undefined) this.#span.updateName(name)
    if (failure !== undefined) this.#span.setStatus({ code: SpanStatusCode.ERROR, message: failure })
    this.#span.end()
  }
}

/** The SDK tells of errors as JSON of all their properties. */
function sentenceOf(told: string): string {
  const [, message = told] = /"message":"((?:[^"\\]|\\.)*)"/.exec(told) ?? []
  return message.slice(0, 500)
}

function carrierOf(of: Context): Carrier {
  const carrier: { traceparent?: string; tracestate?: string } = {}
  propagation.inject(of, carrier)
  return carrier
}
