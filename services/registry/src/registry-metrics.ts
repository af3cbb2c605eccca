import type { Socket } from 'node:net'
import { Family, requestSeconds, type Metrics } from '@haven/runtime'

/** Distribution's names for what a request is about. */
const handlers: Readonly<Record<string, string>> = {
  '/v2/': 'base',
  '/v2/_catalog': 'catalog',
  '/v2/{name}/tags/list': 'tags',
  '/v2/{name}/manifests/{reference}': 'manifest',
  '/v2/{name}/blobs/{digest}': 'blob',
  '/v2/{name}/blobs/uploads/': 'blob_upload',
  '/v2/{name}/blobs/uploads/{upload}': 'blob_upload_chunk',
  '/v2/{name}/referrers/{digest}': 'referrers',
}
const handlerOf = (route: string) => handlers[route] ?? 'other'

/** Upper bounds of the buckets of sizes, as Distribution has them: 1 KiB to 2 GiB, each twice the one before. */
const sizes = Array.from({ length: 22 }, (_, i) => 1024 * 2 ** i)

/** What one request moves, as far as its handler knows. */
export type Moved = {
  /** The route that it matched; null before. */
  route: string | null
  /** Bytes of its body that were read. */
  receivedBytes: number
  /** Bytes of its answer that the proxy sends. */
  handedOverBytes: number
}

type Kind = { flying: number; received: Sizes; sent: Sizes }

/** Requests under the names that dashboards of Distribution ask for (harbor-features.md W). */
export class RegistryMetrics {
  readonly #metrics: Metrics
  readonly #kinds = new Map(Object.values(handlers).map((name) => [name, newKind()]))

  constructor(metrics: Metrics) {
    this.#metrics = metrics
    metrics.derive(() => this.#text())
  }

  /** Runs what answers a request, and counts what it moves over its connection. */
  async follow(socket: Socket, answer: (moved: Moved) => Promise<void>): Promise<void> {
    const sentBefore = socket.bytesWritten
    const moved: Moved = { route: null, receivedBytes: 0, handedOverBytes: 0 }
    await answer(moved)
    if (moved.route === null) return
    const kind = this.#kind(moved.route)
    kind.flying -= 1
    kind.received.add(moved.receivedBytes)
    kind.sent.add(socket.bytesWritten - sentBefore + moved.handedOverBytes)
  }

  /** What the request is about is known from now on. */
  matched(moved: Moved, route: string): void {
    moved.route = route
    this.#kind(route).flying += 1
  }

  /** A request without an object of `node:http` waits. @returns what is called when it does no more */
  flies(route: string): () => void {
    const kind = this.#kind(route)
    kind.flying += 1
    return () => void (kind.flying -= 1)
  }

  /** Such a request was answered. @param sentBytes of the answer with its head */
  answered(route: string, sentBytes: number): void {
    const kind = this.#kind(route)
    kind.received.add(0)
    kind.sent.add(sentBytes)
  }

  #kind(route: string): Kind {
    const handler = handlerOf(route)
    let kind = this.#kinds.get(handler)
    if (!kind) this.#kinds.set(handler, (kind = newKind()))
    return kind
  }

  #text(): string {
    const inFlight = new Family('registry_http_in_flight_requests', 'gauge', 'Requests that are not answered yet.')
    const total = new Family('registry_http_requests_total', 'counter', 'Requests answered.')
    const time = new Family('registry_http_request_duration_seconds', 'histogram', 'How long requests took.')
    const received = new Family('registry_http_request_size_bytes', 'histogram', 'Bytes of the bodies of requests.')
    const sent = new Family(
      'registry_http_response_size_bytes',
      'histogram',
      'Bytes of answers with their heads, and those that the proxy sends for them.',
    )
    for (const { route, method, statuses, buckets, seconds } of this.#metrics.served('registry')) {
      const labels = { handler: handlerOf(route), method: method.toLowerCase() }
      for (const [code, n] of statuses) total.add({ ...labels, code }, n)
      time.addHistogram(labels, requestSeconds, buckets, seconds)
    }
    for (const [handler, kind] of this.#kinds) {
      inFlight.add({ handler }, kind.flying)
      if (kind.sent.sumBytes === 0) continue // nothing was answered yet
      received.addHistogram({ handler }, sizes, kind.received.buckets, kind.received.sumBytes)
      sent.addHistogram({ handler }, sizes, kind.sent.buckets, kind.sent.sumBytes)
    }
    return [inFlight, total, time, received, sent].map((family) => family.text()).join('')
  }
}

class Sizes {
  readonly buckets = Array<number>(sizes.length + 1).fill(0)
  sumBytes = 0

  add(bytes: number): void {
    const above = Math.ceil(Math.log2(bytes)) - Math.log2(sizes[0]!)
    this.buckets[Math.max(0, Math.min(sizes.length, above))]! += 1
    this.sumBytes += bytes
  }
}

const newKind = (): Kind => ({ flying: 0, received: new Sizes(), sent: new Sizes() })
