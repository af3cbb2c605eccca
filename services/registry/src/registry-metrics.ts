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

/** Requests under the names that dashboards of Distribution ask for (harbor-features.md W), from what is counted anyway. */
export function registryMetrics(metrics: Metrics): () => string {
  const flying = metrics.inFlight('registry')
  return () => {
    // Which handler a request will have is not known while it flies.
    const inFlight = new Family('registry_http_in_flight_requests', 'gauge', 'Requests that are not answered yet.')
    const total = new Family('registry_http_requests_total', 'counter', 'Requests answered.')
    const time = new Family('registry_http_request_duration_seconds', 'histogram', 'How long requests took.')
    for (const { route, method, statuses, buckets, seconds } of metrics.served('registry')) {
      const labels = { handler: handlers[route] ?? 'other', method: method.toLowerCase() }
      for (const [code, n] of statuses) total.add({ ...labels, code }, n)
      time.addHistogram(labels, requestSeconds, buckets, seconds)
    }
    return inFlight.add({ handler: 'all' }, flying.now).text() + total.text() + time.text()
  }
}
