import { isIP } from 'node:net'
import { explainUnseen } from './not-ours.ts'
import { Overlay } from './overlay.ts'
import { HelmValues, type Tree } from './values.ts'

type Places = { readonly base: string; readonly namespace: string }

/**
 * An overlay of deploy/kubernetes that does what a `values.yaml` of the chart harbor-helm asks for, where it can, and a finding for each key
 * where it cannot.
 * @throws Problem badUsage for values that are no YAML or have the wrong form.
 */
export function translate(text: string, { base, namespace }: Places): Overlay {
  const values = new HelmValues(text)
  const overlay = new Overlay(base, namespace)
  for (const part of [
    expose,
    store,
    database,
    redis,
    passwords,
    authorities,
    platform,
    workloads,
    volumes,
    monitoring,
    traces,
  ]) {
    part(values, overlay)
  }
  values.refuseWrong()
  overlay.findings.push(...explainUnseen(values))
  return overlay
}

// --- the way in

function expose(values: HelmValues, overlay: Overlay): void {
  const type = values.oneOf('expose.type', ['ingress', 'clusterIP', 'nodePort', 'loadBalancer'], 'ingress')
  const encrypted = values.flag('expose.tls.enabled') ?? true
  const source = values.oneOf('expose.tls.certSource', ['auto', 'secret', 'none'], 'auto')
  const certificate = {
    encrypted,
    source,
    secretName: values.text('expose.tls.secret.secretName') ?? 'haven-tls',
    commonName: values.text('expose.tls.auto.commonName'),
  }
  // Of Notary's own Ingress, in charts before 1.13.
  if (values.text('expose.tls.secret.notarySecretName')) {
    overlay.say('expose.tls.secret.notarySecretName', 'not needed', 'signatures are stored beside the images')
  }
  const host = type === 'ingress' ? ingress(values, overlay, certificate) : service(type, values, overlay, certificate)
  externalUrl(values, overlay, `${encrypted ? 'https' : 'http'}://${host}`)
}

type Certificate = {
  encrypted: boolean
  source: 'auto' | 'secret' | 'none'
  secretName: string
  commonName: string | undefined
}

function externalUrl(values: HelmValues, overlay: Overlay, guess: string): void {
  const url = values.text('externalURL')
  if (url === undefined) overlay.say('externalURL', 'settle', `it is not given; ${guess} stands in HAVEN_EXTERNAL_URL`)
  else if (!/^https?:\/\/[^/\s]+\/?$/.test(url)) {
    overlay.say('externalURL', 'settle', 'it must be scheme and host, such as https://registry.example.com')
  }
  overlay.setting('HAVEN_EXTERNAL_URL', url ?? guess)
}

/** @returns the host of the Ingress */
function ingress(values: HelmValues, overlay: Overlay, { encrypted, source, secretName }: Certificate): string {
  overlay.component('ingress')
  const host = values.text('expose.ingress.hosts.core') ?? 'core.harbor.domain'
  const className = values.text('expose.ingress.className')
  const annotations = values.tree('expose.ingress.annotations')
  const labels = values.tree('expose.ingress.labels')
  // None: the controller has a certificate of its own for the host.
  const named = encrypted && source !== 'none'
  if (named && source === 'auto') askForCertificate(overlay, secretName, host)
  overlay.patch('Ingress', 'haven', {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: {
      name: 'haven',
      ...(labels && { labels }),
      annotations: {
        ...(!encrypted && { 'nginx.ingress.kubernetes.io/ssl-redirect': 'false' }),
        ...annotations,
      },
    },
    ...(className && { spec: { ingressClassName: className } }),
  })
  overlay.patch('Ingress', 'haven', [
    { op: 'replace', path: '/spec/rules/0/host', value: host },
    encrypted
      ? { op: 'replace', path: '/spec/tls', value: [{ hosts: [host], ...(named && { secretName }) }] }
      : { op: 'remove', path: '/spec/tls' },
  ])
  return host
}

function askForCertificate(overlay: Overlay, secretName: string, host: string): void {
  const command = `kubectl -n ${overlay.namespace} create secret tls ${secretName} --cert=FILE --key=FILE`
  overlay.say(
    'expose.tls.certSource',
    'settle',
    `no certificate is made: let cert-manager write the Secret ${secretName} for ${host}, or ${command}`,
  )
}

