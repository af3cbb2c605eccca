import type { Finding } from './overlay.ts'
import { nothing, type HelmValues } from './values.ts'

type Rule = {
  /** Keys, and everything below them; `*` is any one key. */
  readonly keys: string
  /** Otherwise the rule says nothing. */
  readonly when?: (values: HelmValues) => boolean
  readonly kind: 'cannot' | 'not needed'
  readonly advice: string
}

type When = NonNullable<Rule['when']>
const cannot = (keys: string, advice: string, when?: When): Rule => ({
  keys,
  kind: 'cannot',
  advice,
  ...(when && { when }),
})
const unneeded = (keys: string, advice: string, when?: When): Rule => ({
  ...cannot(keys, advice, when),
  kind: 'not needed',
})

const on =
  (path: string): When =>
  (values) => {
    const value = values.peek(path)
    return !nothing(value) && value !== false && value !== 'false'
  }
const off =
  (path: string): When =>
  (values) =>
    !on(path)(values)
const isNot =
  (path: string, chosen: string, otherwise: string): When =>
  (values) =>
    (values.peek(path) ?? otherwise) !== chosen

/** The sections of a choice that was not made. */
const unchosen = (choice: string, otherwise: string, section: (word: string) => string, words: readonly string[]) =>
  words.map((word) => unneeded(section(word), `${choice} is another`, isNot(choice, word, otherwise)))

const MADE = 'make-secrets makes the secrets between services'
const OUR_IMAGES = 'images are those of Haven: `images` in kustomization.yaml'
const NO_API = 'no pod speaks to the Kubernetes API'
const STRAIGHT = 'outbound calls go straight to the other side; open the way to it by a network policy'

