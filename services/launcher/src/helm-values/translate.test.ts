import { describe, expect, it } from '@jest/globals'
import { parse } from 'yaml'
import type { Finding } from './overlay.ts'
import { translate } from './translate.ts'

type Kustomization = {
  components: string[]
  configMapGenerator: [{ literals: string[] }]
  secretGenerator: { name: string }[]
  replicas?: { name: string; count: number }[]
  patches: { target: { kind: string; name: string }; patch: string }[]
}

const overlayOf = (values: string) => {
  const overlay = translate(values, { base: '..', namespace: 'haven' })
  const files = overlay.files()
  const kustomization = parse(files.get('kustomization.yaml')!) as Kustomization
  const of = (kind: Finding['kind']) => overlay.findings.filter((f) => f.kind === kind).map(({ path }) => path)
  const patches = (name: string) =>
    kustomization.patches
      .filter(({ target }) => target.name === name)
      .map(({ patch }) => patch)
      .join('')
  const components = kustomization.components.map((path) => path.split('/').at(-1))
  return { files, of, patches, components, settings: kustomization.configMapGenerator[0].literals, kustomization }
}

const HOST = 'externalURL: https://hub.acme.example\n'

/** Each key of the chart's own values (1.19 and some of earlier ones), with values that ask for something. */
const EVERY_KEY = `
expose:
  type: ingress
  tls: { enabled: true, certSource: auto, auto: { commonName: hub }, secret: { secretName: tls, notarySecretName: tls } }
  ingress:
    { hosts: { core: hub.acme.example, notary: n.acme.example }, controller: gce, kubeVersionOverride: "1", className: nginx,
      annotations: { a: b }, labels: { c: d }, harbor: { labels: { a: b } }, notary: { labels: { a: b } } }
  clusterIP: { name: h, staticClusterIP: 10.96.0.9, ports: { httpPort: 80, httpsPort: 443 }, annotations: { a: b }, labels: { c: d } }
  nodePort: { name: h, ports: { http: { port: 80, nodePort: 30002 }, https: { port: 443, nodePort: 30003 } }, annotations: { a: b }, labels: { c: d } }
  loadBalancer: { name: h, IP: 192.0.2.1, ports: { httpPort: 80, httpsPort: 443 }, annotations: { a: b }, labels: { c: d }, sourceRanges: [10.0.0.0/8] }
externalURL: https://hub.acme.example
persistence:
  enabled: true
  resourcePolicy: keep
  persistentVolumeClaim:
    registry: &claim { existingClaim: x, storageClass: fast, subPath: s, accessMode: ReadWriteOnce, size: 5Gi, annotations: { a: b } }
    jobservice: { jobLog: *claim }
    database: *claim
    redis: *claim
    trivy: *claim
  imageChartStorage:
    disableredirect: false
    caBundleSecretName: store-ca
    type: filesystem
    filesystem: { rootdirectory: /storage, maxthreads: 100 }
    azure: { accountname: a, accountkey: b, container: c, realm: r, existingSecret: s }
    gcs: { bucket: b, encodedkey: k, rootdirectory: r, chunksize: "1", existingSecret: s, useWorkloadIdentity: false }
    s3:
      { existingSecret: s, region: r, bucket: b, accesskey: a, secretkey: s, regionendpoint: "http://s3", encrypt: false, keyid: k, secure: true,
        skipverify: false, v4auth: true, chunksize: "1", rootdirectory: /r, storageclass: STANDARD, multipartcopychunksize: "1",
        multipartcopymaxconcurrency: 1, multipartcopythresholdsize: "1" }
    swift: { authurl: u, username: u, password: p, container: c, existingSecret: s }
    oss: { accesskeyid: a, accesskeysecret: s, region: r, bucket: b, existingSecret: s }
existingSecretAdminPassword: admin
existingSecretAdminPasswordKey: HARBOR_ADMIN_PASSWORD
harborAdminPassword: Harbor12345
internalTLS: { enabled: false, strong_ssl_ciphers: false, certSource: auto, trustCa: x, core: { secretName: s, crt: c, key: k } }
ipFamily: { ipv6: { enabled: true }, ipv4: { enabled: true } }
imagePullPolicy: IfNotPresent
imagePullSecrets: [{ name: s }]
updateStrategy: { type: RollingUpdate }
logLevel: info
caSecretName: ca
secretKey: not-a-secure-key
existingSecretSecretKey: s
proxy: { httpProxy: "http://p:3128", httpsProxy: "http://p:3128", noProxy: localhost, components: [core] }
enableMigrateHelmHook: false
caBundleSecretName: bundle
uaaSecretName: uaa
metrics:
  enabled: true
  core: &metrics { path: /metrics, port: 8001 }
  registry: *metrics
  jobservice: *metrics
  exporter: *metrics
  serviceMonitor: { enabled: true, additionalLabels: { a: b }, interval: 10s, metricRelabelings: [{ action: keep }], relabelings: [{ action: keep }] }
trace:
  { enabled: false, provider: otel, sample_rate: 1, namespace: n, attributes: { a: b }, jaeger: { endpoint: e }, otel: { endpoint: e, url_path: u, compression: false, insecure: true, timeout: 10 } }
cache: { enabled: false, expireHours: 24 }
containerSecurityContext: { privileged: false }
nginx: &pod
  { image: { repository: r, tag: t }, serviceAccountName: sa, automountServiceAccountToken: false, replicas: 1, revisionHistoryLimit: 10,
    resources: { requests: { cpu: 1 } }, extraEnvVars: [{ name: A, value: b }], nodeSelector: { a: b }, tolerations: [{ key: k }],
    affinity: { podAffinity: {} }, topologySpreadConstraints: [{ maxSkew: 1 }], podAnnotations: { a: b }, podLabels: { a: b }, priorityClassName: high }
portal: { <<: *pod, serviceAnnotations: { a: b } }
core:
  { <<: *pod, serviceAnnotations: { a: b }, startupProbe: { enabled: true, initialDelaySeconds: 10 }, configureUserSettings: "{}", quotaUpdateProvider: db,
    secret: s, existingSecret: s, secretName: s, tokenKey: k, tokenCert: c, xsrfKey: x, existingXsrfSecret: s, existingXsrfSecretKey: CSRF_KEY,
    artifactPullAsyncFlushDuration: 10, gdpr: { deleteUser: true, auditLogsCompliant: true } }
jobservice:
  { <<: *pod, maxJobWorkers: 20, jobLoggers: [file], loggerSweeperDuration: 14, notification: { webhook_job_max_retry: 3 }, reaper: { max_update_hours: 24 },
    updateStrategy: { type: Recreate }, secret: s, existingSecret: s, existingSecretKey: JOBSERVICE_SECRET }
registry:
  { registry: { image: { tag: t }, resources: { requests: { cpu: 1 } }, extraEnvVars: [{ name: a }] },
    controller: { image: { tag: t }, resources: { requests: { cpu: 1 } }, extraEnvVars: [{ name: a }] },
    serviceAccountName: sa, automountServiceAccountToken: false, replicas: 1, revisionHistoryLimit: 10, nodeSelector: { a: b }, tolerations: [{ key: k }],
    affinity: { podAffinity: {} }, topologySpreadConstraints: [{ maxSkew: 1 }], podAnnotations: { a: b }, podLabels: { a: b }, priorityClassName: high,
    secret: s, existingSecret: s, existingSecretKey: REGISTRY_HTTP_SECRET, relativeurls: false,
    credentials: { username: u, password: p, existingSecret: s, htpasswdString: h },
    middleware: { enabled: false, type: cloudFront, cloudFront: { baseurl: b } },
    upload_purging: { enabled: true, age: 168h, interval: 24h, dryrun: false } }
trivy: { <<: *pod, enabled: true, debugMode: false, severity: HIGH, timeout: 5m0s }
database:
  type: internal
  internal:
    { image: { tag: t }, serviceAccountName: sa, automountServiceAccountToken: false, resources: { requests: { cpu: 1 } }, livenessProbe: { timeoutSeconds: 1 },
      readinessProbe: { timeoutSeconds: 1 }, extraEnvVars: [{ name: a }], nodeSelector: { a: b }, tolerations: [{ key: k }], affinity: { podAffinity: {} },
      priorityClassName: high, password: changeit, shmSizeLimit: 512Mi, initContainer: { migrator: { resources: { requests: { cpu: 1 } } } } }
  external: { host: h, port: "5432", username: u, password: p, coreDatabase: registry, existingSecret: s, sslmode: disable }
  maxIdleConns: 100
  maxOpenConns: 900
  podAnnotations: { a: b }
  podLabels: { a: b }
redis:
  type: internal
  internal:
    { image: { tag: t }, serviceAccountName: sa, automountServiceAccountToken: false, resources: { requests: { cpu: 1 } }, extraEnvVars: [{ name: a }],
      nodeSelector: { a: b }, tolerations: [{ key: k }], affinity: { podAffinity: {} }, priorityClassName: high, jobserviceDatabaseIndex: "1",
      registryDatabaseIndex: "2", trivyAdapterIndex: "5", harborDatabaseIndex: "6", cacheLayerDatabaseIndex: "7" }
  external: { addr: "h:6379", sentinelMasterSet: m, username: u, password: p, existingSecret: s, coreDatabaseIndex: "0" }
  podAnnotations: { a: b }
  podLabels: { a: b }
exporter: { <<: *pod, cacheDuration: 23, cacheCleanInterval: 14400 }
`