/** A Service of the chart's name beside ours, with the ports that clients know. @returns the host to reach it by */
function service(
  type: 'clusterIP' | 'nodePort' | 'loadBalancer',
  values: HelmValues,
  overlay: Overlay,
  certificate: Certificate,
): string {
  const at = `expose.${type}`
  const name = values.text(`${at}.name`) ?? 'harbor'
  const port = (kind: 'http' | 'https', otherwise: number) => ({
    port:
      (type === 'nodePort' ? values.whole(`${at}.ports.${kind}.port`) : values.whole(`${at}.ports.${kind}Port`)) ??
      otherwise,
    ...(type === 'nodePort' && {
      nodePort: values.whole(`${at}.ports.${kind}.nodePort`) ?? (kind === 'http' ? 30_002 : 30_003),
    }),
  })
  const ports: Tree[] = [{ name: 'door', targetPort: 'door', ...port('http', 80) }]
  const encrypted = port('https', 443)
  if (certificate.encrypted) {
    overlay.component('proxy-tls')
    ports.push({ name: 'door-tls', targetPort: 'door-tls', ...encrypted })
    if (certificate.source !== 'secret')
      askForCertificate(overlay, certificate.secretName, certificate.commonName ?? name)
    overlay.patch(
      'Deployment',
      'proxy',
      podOf('proxy', { volumes: [{ name: 'tls', secret: { secretName: certificate.secretName } }] }),
    )
  }
  const annotations = values.tree(`${at}.annotations`)
  const labels = values.tree(`${at}.labels`)
  const own = {
    clusterIP: () => ({ type: 'ClusterIP', ...given('clusterIP', values.text(`${at}.staticClusterIP`)) }),
    nodePort: () => ({ type: 'NodePort' }),
    loadBalancer: () => ({
      type: 'LoadBalancer',
      ...given('loadBalancerIP', values.text(`${at}.IP`)),
      ...given('loadBalancerSourceRanges', values.list(`${at}.sourceRanges`)),
    }),
  }
  overlay.resource('service.yaml', {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, ...given('labels', labels), ...given('annotations', annotations) },
    spec: { ...own[type](), selector: { 'app.kubernetes.io/component': 'proxy' }, ports },
  })
  return certificate.commonName ?? name
}

// --- where blobs, records and queues are

function store(values: HelmValues, overlay: Overlay): void {
  const at = 'persistence.imageChartStorage'
  const type = values.oneOf(`${at}.type`, ['filesystem', 's3', 'azure', 'gcs', 'swift', 'oss'], 'filesystem')
  if (type === 'filesystem') {
    overlay.component('store-files')
    return
  }
  overlay.component('store-s3')
  if (type !== 's3') {
    overlay.say(
      `${at}.type`,
      'settle',
      `blobs go to S3 or a volume, not to ${type}: give S3_ENDPOINT, S3_BUCKET and secrets/store.env of a store that speaks S3`,
    )
    overlay.secret('store')
    open(overlay, 'store', 443)
    return
  }
  const s3 = (key: string) => values.text(`${at}.s3.${key}`)
  const region = s3('region') ?? 'us-east-1'
  const secure = values.flag(`${at}.s3.secure`) ?? true
  const given = s3('regionendpoint')
  const endpoint =
    given === undefined
      ? `https://s3.${region}.amazonaws.com`
      : /:\/\//.test(given)
        ? given
        : `${secure ? 'https' : 'http'}://${given}`
  overlay.setting('S3_ENDPOINT', endpoint)
  overlay.setting('S3_REGION', region)
  overlay.setting('S3_BUCKET', s3('bucket') ?? 'haven')
  overlay.setting('S3_PATH_STYLE', given !== undefined)
  overlay.setting('S3_PREFIX', s3('rootdirectory')?.replaceAll(/^\/+|\/+$/g, ''))
  overlay.setting('REGISTRY_STORAGE_REDIRECT_DISABLE', values.flag(`${at}.disableredirect`) ?? false)

  const existing = s3('existingSecret')
  const accessKey = s3('accesskey')
  const secretKey = s3('secretkey')
  if (existing !== undefined) {
    const key = (name: string) => fromSecret(existing, `REGISTRY_STORAGE_S3_${name}`)
    overlay.patch(
      'Deployment',
      'core|proxy|registry|registryctl',
      podOf('every', {
        containers: [
          {
            name: 'haven',
            env: [
              { name: 'S3_ACCESS_KEY', ...key('ACCESSKEY') },
              { name: 'S3_SECRET_KEY', ...key('SECRETKEY') },
            ],
          },
        ],
      }),
    )
  } else if (accessKey !== undefined && secretKey !== undefined)
    overlay.secret('store', { S3_ACCESS_KEY: accessKey, S3_SECRET_KEY: secretKey })
  else {
    overlay.say(
      `${at}.s3.accesskey`,
      'settle',
      'keys are needed, a role of the node is not asked for any: run make-secrets with S3_ACCESS_KEY and S3_SECRET_KEY',
    )
    overlay.secret('store')
  }
  open(overlay, 'store', portOf(endpoint), hostOf(endpoint))
}

