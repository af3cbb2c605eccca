import { operations } from '@haven/proto'
import { Family, requestSeconds, type Metrics } from '@haven/runtime'

const operationIds = new Map<string, string>(
  Object.values(operations).map(({ method, path, operationId }) => [`${method} ${path}`, operationId]),
)

/** Requests under the names that dashboards of Harbor's core ask for (harbor-features.md W), from what is counted anyway. */
export function harborMetrics(metrics: Metrics): () => string {
  const flying = metrics.inFlight('core')
  return () => {
    const inFlight = new Family('harbor_core_http_inflight_requests', 'gauge', 'Requests that are not answered yet.')
    const total = new Family('harbor_core_http_request_total', 'counter', 'Requests answered.')
    const time = new Family(
      'harbor_core_http_request_duration_seconds',
      'summary',
      'How long requests took, since the start.',
    )
    for (const { route, method, statuses, buckets, seconds } of metrics.served('core')) {
      const labels = { method, operation: operationIds.get(`${method} ${route}`) ?? route }
      for (const [code, n] of statuses) total.add({ ...labels, code }, n)
      time.addSummary(labels, requestSeconds, buckets, seconds)
    }
    return inFlight.add({}, flying.now).text() + total.text() + time.text()
  }
}
