import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

type Value = { stringValue?: string; intValue?: number | string; boolValue?: boolean }
type Pair = { key: string; value: Value }
type Sent = {
  resourceSpans: {
    resource: { attributes: Pair[] }
    scopeSpans: {
      spans: {
        traceId: string
        spanId: string
        parentSpanId?: string
        name: string
        kind: number
        attributes: Pair[]
        status?: { code?: number }
      }[]
    }[]
  }[]
}

export type ReceivedSpan = {
  /** `service.name` of the process that sent it. */
  process: string
  name: string
  trace: string
  id: string
  parent: string | null
  attributes: Record<string, string | number | boolean | undefined>
  failed: boolean
}

/** Takes spans by OTLP over HTTP with JSON (opentelemetry.io, OTLP 1.x) and keeps them. */
export class OtlpReceiver implements AsyncDisposable {
  readonly spans: ReceivedSpan[] = []
  /** Of each request that was taken. */
  readonly headers: Record<string, string | string[] | undefined>[] = []
  readonly #server: Server

  private constructor() {
    this.#server = createServer((req, res) => {
      const parts: Buffer[] = []
      req.on('data', (part: Buffer) => parts.push(part))
      req.on('end', () => {
        if (req.method === 'POST' && req.url === '/v1/traces') {
          this.headers.push(req.headers)
          this.#take(JSON.parse(Buffer.concat(parts).toString()) as Sent)
          res.writeHead(200, { 'Content-Type': 'application/json' }).end('{}')
        } else res.writeHead(404).end()
      })
    })
  }

  static async start(): Promise<OtlpReceiver> {
    const receiver = new OtlpReceiver()
    await new Promise<void>((resolve) => receiver.#server.listen(0, '127.0.0.1', resolve))
    return receiver
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  #take({ resourceSpans }: Sent) {
    for (const { resource, scopeSpans } of resourceSpans) {
      const process = String(valuesOf(resource.attributes)['service.name'])
      for (const { spans } of scopeSpans) {
        for (const { traceId, spanId, parentSpanId, name, attributes, status } of spans) {
          this.spans.push({
            process,
            name,
            trace: traceId,
            id: spanId,
            parent: parentSpanId || null,
            attributes: valuesOf(attributes),
            failed: status?.code === 2,
          })
        }
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

const valuesOf = (pairs: readonly Pair[]) =>
  Object.fromEntries(
    pairs.map(({ key, value }) => [key, value.stringValue ?? value.boolValue ?? Number(value.intValue)]),
  )