function database(values: HelmValues, overlay: Overlay): void {
  if (values.oneOf('database.type', ['internal', 'external'], 'internal') === 'internal') {
    overlay.component('postgres')
    overlay.secret('database')
    return
  }
  const at = 'database.external'
  const host = values.text(`${at}.host`)
  const port = values.whole(`${at}.port`) ?? 5432
  const user = values.text(`${at}.username`) ?? 'user'
  const existing = values.text(`${at}.existingSecret`)
  const password = values.text(`${at}.password`)
  const mode = values.oneOf(`${at}.sslmode`, ['disable', 'require', 'verify-ca', 'verify-full'], 'disable')
  if (host === undefined) overlay.say(`${at}.host`, 'settle', 'it is not given')
  if (mode === 'verify-ca')
    overlay.say(`${at}.sslmode`, 'cannot', 'the server’s name is checked too: it has to be in its certificate')
  // As the chart means it: encrypted, whoever answers.
  const tls = { disable: 'disable', require: 'no-verify', 'verify-ca': 'verify-full', 'verify-full': 'verify-full' }[
    mode
  ]
  const url = (secret: string) =>
    `postgresql://${encodeURIComponent(user)}:${secret}@${inUrl(host ?? 'unknown')}:${port}/haven?sslmode=${tls}`
  if (existing === undefined) {
    if (password === undefined) overlay.say(`${at}.password`, 'settle', 'it is not given')
    overlay.secret('database', { DATABASE_URL: url(encodeURIComponent(password ?? '')) })
  } else {
    composed(overlay, 'core|jobservice|registry|registryctl|token', {
      password: { name: 'DATABASE_PASSWORD', ...fromSecret(existing, 'password') },
      url: { name: 'DATABASE_URL', value: url('$(DATABASE_PASSWORD)') },
    })
    overlay.say(
      `${at}.existingSecret`,
      'cannot',
      'the password becomes part of a URL as it is: one with / ? # % or @ needs those escaped',
    )
  }
  open(overlay, 'postgres', port, host)
}

function redis(values: HelmValues, overlay: Overlay): void {
  if (values.oneOf('redis.type', ['internal', 'external'], 'internal') === 'internal') {
    overlay.component('redis')
    overlay.secret('redis')
    return
  }
  const at = 'redis.external'
  const address = values.text(`${at}.addr`)
  const sentinels = values.text(`${at}.sentinelMasterSet`)
  const user = values.text(`${at}.username`) ?? ''
  const password = values.text(`${at}.password`)
  const existing = values.text(`${at}.existingSecret`)
  const index = values.whole(`${at}.coreDatabaseIndex`) ?? 0
  const encrypted = values.flag(`${at}.tlsOptions.enable`) ?? false
  if (sentinels !== undefined) {
    overlay.say(
      `${at}.sentinelMasterSet`,
      'settle',
      'Sentinels are not asked: put the address of something that follows the primary (HAProxy, or a Service that the operator keeps) into REDIS_URL',
    )
    overlay.secret('redis')
    open(overlay, 'redis', 6379)
    return
  }
  const [, host, port] = /^(.+?)(?::(\d+))?$/.exec(address ?? '') ?? []
  if (host === undefined || address?.includes(',')) overlay.say(`${at}.addr`, 'settle', 'one host:port is needed')
  const sign = (secret: string) => (user || secret ? `${encodeURIComponent(user)}:${secret}@` : '')
  const url = (secret: string) =>
    `${encrypted ? 'rediss' : 'redis'}://${sign(secret)}${host ?? 'unknown'}:${port ?? 6379}/${index}`
  if (existing === undefined) overlay.secret('redis', { REDIS_URL: url(encodeURIComponent(password ?? '')) })
  else {
    composed(overlay, 'core|jobservice|registry|registryctl|token', {
      password: { name: 'REDIS_PASSWORD', ...fromSecret(existing, 'REDIS_PASSWORD') },
      url: { name: 'REDIS_URL', value: url('$(REDIS_PASSWORD)') },
    })
    overlay.say(
      `${at}.existingSecret`,
      'cannot',
      'the password becomes part of a URL as it is: one with / ? # % or @ needs those escaped',
    )
  }
  open(overlay, 'redis', Number(port ?? 6379), host)
}

