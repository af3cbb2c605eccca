import type { BlobStorage } from './blob-storage.ts'
import type { StorageConfig } from './config.ts'
import { FileStorage } from './drivers/files.ts'
import { tracedStorage } from './traced-storage.ts'

/** Opens the store that the settings name; makes its folders or its bucket when they are missing. The caller disposes it. */
export async function openStorage(config: StorageConfig): Promise<BlobStorage> {
  return tracedStorage(await openDriver(config))
}

async function openDriver(config: StorageConfig): Promise<BlobStorage> {
  if (config.driver === 'files') return FileStorage.open(required(config.path, 'STORAGE_PATH'))
  const prefix = (config.s3Prefix ?? '').replace(/^\/+|\/+$/g, '')
  // Loaded only where it is asked for: the S3 client takes 30 MiB.
  const { S3Storage } = await import('./drivers/s3.ts')
  return S3Storage.open({
    endpoint: required(config.s3Endpoint, 'S3_ENDPOINT'),
    accessKey: required(config.s3AccessKey, 'S3_ACCESS_KEY'),
    secretKey: required(config.s3SecretKey, 'S3_SECRET_KEY'),
    ...(config.s3PublicEndpoint !== undefined && { publicEndpoint: config.s3PublicEndpoint }),
    idleTimeoutMs: config.s3TimeoutMs,
    region: config.s3Region,
    bucket: config.s3Bucket,
    prefix: prefix === '' ? '' : `${prefix}/`,
    pathStyle: config.s3PathStyle,
    uploadMemoryBytes: config.uploadMemoryBytes,
  })
}

function required(value: string | undefined, name: string): string {
  if (value === undefined) throw new TypeError(`${name} is missing: read the settings with readStorageConfig`)
  return value
}
