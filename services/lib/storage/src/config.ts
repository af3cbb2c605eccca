import {
  bool,
  bytes,
  ConfigProblem,
  defineConfig,
  duration,
  oneOf,
  readConfig,
  secret,
  text,
  url,
  type ConfigOf,
} from '@haven/config'
import type { Environment, WrongSetting } from '@haven/config'

/** Where blob bytes are kept. */
export const storageConfig = defineConfig('STORAGE', {
  driver: oneOf(['files', 's3'], {
    default: 'files',
    doc: 'files: a folder of this machine or a shared one. s3: a bucket. Without it, s3 when S3_ENDPOINT is set.',
  }),
  path: text({ optional: true, doc: 'The folder of the driver files.' }),
  uploadMemoryBytes: bytes({
    default: '64MiB',
    min: '16MiB',
    doc: 'Memory that all uploads of a process may hold on their way to S3; further ones wait.',
  }),
  s3Endpoint: url({ env: 'S3_ENDPOINT', optional: true, doc: 'Address of the S3 API, without the bucket.' }),
  s3PublicEndpoint: url({
    env: 'S3_PUBLIC_ENDPOINT',
    optional: true,
    doc: 'Address of the S3 API for clients that are redirected to it, where it is another than S3_ENDPOINT.',
  }),
  s3TimeoutMs: duration({
    env: 'S3_TIMEOUT',
    default: '30s',
    min: '1s',
    doc: 'A request to S3 on which no byte moves for so long has failed, and is repeated.',
  }),
  s3Region: text({ env: 'S3_REGION', default: 'us-east-1', doc: 'Region of the bucket, part of every signature.' }),
  s3Bucket: text({ env: 'S3_BUCKET', default: 'haven', doc: 'The bucket; created when it is missing.' }),
  s3AccessKey: text({ env: 'S3_ACCESS_KEY', optional: true, doc: 'Name of the key.' }),
  s3SecretKey: secret({ env: 'S3_SECRET_KEY', optional: true, doc: 'The key itself.' }),
  s3Prefix: text({
    env: 'S3_PREFIX',
    optional: true,
    doc: 'A folder inside the bucket, for several installations in one.',
  }),
  s3PathStyle: bool({
    env: 'S3_PATH_STYLE',
    default: true,
    doc: 'true: the bucket is in the path (MinIO). false: it is in the host name (AWS).',
  }),
})

export type StorageConfig = ConfigOf<typeof storageConfig>

// The names under which MinIO's own tools and images know these things.
const aliases: Readonly<Record<string, readonly string[]>> = {
  S3_ENDPOINT: ['MINIO_ENDPOINT'],
  S3_REGION: ['MINIO_REGION'],
  S3_BUCKET: ['MINIO_BUCKET'],
  S3_ACCESS_KEY: ['MINIO_ACCESS_KEY', 'MINIO_ROOT_USER'],
  S3_SECRET_KEY: ['MINIO_SECRET_KEY', 'MINIO_ROOT_PASSWORD'],
}

/** Reads `storageConfig`, MinIO's names included, and sees that the driver has what it needs. */
export function readStorageConfig(env: Environment): StorageConfig {
  const config = readConfig(storageConfig, withAliases(env))
  const needed: readonly (keyof StorageConfig)[] =
    config.driver === 's3' ? ['s3Endpoint', 's3AccessKey', 's3SecretKey'] : ['path']
  const wrong: WrongSetting[] = needed
    .filter((key) => config[key] === undefined)
    .map((key) => ({
      name: storageConfig.names[key],
      given: null,
      expected: `${storageConfig.settings[key].expected}, since STORAGE_DRIVER is ${config.driver}`,
    }))
  if (wrong.length > 0) throw new ConfigProblem(wrong)
  return config
}

function withAliases(env: Environment): Environment {
  const known: Record<string, string | undefined> = { ...env }
  for (const [name, others] of Object.entries(aliases)) {
    if (known[name] || known[`${name}_FILE`]) continue
    const other = others.find((alias) => env[alias] || env[`${alias}_FILE`])
    if (other === undefined) continue
    known[name] = env[other]
    known[`${name}_FILE`] = env[`${other}_FILE`]
  }
  // MinIO's clients take a bare host and port.
  const endpoint = known.S3_ENDPOINT
  if (endpoint && !endpoint.includes('://')) {
    known.S3_ENDPOINT = `${env.MINIO_USE_SSL === 'true' ? 'https' : 'http'}://${endpoint}`
  }
  if (!known.STORAGE_DRIVER && (known.S3_ENDPOINT || known.S3_ENDPOINT_FILE)) known.STORAGE_DRIVER = 's3'
  return known
}