/** A URL whose password is in somebody's Secret. A variable may only name those that stand before it. */
function composed(overlay: Overlay, deployments: string, { password, url }: { password: Tree; url: Tree }): void {
  const env = [password, { ...url, valueFrom: null }]
  overlay.patch(
    'Deployment',
    deployments,
    podOf('every', { initContainers: [{ name: 'migrate', env }], containers: [{ name: 'haven', env }] }),
  )
}

const clients = {
  postgres: ['core', 'jobservice', 'registry', 'registryctl', 'token'],
  redis: ['core', 'jobservice', 'registry', 'token'],
  store: ['core', 'proxy', 'registry', 'registryctl'],
  traces: ['core', 'jobservice', 'log-collector', 'proxy', 'registry', 'registryctl', 'token'],
}

/** The way out to a server of the installation's own: to its address, or to any but link-local where only a name is known. */
function open(overlay: Overlay, what: keyof typeof clients, port: number, host = ''): void {
  const ipBlock =
    isIP(host) === 4
      ? { cidr: `${host}/32` }
      : isIP(host) === 6
        ? { cidr: `${host}/128` }
        : { cidr: '0.0.0.0/0', except: ['169.254.0.0/16'] }
  overlay.resource('backends.yaml', {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: `to-${what}` },
    spec: {
      podSelector: {
        matchExpressions: [{ key: 'app.kubernetes.io/component', operator: 'In', values: clients[what] }],
      },
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock }], ports: [{ port }] }],
    },
  })
}

// --- secrets

/** Values that are published as the chart's own and therefore are no secrets (threats.md R8). */
const PUBLISHED = ['Harbor12345']

function passwords(values: HelmValues, overlay: Overlay): void {
  overlay.secret('internal')
  const existing = values.text('existingSecretAdminPassword')
  const key = values.text('existingSecretAdminPasswordKey') ?? 'HARBOR_ADMIN_PASSWORD'
  const password = values.text('harborAdminPassword')
  if (existing !== undefined) {
    const env = [{ name: 'HAVEN_ADMIN_PASSWORD', ...fromSecret(existing, key) }]
    overlay.patch('Deployment', 'core', podOf('core', { containers: [{ name: 'haven', env }] }))
  } else if (password === undefined || PUBLISHED.includes(password)) {
    overlay.secret('admin')
    if (password !== undefined)
      overlay.say(
        'harborAdminPassword',
        'cannot',
        'it is the chart’s own, which everybody knows: make-secrets makes another (secrets/admin.env)',
      )
  } else overlay.secret('admin', { HAVEN_ADMIN_PASSWORD: password })
}