/** The keys of the chart that an overlay has no counterpart of. The first that fits counts. */
const rules: readonly Rule[] = [
  cannot(
    'expose.ingress.controller',
    'check the path type and the backend protocol that this controller wants, in the Ingress',
  ),
  unneeded('expose.ingress.kubeVersionOverride', 'the Ingress is the one of networking.k8s.io/v1'),
  unneeded('expose.ingress.hosts.notary', 'signatures are stored beside the images'),
  unneeded('expose.ingress.harbor', 'there is one host'),
  unneeded('expose.ingress.notary', 'signatures are stored beside the images'),
  ...unchosen('expose.type', 'ingress', (word) => `expose.${word}`, [
    'ingress',
    'clusterIP',
    'nodePort',
    'loadBalancer',
  ]),
  cannot(
    'internalTLS',
    'services speak HTTP to each other behind network policies; encrypt between nodes in the network (Cilium, WireGuard) or by a mesh',
    on('internalTLS.enabled'),
  ),
  unneeded('internalTLS', 'it is off', off('internalTLS.enabled')),
  unneeded('ipFamily', 'every service listens on IPv4, and on both where IPv4 is off'),
  unneeded('updateStrategy', 'a pod is taken away when the next one is ready, also with a volume on one node'),
  unneeded(
    'secretKey',
    'Haven seals with a key of its own, which make-secrets makes; enter the secrets of registries, LDAP and OIDC again',
  ),
  unneeded(
    'existingSecretSecretKey',
    'Haven seals with a key of its own, HAVEN_ENCRYPTION_KEY in the Secret haven-internal',
  ),
  cannot('proxy.httpProxy', STRAIGHT),
  cannot('proxy.httpsProxy', STRAIGHT),
  unneeded('proxy', 'of proxy.httpProxy and proxy.httpsProxy'),
  unneeded('enableMigrateHelmHook', 'each pod brings the schema up to date before it starts'),
  cannot('uaaSecretName', 'add the authority to caBundleSecretName'),
  unneeded('metrics', 'every service answers /metrics on its own port, without a switch'),
  ...unchosen('trace.provider', 'jaeger', (word) => `trace.${word}`, ['jaeger', 'otel']),
  cannot(
    'trace',
    'no traces go by the protocol of Jaeger; it takes OTLP at port 4318, as trace.provider: otel',
    on('trace.enabled'),
  ),
  unneeded('trace', 'it is off', off('trace.enabled')),
  unneeded('cache', 'what may be remembered is, without a switch'),
  unneeded('containerSecurityContext', 'every pod keeps to the restricted level'),
  unneeded('*.image', OUR_IMAGES),
  unneeded('*.*.image', OUR_IMAGES),
  unneeded('portal', 'the proxy serves the portal'),
  cannot('*.serviceAccountName', `${NO_API}; imagePullSecrets are taken over`),
  cannot('*.*.serviceAccountName', `${NO_API}; imagePullSecrets are taken over`),
  unneeded('*.automountServiceAccountToken', NO_API),
  unneeded('*.*.automountServiceAccountToken', NO_API),
  cannot('*.extraEnvVars', 'they are settings of Harbor’s programs; look for the like in each service’s settings'),
  cannot('*.*.extraEnvVars', 'they are settings of Harbor’s programs; look for the like in each service’s settings'),
  unneeded('core.startupProbe', 'a start may take two minutes'),
  unneeded('core.quotaUpdateProvider', 'quotas are sums of changes and make nobody wait'),
  unneeded('core.secretName', 'keys that sign tokens are made, stored sealed and rotated'),
  unneeded('core.tokenKey', 'keys that sign tokens are made, stored sealed and rotated'),
  unneeded('core.tokenCert', 'keys that sign tokens are made, stored sealed and rotated'),
  unneeded('core.artifactPullAsyncFlushDuration', 'pulls are counted in batches'),
  unneeded('core.secret', MADE),
  unneeded('core.existingSecret', MADE),
  unneeded('core.xsrfKey', MADE),
  unneeded('core.existingXsrfSecret', MADE),
  unneeded('core.existingXsrfSecretKey', MADE),
  unneeded('jobservice.jobLoggers', 'logs of jobs are in the database'),
  unneeded(
    'jobservice.loggerSweeperDuration',
    'logs go with the executions that they belong to (JOBSERVICE_EXECUTIONS_KEPT)',
  ),
  unneeded('jobservice.notification', 'retries of webhooks are not a setting'),
  unneeded('jobservice.reaper', 'a job of a worker that died goes to another within JOBSERVICE_LEASE'),
  unneeded('jobservice.registryHttpClientTimeout', 'timeouts of other registries are not a setting'),
  unneeded('jobservice.updateStrategy', 'a pod is taken away when the next one is ready'),
  unneeded('jobservice.secret', MADE),
  unneeded('jobservice.existingSecret', MADE),
  unneeded('jobservice.existingSecretKey', MADE),
  cannot(
    'registry.middleware',
    'blobs come from the proxy or from the store; put the CDN before the store (S3_PUBLIC_ENDPOINT)',
    on('registry.middleware.enabled'),
  ),
  unneeded('registry.middleware', 'it is off', off('registry.middleware.enabled')),
  unneeded('registry.relativeurls', 'addresses in answers have no host anyway'),
  cannot('registry.upload_purging.dryrun', 'uploads nobody goes on with are swept'),
  unneeded('registry.upload_purging', 'the sweep runs by itself'),
  unneeded('registry.credentials', 'nobody but the proxy speaks to the registry, and make-secrets makes what it shows'),
  unneeded('registry.secret', MADE),
  unneeded('registry.existingSecret', MADE),
  unneeded('registry.existingSecretKey', MADE),
  cannot(
    'trivy',
    'register a scanner after the installation; the network policy to-the-internet lets core and jobservice reach one outside',
    on('trivy.enabled'),
  ),
  unneeded('trivy', 'it is off', off('trivy.enabled')),
  unneeded('exporter.cacheCleanInterval', 'what is old is not kept'),
  unneeded('database.internal.password', 'make-secrets makes one'),
  unneeded('database.internal.livenessProbe', 'the probes have limits of their own'),
  unneeded('database.internal.readinessProbe', 'the probes have limits of their own'),
  unneeded('database.internal.initContainer', 'there are no such steps'),
  cannot(
    'database.external.coreDatabase',
    'Haven has a database of its own beside Harbor’s: haven, made when the user may create it',
    on('database.external.host'),
  ),
  ...unchosen('database.type', 'internal', (word) => `database.${word}`, ['internal', 'external']),
  unneeded('database.maxIdleConns', 'DATABASE_POOL says how many connections a process has (8 and as many)'),
  unneeded('database.maxOpenConns', 'DATABASE_POOL says how many connections a process has (8 and as many)'),
  ...unchosen('redis.type', 'internal', (word) => `redis.${word}`, ['internal', 'external']),
  ...[
    'jobserviceDatabaseIndex',
    'registryDatabaseIndex',
    'trivyAdapterIndex',
    'harborDatabaseIndex',
    'cacheLayerDatabaseIndex',
  ].map((key) => unneeded(`redis.*.${key}`, 'Haven uses one database of Redis, with a prefix of its own')),
  cannot(
    'persistence.resourcePolicy',
    '`kubectl delete -k` takes claims along; use a storage class whose reclaimPolicy is Retain',
  ),
  cannot(
    'persistence.persistentVolumeClaim.*.existingClaim',
    'Haven lays its files out in its own way and makes a claim of its own',
  ),
  cannot(
    'persistence.persistentVolumeClaim.*.*.existingClaim',
    'Haven lays its files out in its own way and makes a claim of its own',
  ),
  unneeded('persistence.persistentVolumeClaim', 'no such volume is claimed'),
  cannot('persistence.imageChartStorage.s3.encrypt', 'set encryption as the bucket’s default'),
  cannot('persistence.imageChartStorage.s3.keyid', 'set encryption as the bucket’s default'),
  cannot('persistence.imageChartStorage.s3.skipverify', 'give the store’s authority by caBundleSecretName'),
  cannot('persistence.imageChartStorage.s3.storageclass', 'set a life cycle rule on the bucket'),
  ...['v4auth', 'chunksize', 'multipartcopychunksize', 'multipartcopymaxconcurrency', 'multipartcopythresholdsize'].map(
    (key) => unneeded(`persistence.imageChartStorage.s3.${key}`, 'how a blob is divided follows from its size'),
  ),
  unneeded('persistence.imageChartStorage.filesystem', 'blobs are in /data/blobs, on a claim of their own'),
  unneeded('persistence.imageChartStorage.disableredirect', 'the proxy sends what is on a volume'),
  ...unchosen('persistence.imageChartStorage.type', 'filesystem', (word) => `persistence.imageChartStorage.${word}`, [
    's3',
    'azure',
    'gcs',
    'swift',
    'oss',
  ]),
  unneeded('notary', 'signatures are stored beside the images'),
  unneeded('chartmuseum', 'charts are OCI artifacts'),
  unneeded('clair', 'scanners are registered after the installation'),
]

/** What becomes of the keys that the translation did not look at: the rule that fits, or that we do not know them. */
export function explainUnseen(values: HelmValues): Finding[] {
  return values.unseen().flatMap(({ path, value }): Finding[] => {
    if (nothing(value)) return []
    const rule = rules.find(({ keys, when }) => fits(keys, path) && (!when || when(values)))
    if (rule === undefined) {
      return [
        {
          path,
          kind: 'unknown',
          what: 'not a key that this translation knows; if the chart has it, say what it did and set it by hand',
        },
      ]
    }
    if (rule.kind === 'cannot' && value === false) return []
    return [{ path, kind: rule.kind, what: rule.advice }]
  })
}

function fits(keys: string, path: string): boolean {
  const wanted = keys.split('.')
  const given = path.split('.')
  return wanted.length <= given.length && wanted.every((key, i) => key === '*' || key === given[i])
}
