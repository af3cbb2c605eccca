import { defineConfig, duration, int, oneOf, url, type ConfigOf } from '@haven/config'
import { pairSecret, serviceSettings } from '@haven/runtime'

/** How the job service behaves, wherever it runs. */
export const jobserviceSettings = {
  coreSecret: pairSecret('CORE_SECRET', 'What core shows to the job service.'),
  registryctlUrl: url({ env: 'REGISTRYCTL_URL', default: 'http://127.0.0.1:5003', doc: 'Where registryctl listens.' }),
  registryctlSecret: pairSecret('REGISTRYCTL_SECRET', 'What the job service shows to registryctl.'),
  storageName: oneOf(['files', 's3', 'memory'], {
    env: 'STORAGE_DRIVER',
    default: 'files',
    doc: 'The driver of the blob store: copies are of what it has. The job service itself opens no store.',
  }),
  workers: int({ default: 10, min: 1, max: 100, doc: 'Jobs of one type that run at the same time in this process.' }),
  leaseMs: duration({
    default: '60s',
    min: '5s',
    max: '10m',
    doc: 'A worker that gives no sign of life for this long has died; its job goes to another.',
  }),
  reconcileMs: duration({ default: '30s', min: '1s', doc: 'How often queues and records are compared.' }),
  blobGraceMs: duration({
    env: 'REGISTRY_BLOB_GRACE',
    default: '2h',
    doc: 'How long garbage collection spares what a client was told of. The same as at the registry.',
  }),
  trashMs: duration({
    env: 'HAVEN_TRASH',
    default: '1h',
    max: '30d',
    doc: 'How long an object stays after nothing refers to it any more: longer than signed URLs live and downloads take.',
  }),
  uploadExpiryMs: duration({
    env: 'REGISTRY_UPLOAD_EXPIRY',
    default: '24h',
    min: '1m',
    doc: 'An upload untouched for this long is swept.',
  }),
  signingKeyAgeMs: duration({
    env: 'HAVEN_SIGNING_KEY_AGE',
    default: '90d',
    min: '1h',
    doc: 'A key that signed tokens for this long is followed by a new one.',
  }),
  executionsKept: int({ default: 50, min: 1, doc: 'Past runs that are kept of each policy, with their logs.' }),
}

/** The job service as a process of its own. */
export const jobserviceConfig = defineConfig('JOBSERVICE', {
  ...serviceSettings({ port: 5004 }),
  ...jobserviceSettings,
})

export type JobserviceSettings = Pick<ConfigOf<typeof jobserviceConfig>, keyof typeof jobserviceSettings>