function authorities(values: HelmValues, overlay: Overlay): void {
  const everybody = values.text('caBundleSecretName')
  const stores = values.text('persistence.imageChartStorage.caBundleSecretName')
  const bundle = everybody ?? stores
  if (bundle !== undefined) {
    overlay.setting('NODE_EXTRA_CA_CERTS', '/etc/haven/authorities/ca.crt')
    const mount = { name: 'authorities', mountPath: '/etc/haven/authorities', readOnly: true }
    overlay.patch(
      'Deployment',
      '.*',
      podOf('every', {
        containers: [{ name: 'haven', volumeMounts: [mount] }],
        volumes: [{ name: 'authorities', secret: { secretName: bundle } }],
      }),
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

// --- settings of the platform

function platform(values: HelmValues, overlay: Overlay): void {
  const level = values.oneOf('logLevel', ['debug', 'info', 'warning', 'error', 'fatal'], 'info')
  overlay.setting('LOG_LEVEL', level === 'warning' ? 'warn' : level)
  overlay.setting('GDPR_DELETE_USER', values.flag('core.gdpr.deleteUser'))
  overlay.setting('GDPR_AUDIT_LOGS', values.flag('core.gdpr.auditLogsCompliant'))
  overlay.setting('JOBSERVICE_WORKERS', values.whole('jobservice.maxJobWorkers'))
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

// --- workloads

/** Which of ours does the work of a part of the chart. Harbor's core answers for tokens too, its registry pod holds both of these. */
const parts = [
  { at: 'nginx', ours: ['proxy'], resources: 'nginx' },
  { at: 'core', ours: ['core', 'token'], resources: 'core' },
  { at: 'jobservice', ours: ['jobservice'], resources: 'jobservice' },
  { at: 'registry', ours: ['registry', 'registryctl'], resources: null },
] as const

function workloads(values: HelmValues, overlay: Overlay): void {
  for (const { at, ours, resources } of parts) {
    const count = values.whole(`${at}.replicas`)
    const pod = podSettings(values, at)
    const needs = resources === null ? undefined : values.tree(`${resources}.resources`)
    const limit = values.whole(`${at}.revisionHistoryLimit`)
    for (const name of ours) {
      overlay.replicas(name, count)
      const container = given('resources', needs)
      patchWorkload(overlay, 'Deployment', name, {
        pod,
        container: { name: 'haven', ...container },
        ...(limit !== undefined && { spec: { revisionHistoryLimit: limit } }),
      })
    }
  }
  const containers = { registry: 'registry.registry', registryctl: 'registry.controller' }
  for (const [name, at] of Object.entries(containers)) {
    patchWorkload(overlay, 'Deployment', name, {
      pod: {},
      container: { name: 'haven', ...given('resources', values.tree(`${at}.resources`)) },
    })
  }
  const annotations = values.tree('core.serviceAnnotations')
  if (annotations)
    overlay.patch('Service', 'core', { apiVersion: 'v1', kind: 'Service', metadata: { name: 'core', annotations } })
  for (const [at, name] of [
    ['database', 'postgres'],
    ['redis', 'redis'],
  ] as const) {
    if (values.peek(`${at}.type`) === 'external') continue
    const pod = { ...podSettings(values, `${at}.internal`), ...labelsOf(values, at) }
    const container = { name, ...given('resources', values.tree(`${at}.internal.resources`)) }
    patchWorkload(overlay, 'StatefulSet', name, { pod, container })
  }
  const memory = values.peek('database.type') === 'external' ? undefined : values.text('database.internal.shmSizeLimit')
  if (memory !== undefined) {
    overlay.patch(
      'StatefulSet',
      'postgres',
      podOf('postgres', { volumes: [{ name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: memory } }] }),
    )
  }
}

function podSettings(values: HelmValues, at: string): Tree {
  return {
    ...labelsOf(values, at),
    ...given('nodeSelector', values.tree(`${at}.nodeSelector`)),
    ...given('tolerations', values.list(`${at}.tolerations`)),
    ...given('affinity', values.tree(`${at}.affinity`)),
    ...given('topologySpreadConstraints', values.list(`${at}.topologySpreadConstraints`)),
    ...given('priorityClassName', values.text(`${at}.priorityClassName`)),
  }
}

const labelsOf = (values: HelmValues, at: string): Tree => ({
  ...given('annotations', values.tree(`${at}.podAnnotations`)),
  ...given('labels', values.tree(`${at}.podLabels`)),
})

function patchWorkload(
  overlay: Overlay,
  kind: string,
  name: string,
  parts: { pod: Tree; container: Tree; spec?: Tree },
): void {
  const { annotations, labels, ...pod } = parts.pod
  const metadata = { ...given('annotations', annotations), ...given('labels', labels) }
  const containers = Object.keys(parts.container).length > 1 ? [parts.container] : []
  if (containers.length === 0 && !parts.spec && Object.keys(metadata).length + Object.keys(pod).length === 0) return
  const template = {
    ...(Object.keys(metadata).length > 0 && { metadata }),
    spec: { ...pod, ...(containers.length > 0 && { containers }) },
  }
  overlay.patch(kind, name, { apiVersion: 'apps/v1', kind, metadata: { name }, spec: { ...parts.spec, template } })
}

// --- volumes

function volumes(values: HelmValues, overlay: Overlay): void {
  if (values.flag('persistence.enabled') === false) {
    overlay.say('persistence.enabled', 'cannot', 'data are always on claimed volumes')
  }
  const claims = 'persistence.persistentVolumeClaim'
  const files = (values.peek('persistence.imageChartStorage.type') ?? 'filesystem') === 'filesystem'
  if (files) {
    const mode = values.text(`${claims}.registry.accessMode`)
    patchClaim(values, overlay, `${claims}.registry`, 'haven-blobs', mode)
    if (mode === 'ReadWriteMany') {
      overlay.patch('Deployment', 'core|proxy|registry|registryctl', [
        { op: 'remove', path: '/spec/template/spec/affinity' },
      ])
    }
  }
  // Since chart 1.10 below jobLog; before, straight below jobservice.
  const jobLog = values.peek(`${claims}.jobservice.jobLog`) === undefined ? 'jobservice' : 'jobservice.jobLog'
  patchClaim(values, overlay, `${claims}.${jobLog}`, 'haven-logs', values.text(`${claims}.${jobLog}.accessMode`))
  for (const [part, name] of [
    ['database', 'postgres'],
    ['redis', 'redis'],
  ] as const) {
    if (values.peek(`${part}.type`) === 'external') continue
    const at = `${claims}.${part}`
    const asked = claimOf(values, at, values.text(`${at}.accessMode`))
    if (asked.length === 0) continue
    overlay.patch(
      'StatefulSet',
      name,
      asked.map(({ path, value }) => ({ op: 'add', path: `/spec/volumeClaimTemplates/0${path}`, value })),
    )
  }
}

function patchClaim(values: HelmValues, overlay: Overlay, at: string, name: string, mode: string | undefined): void {
  const asked = claimOf(values, at, mode)
  if (asked.length > 0)
    overlay.patch(
      'PersistentVolumeClaim',
      name,
      asked.map((change) => ({ op: 'add', ...change })),
    )
}

/** What is changed about a claim, as paths below it. */
function claimOf(values: HelmValues, at: string, mode: string | undefined): { path: string; value: unknown }[] {
  const size = values.text(`${at}.size`)
  const storageClass = values.text(`${at}.storageClass`)
  const annotations = values.tree(`${at}.annotations`)
  return [
    { path: '/spec/resources/requests/storage', value: size },
    // The chart's word for "no class": a volume made by hand.
    { path: '/spec/storageClassName', value: storageClass === '-' ? '' : storageClass },
    { path: '/spec/accessModes', value: mode === undefined ? undefined : [mode] },
    { path: '/metadata/annotations', value: annotations },
  ].filter(({ value }) => value !== undefined)
}

// --- metrics

function monitoring(values: HelmValues, overlay: Overlay): void {
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
function traces(values: HelmValues, overlay: Overlay): void {
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

// --- pieces of Kubernetes objects

const podOf = (name: string, spec: Tree): Tree => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name },
  spec: { template: { spec } },
})

const fromSecret = (name: string, key: string): Tree => ({ valueFrom: { secretKeyRef: { name, key } } })

const given = (key: string, value: unknown): Tree => (value === undefined ? {} : { [key]: value })

const inUrl = (host: string) => (isIP(host) === 6 ? `[${host}]` : host)
const hostOf = (url: string) => URL.parse(url)?.hostname.replaceAll(/[[\]]/g, '') ?? ''
function portOf(url: string): number {
  const { port = '', protocol = '' } = URL.parse(url) ?? {}
  return Number(port) || (protocol === 'http:' ? 80 : 443)
}
