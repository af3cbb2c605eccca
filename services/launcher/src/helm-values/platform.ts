import { dirname } from 'node:path'
import { knownSecrets } from '@haven/runtime'
import { hostOf, open, portOf, WITH_DATABASE } from './backends.ts'
import { fromSecret, given, podOf } from './kubernetes-objects.ts'
import type { Overlay } from './overlay.ts'
import type { HelmValues } from './values.ts'

/** The administrator's password; the secrets between services are made anew in any case. */
export function passwords(values: HelmValues, overlay: Overlay): void {
  overlay.secret('internal')
  const existing = values.text('existingSecretAdminPassword')
  const key = values.text('existingSecretAdminPasswordKey') ?? 'HARBOR_ADMIN_PASSWORD'
  const password = values.text('harborAdminPassword')
  if (existing !== undefined) {
    const env = [{ name: 'HAVEN_ADMIN_PASSWORD', ...fromSecret(existing, key) }]
    overlay.patch('Deployment', 'core', podOf('core', { containers: [{ name: 'haven', env }] }))
  } else if (password === undefined || knownSecrets.includes(password)) {
    overlay.secret('admin')
    if (password !== undefined)
      overlay.say(
        'harborAdminPassword',
        'cannot',
        'it is the chart’s own, which everybody knows: make-secrets makes another (secrets/admin.env)',
      )
  } else overlay.secret('admin', { HAVEN_ADMIN_PASSWORD: password })
}

/** Authorities that we trust, and the one that is offered to clients. */
export function authorities(values: HelmValues, overlay: Overlay): void {
  const everybody = values.text('caBundleSecretName')
  const stores = values.text('persistence.imageChartStorage.caBundleSecretName')
  const bundle = everybody ?? stores
  if (bundle !== undefined) {
    const path = '/etc/haven/authorities/ca.crt'
    const volumeMounts = [{ name: 'authorities', mountPath: dirname(path), readOnly: true }]
    const volumes = [{ name: 'authorities', secret: { secretName: bundle } }]
    overlay.setting('NODE_EXTRA_CA_CERTS', path)
    overlay.patch('Deployment', '.*', podOf('every', { containers: [{ name: 'haven', volumeMounts }], volumes }))
    // It reads no settings but those of the database.
    const env = [{ name: 'NODE_EXTRA_CA_CERTS', value: path }]
    overlay.patch(
      'Deployment',
      WITH_DATABASE,
      podOf('every', { initContainers: [{ name: 'migrate', env, volumeMounts }] }),
    )
  }
  if (stores !== undefined && stores !== bundle) {
    overlay.say(
      'persistence.imageChartStorage.caBundleSecretName',
      'cannot',
      `one bundle is read: put its certificates into ${bundle} as well`,
    )
  }
  const offered = values.text('caSecretName')
  if (offered !== undefined) {
    overlay.setting('CORE_CA_CERTIFICATE', '/etc/haven/offered/ca.crt')
    const mount = { name: 'offered', mountPath: '/etc/haven/offered', readOnly: true }
    const items = [{ key: 'ca.crt', path: 'ca.crt' }]
    overlay.patch(
      'Deployment',
      'core',
      podOf('core', {
        containers: [{ name: 'haven', volumeMounts: [mount] }],
        volumes: [{ name: 'offered', secret: { secretName: offered, items } }],
      }),
    )
  }
}

