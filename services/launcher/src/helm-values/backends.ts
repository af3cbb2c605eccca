import { isIP } from 'node:net'
import { fromSecret, podOf } from './kubernetes-objects.ts'
import type { Overlay } from './overlay.ts'
import type { HelmValues, Tree } from './values.ts'

/** Where blobs are. */
export function store(values: HelmValues, overlay: Overlay): void {
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

/** Postgres: inside, or where the values say. */
export function database(values: HelmValues, overlay: Overlay): void {
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
    composed(overlay, {
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

/** Redis: inside, or where the values say. */
export function redis(values: HelmValues, overlay: Overlay): void {
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
    composed(overlay, {
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
function composed(overlay: Overlay, { password, url }: { password: Tree; url: Tree }): void {
  const env = [password, { ...url, valueFrom: null }]
  overlay.patch(
    'Deployment',
    WITH_DATABASE,
    podOf('every', { initContainers: [{ name: 'migrate', env }], containers: [{ name: 'haven', env }] }),
  )
}

/** The Deployments that work on the database, as a target of patches. */
export const WITH_DATABASE = 'core|exporter|jobservice|registry|registryctl|token'

const clients = {
  postgres: ['core', 'exporter', 'jobservice', 'registry', 'registryctl', 'token'],
  redis: ['core', 'exporter', 'jobservice', 'registry', 'token'],
  store: ['core', 'proxy', 'registry', 'registryctl'],
  traces: ['core', 'exporter', 'jobservice', 'log-collector', 'proxy', 'registry', 'registryctl', 'token'],
}

/** The way out to a server of the installation's own: to its address, or to any but link-local where only a name is known. */
export function open(overlay: Overlay, what: keyof typeof clients, port: number, host = ''): void {
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

const inUrl = (host: string) => (isIP(host) === 6 ? `[${host}]` : host)
/** Without the brackets of IPv6. */
export const hostOf = (url: string) => URL.parse(url)?.hostname.replaceAll(/[[\]]/g, '') ?? ''
/** Also where the URL leaves it to the scheme. */
export function portOf(url: string): number {
  const { port = '', protocol = '' } = URL.parse(url) ?? {}
  return Number(port) || (protocol === 'http:' ? 80 : 443)
}
