import { bool, bytes, defineConfig, duration, file, oneOf, secret, text, url, type ConfigOf } from '@haven/config'
import { pairSecret, serviceSettings } from '@haven/runtime'

/** How core behaves, wherever it runs. */
export const coreSettings = {
  externalUrl: url({
    env: 'HAVEN_EXTERNAL_URL',
    optional: true,
    doc: 'Where clients reach this installation, as it is shown to them. Default: the host they asked for.',
  }),
  caCertificate: file({
    optional: true,
    doc: 'PEM of the authority that signed the certificate of the platform, offered to clients for download.',
  }),
  encryptionKey: secret({
    env: 'HAVEN_ENCRYPTION_KEY',
    minLength: 32,
    doc: 'Seals what is secret in the database. The same in all services.',
  }),
  coreSecret: pairSecret('CORE_SECRET', 'What core shows to the job service.'),
  jobserviceSecret: pairSecret('JOBSERVICE_SECRET', 'What the job service shows to core.'),
  adminPassword: secret({
    env: 'HAVEN_ADMIN_PASSWORD',
    optional: true,
    doc: 'Password of the administrator. Needed on the first start, without effect after it.',
  }),
  selfRegistration: bool({ default: false, doc: 'Whether a visitor may make an account of his own.' }),
  projectCreation: oneOf(['everyone', 'adminonly'], { default: 'everyone', doc: 'Who may make projects.' }),
  readOnly: bool({
    env: 'HAVEN_READ_ONLY',
    default: false,
    doc: 'Refuses every change that a person or a client asks for. The same at the registry.',
  }),
  defaultQuotaBytes: bytes({ optional: true, doc: 'How much a new project may hold. Without it, any amount.' }),
  sessionTimeoutMs: duration({
    default: '60m',
    min: '1m',
    doc: 'A session of a browser ends when nothing was asked for so long.',
  }),
  storageName: text({
    env: 'STORAGE_DRIVER',
    default: 'files',
    maxLength: 32,
    doc: 'The driver of the blob store, as administrators see it.',
  }),
  storageFolder: text({
    env: 'STORAGE_PATH',
    optional: true,
    doc: 'Folder of the blobs, when they are on a disk of this machine: its free space is shown to administrators.',
  }),
  registryUrl: url({
    env: 'REGISTRY_URL',
    optional: true,
    doc: 'Where core asks after the registry, for the health page.',
  }),
  registryctlUrl: url({ env: 'REGISTRYCTL_URL', optional: true, doc: 'Where core asks after registryctl, likewise.' }),
  portalUrl: url({
    env: 'PORTAL_URL',
    optional: true,
    doc: 'The whole address where core asks after the portal, such as /readyz of the proxy.',
  }),
  jobserviceUrl: url({
    env: 'JOBSERVICE_URL',
    optional: true,
    doc: 'Where core asks after the job service, likewise.',
  }),
}

/** Core as a process of its own. */
export const coreConfig = defineConfig('CORE', {
  ...serviceSettings({ port: 8081 }),
  ...coreSettings,
})

/** Those of the log collector, which every process has, are where core searches too. */
export type CoreSettings = Pick<
  ConfigOf<typeof coreConfig>,
  keyof typeof coreSettings | 'logCollectorUrl' | 'logCollectorSecret'
>