/** What is a setting of the services. */
export function platform(values: HelmValues, overlay: Overlay): void {
  const level = values.oneOf('logLevel', ['debug', 'info', 'warning', 'error', 'fatal'], 'info')
  overlay.setting('LOG_LEVEL', level === 'warning' ? 'warn' : level)
  overlay.setting('GDPR_DELETE_USER', values.flag('core.gdpr.deleteUser'))
  overlay.setting('GDPR_AUDIT_LOGS', values.flag('core.gdpr.auditLogsCompliant'))
  overlay.setting('JOBSERVICE_WORKERS', values.whole('jobservice.maxJobWorkers'))
  const seconds = values.whole('exporter.cacheDuration')
  overlay.setting('EXPORTER_CACHE', seconds && `${seconds}s`)
  if (values.flag('registry.upload_purging.enabled') === false) {
    overlay.say(
      'registry.upload_purging.enabled',
      'cannot',
      'uploads nobody goes on with are swept; REGISTRY_UPLOAD_EXPIRY may be long',
    )
  }
  overlay.setting('REGISTRY_UPLOAD_EXPIRY', values.text('registry.upload_purging.age'))
  const overwrite = values.prose('core.configureUserSettings')
  if (overwrite !== undefined) {
    overlay.secret('configuration', { CONFIG_OVERWRITE_JSON: overwrite.replaceAll(/\s*\n\s*/g, ' ').trim() })
    overlay.patch(
      'Deployment',
      'core',
      podOf('core', {
        containers: [
          {
            name: 'haven',
            envFrom: [{ configMapRef: { name: 'haven-settings' } }, { secretRef: { name: 'haven-configuration' } }],
          },
        ],
      }),
    )
  }
  if (values.flag('ipFamily.ipv4.enabled') === false) {
    for (const name of [
      'PROXY',
      'PROXY_METRICS',
      'REGISTRY',
      'TOKEN',
      'CORE',
      'REGISTRYCTL',
      'JOBSERVICE',
      'LOG_COLLECTOR',
    ])
      overlay.setting(`${name}_HOST`, '::')
  }

  const pullSecrets = values.list('imagePullSecrets')
  const pullPolicy = values.text('imagePullPolicy')
  if (pullSecrets) overlay.patch('Deployment|StatefulSet', '.*', podOf('every', { imagePullSecrets: pullSecrets }))
  if (pullPolicy !== undefined && pullPolicy !== 'IfNotPresent') {
    overlay.patch('Deployment', '.*', podOf('every', { containers: [{ name: 'haven', imagePullPolicy: pullPolicy }] }))
  }
}

/** Metrics for the Prometheus Operator; the services serve them in any case. */
export function monitoring(values: HelmValues, overlay: Overlay): void {
  const at = 'metrics.serviceMonitor'
  const wanted = values.flag(`${at}.enabled`) ?? false
  const labels = values.tree(`${at}.additionalLabels`)
  const endpoint = {
    ...given('interval', values.text(`${at}.interval`)),
    ...given('metricRelabelings', values.list(`${at}.metricRelabelings`)),
    ...given('relabelings', values.list(`${at}.relabelings`)),
  }
  if (!wanted) return
  overlay.component('service-monitor')
  overlay.say(
    `${at}.enabled`,
    'cannot',
    'the network policy `metrics` lets the namespace monitoring in; if Prometheus is in another, change it',
  )
  if (labels) {
    overlay.patch('ServiceMonitor', 'haven', {
      apiVersion: 'monitoring.coreos.com/v1',
      kind: 'ServiceMonitor',
      metadata: { name: 'haven', labels },
    })
  }
  const changes = Object.entries(endpoint).map(([key, value]) => ({
    op: 'add',
    path: `/spec/endpoints/0/${key}`,
    value,
  }))
  if (changes.length > 0) overlay.patch('ServiceMonitor', 'haven', changes)
}

/** The settings of traces have Harbor's names here too. */
export function traces(values: HelmValues, overlay: Overlay): void {
  if (values.flag('trace.enabled') !== true) return
  if (values.oneOf('trace.provider', ['jaeger', 'otel'], 'jaeger') === 'jaeger') {
    overlay.say(
      'trace.provider',
      'cannot',
      'no traces go by the protocol of Jaeger; it takes OTLP at port 4318, as trace.provider: otel',
    )
    return
  }
  const endpoint = values.text('trace.otel.endpoint') ?? 'hostname:4318'
  const insecure = values.flag('trace.otel.insecure') ?? true
  const timeout = values.whole('trace.otel.timeout')
  const attributes = values.tree('trace.attributes')
  overlay.setting('TRACE_ENABLED', true)
  overlay.setting('TRACE_OTEL_ENDPOINT', endpoint)
  overlay.setting('TRACE_OTEL_URL_PATH', values.text('trace.otel.url_path'))
  overlay.setting('TRACE_OTEL_INSECURE', insecure)
  overlay.setting('TRACE_OTEL_COMPRESSION', values.flag('trace.otel.compression'))
  overlay.setting('TRACE_OTEL_TIMEOUT', timeout && `${timeout}s`)
  overlay.setting('TRACE_SAMPLE_RATE', values.text('trace.sample_rate'))
  overlay.setting('TRACE_NAMESPACE', values.text('trace.namespace'))
  overlay.setting('TRACE_ATTRIBUTES', attributes && JSON.stringify(attributes))
  const url = endpoint.includes('://') ? endpoint : `${insecure ? 'http' : 'https'}://${endpoint}`
  open(overlay, 'traces', portOf(url), hostOf(url))
}