describe('a values.yaml of harbor-helm becomes an overlay', () => {
  it('knows every key of the chart', () => {
    const { of } = overlayOf(EVERY_KEY)
    expect(of('unknown')).toEqual([])
    expect(of('cannot')).toEqual(
      expect.arrayContaining(['proxy.httpProxy', 'core.extraEnvVars', 'trivy.severity', 'expose.ingress.controller']),
    )
  })

  it('passes over no key that it does not know, on any level', () => {
    const { of } = overlayOf(
      `${HOST}corre: { replicas: 3 }\ncore: { repliccas: 3 }\nexpose: { ingress: { host: h } }\nregistry: { registry: { x: 1 } }`,
    )
    expect(of('unknown')).toEqual(['core.repliccas', 'corre.replicas', 'expose.ingress.host', 'registry.registry.x'])
  })

  it('takes what the chart does without values: an Ingress, and all data inside', () => {
    const { components, of, files, patches } = overlayOf('{}')
    expect(components).toEqual(['ingress', 'store-files', 'postgres', 'redis'])
    expect(of('settle')).toEqual(['expose.tls.certSource', 'externalURL'])
    expect(patches('haven')).toContain('value: core.harbor.domain')
    expect([...files.keys()]).toEqual(['kustomization.yaml', '.gitignore'])
  })

  it('asks for nothing with what is empty or off', () => {
    const { of } = overlayOf(
      `${HOST}imagePullSecrets: []\nproxy: { httpProxy: }\ninternalTLS: { enabled: false }\nregistry: { middleware: { enabled: false } }`,
    )
    expect([of('cannot'), of('unknown')]).toEqual([[], []])
    expect(of('not needed')).toEqual(['internalTLS.enabled', 'registry.middleware.enabled'])
  })

  it.each([
    ['host: h', 'database.external.host'],
    ['host: 10.1.2.3', '10.1.2.3/32'],
  ])('opens the way to an outside database by its address (%s)', (host, seen) => {
    const { files, components } = overlayOf(
      `${HOST}database: { type: external, external: { ${host}, port: "5433", username: u, password: "p@s/s", sslmode: require } }`,
    )
    expect(components).not.toContain('postgres')
    expect(files.get('secrets/database.env')).toMatch(
      /^DATABASE_URL=postgresql:\/\/u:p%40s%2Fs@.*:5433\/haven\?sslmode=no-verify\n$/,
    )
    const policy = files.get('backends.yaml')!
    expect(policy).toContain('port: 5433')
    expect(policy).toContain(seen.includes('/') ? seen : 'cidr: 0.0.0.0/0')
  })

  it('reads passwords from Secrets that are there', () => {
    const { patches, files, kustomization } = overlayOf(`${HOST}
existingSecretAdminPassword: boss
existingSecretAdminPasswordKey: pw
database: { type: external, external: { host: db, existingSecret: dbs } }
redis: { type: external, external: { addr: "r:6380", existingSecret: rs, tlsOptions: { enable: true } } }
persistence: { imageChartStorage: { type: s3, s3: { bucket: b, existingSecret: s3s } } }`)
    expect(kustomization.secretGenerator.map(({ name }) => name)).toEqual(['haven-internal'])
    expect([...files.keys()].filter((name) => name.startsWith('secrets'))).toEqual([])
    const connections = patches('core|exporter|jobservice|registry|registryctl|token')
    expect(connections).toContain('value: postgresql://user:$(DATABASE_PASSWORD)@db:5432/haven?sslmode=disable')
    expect(connections).toContain('value: rediss://:$(REDIS_PASSWORD)@r:6380/0')
    expect(connections.indexOf('name: DATABASE_PASSWORD')).toBeLessThan(connections.indexOf('name: DATABASE_URL'))
    expect(patches('core|proxy|registry|registryctl')).toContain('key: REGISTRY_STORAGE_S3_SECRETKEY')
    expect(patches('core')).toMatch(/HAVEN_ADMIN_PASSWORD\n.*\n.*\n +name: boss\n +key: pw/)
  })

  it('R8: takes no password that everybody knows', () => {
    const { files, of, kustomization } = overlayOf(
      `${HOST}harborAdminPassword: Harbor12345\ndatabase: { internal: { password: changeit } }`,
    )
    expect([...files.values()].join('')).not.toMatch(/Harbor12345|changeit/)
    expect(of('cannot')).toEqual(['harborAdminPassword'])
    expect(kustomization.secretGenerator.map(({ name }) => name)).toContain('haven-admin')
    expect(overlayOf(`${HOST}harborAdminPassword: Another1pass`).files.get('secrets/admin.env')).toBe(
      'HAVEN_ADMIN_PASSWORD=Another1pass\n',
    )
  })

  it.each([
    [
      'sentinels',
      'redis: { type: external, external: { addr: "a:1,b:1", sentinelMasterSet: m } }',
      'redis.external.sentinelMasterSet',
    ],
    [
      'a store that speaks no S3',
      'persistence: { imageChartStorage: { type: gcs } }',
      'persistence.imageChartStorage.type',
    ],
    [
      'S3 without keys',
      'persistence: { imageChartStorage: { type: s3, s3: { bucket: b } } }',
      'persistence.imageChartStorage.s3.accesskey',
    ],
    ['a Secret without a name', 'expose: { tls: { certSource: secret } }', 'expose.tls.certSource'],
    ['a certificate to be made', 'expose: { type: loadBalancer }', 'expose.tls.certSource'],
    ['an address with a path', 'expose: { tls: { enabled: false } }\nexternalURL: https://h/harbor', 'externalURL'],
  ])('says what has to be settled: %s', (_name, text, path) => {
    const values = text.includes('expose') ? text : `${text}\nexpose: { tls: { enabled: false } }`
    expect(overlayOf(values.includes('externalURL') ? values : HOST + values).of('settle')).toEqual([path])
  })

  it.each([
    [
      'clusterIP',
      '{ name: hub, staticClusterIP: 10.96.0.9, ports: { httpsPort: 8443 } }',
      { type: 'ClusterIP', clusterIP: '10.96.0.9' },
      8443,
    ],
    ['nodePort', '{ ports: { https: { port: 443, nodePort: 31000 } } }', { type: 'NodePort' }, 443],
    [
      'loadBalancer',
      '{ IP: 192.0.2.7, sourceRanges: [10.0.0.0/8] }',
      { type: 'LoadBalancer', loadBalancerIP: '192.0.2.7', loadBalancerSourceRanges: ['10.0.0.0/8'] },
      443,
    ],
  ])('offers the chart’s own Service: %s', (type, section, spec, port) => {
    const { files, components, of } = overlayOf(
      `${HOST}expose: { type: ${type}, ${type}: ${section}, tls: { certSource: secret, secret: { secretName: t } } }`,
    )
    expect(components).toContain('proxy-tls')
    expect(components).not.toContain('ingress')
    const service = parse(files.get('service.yaml')!) as { spec: { ports: { name: string }[] } }
    expect(service).toMatchObject({ metadata: { name: type === 'clusterIP' ? 'hub' : 'harbor' }, spec })
    expect(service.spec.ports).toContainEqual(
      expect.objectContaining({ name: 'door-tls', port, ...(type === 'nodePort' && { nodePort: 31_000 }) }),
    )
    expect(of('settle')).toEqual([])
  })

  it('keeps where pods run, how many and how large', () => {
    const { kustomization, patches } = overlayOf(`${HOST}
core: { replicas: 3, nodeSelector: { disk: ssd }, podAnnotations: { a: b }, resources: { limits: { memory: 1Gi } } }
registry: { replicas: 2, controller: { resources: { limits: { memory: 2Gi } } } }
redis: { internal: { priorityClassName: high } }`)
    expect(kustomization.replicas).toEqual([
      { name: 'core', count: 3 },
      { name: 'token', count: 3 },
      { name: 'registry', count: 2 },
      { name: 'registryctl', count: 2 },
    ])
    expect(parse(patches('core'))).toMatchObject({
      spec: {
        template: {
          metadata: { annotations: { a: 'b' } },
          spec: { nodeSelector: { disk: 'ssd' }, containers: [{ resources: { limits: { memory: '1Gi' } } }] },
        },
      },
    })
    expect(patches('registryctl')).toContain('memory: 2Gi')
    expect(patches('redis')).toContain('priorityClassName: high')
  })

  it('lets a shared volume be on several nodes', () => {
    const { patches } = overlayOf(
      `${HOST}persistence: { persistentVolumeClaim: { registry: { accessMode: ReadWriteMany, size: 1Ti, storageClass: "-" } } }`,
    )
    expect(parse(patches('haven-blobs'))).toEqual([
      { op: 'add', path: '/spec/resources/requests/storage', value: '1Ti' },
      { op: 'add', path: '/spec/storageClassName', value: '' },
      { op: 'add', path: '/spec/accessModes', value: ['ReadWriteMany'] },
    ])
    expect(patches('core|proxy|registry|registryctl')).toContain('path: /spec/template/spec/affinity')
  })

  it('turns settings into ours', () => {
    const { settings, files } = overlayOf(`${HOST}logLevel: warning
core: { gdpr: { deleteUser: true }, configureUserSettings: '{"auth_mode": "ldap_auth"}' }
jobservice: { maxJobWorkers: 20 }
exporter: { cacheDuration: 23 }
ipFamily: { ipv4: { enabled: false } }
persistence: { imageChartStorage: { disableredirect: true, type: s3, s3: { region: eu-west-1, bucket: b, accesskey: a, secretkey: s, rootdirectory: /x/ } } }`)
    expect(settings).toEqual(
      expect.arrayContaining([
        'HAVEN_EXTERNAL_URL=https://hub.acme.example',
        'LOG_LEVEL=warn',
        'GDPR_DELETE_USER=true',
        'JOBSERVICE_WORKERS=20',
        'EXPORTER_CACHE=23s',
        'CORE_HOST=::',
        'S3_ENDPOINT=https://s3.eu-west-1.amazonaws.com',
        'S3_PATH_STYLE=false',
        'S3_PREFIX=x',
        'REGISTRY_STORAGE_REDIRECT_DISABLE=true',
      ]),
    )
    expect(files.get('secrets/configuration.env')).toBe('CONFIG_OVERWRITE_JSON={"auth_mode": "ldap_auth"}\n')
  })

  it('sends traces where they went', () => {
    const otel = 'enabled: true, provider: otel, sample_rate: 0.5, attributes: { a: b }'
    const { settings, files } = overlayOf(`${HOST}trace: { ${otel}, otel: { endpoint: "10.1.2.9:4318", timeout: 5 } }`)
    expect(settings).toEqual(
      expect.arrayContaining([
        'TRACE_ENABLED=true',
        'TRACE_OTEL_ENDPOINT=10.1.2.9:4318',
        'TRACE_OTEL_INSECURE=true',
        'TRACE_OTEL_TIMEOUT=5s',
        'TRACE_SAMPLE_RATE=0.5',
        'TRACE_ATTRIBUTES={"a":"b"}',
      ]),
    )
    expect(files.get('backends.yaml')).toMatch(/cidr: 10\.1\.2\.9\/32[^]*port: 4318/)
    expect(overlayOf(`${HOST}trace: { enabled: true, sample_rate: 1 }`).of('cannot')).toEqual([
      'trace.provider',
      'trace.sample_rate',
    ])
  })

  it.each([
    ['no mapping', '- a', 'no mapping'],
    ['no YAML', 'a: [', 'no YAML'],
    ['aliases that grow without end', bomb(), 'no YAML'],
    [
      'values of the wrong form, all of them',
      'core: { replicas: many }\nexpose: { type: magic, tls: { enabled: perhaps } }',
      'core.replicas: expected a whole number',
    ],
    ['the same', 'core: { replicas: many }\nexpose: { type: magic }', 'expose.type: expected one of ingress'],
  ])('refuses %s', (_name, values, said) => {
    expect(() => translate(values, { base: '..', namespace: 'haven' })).toThrow(said)
  })

  it('lets no value of a line become two', () => {
    expect(() =>
      overlayOf(
        `${HOST}redis: { type: external, external: { addr: "r:1", password: "a\\nLOG_LEVEL=debug" } }\nharborAdminPassword: "a\\nb"`,
      ),
    ).toThrow('harborAdminPassword')
  })
})

function bomb(): string {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
  for (let i = 1; i < 8; i++)
    lines.push(
      `a${i}: &a${i} [${Array(9)
        .fill(`*a${i - 1}`)
        .join(', ')}]`,
    )
  return lines.join('\n')
}
