import { bool, defineConfig, file, secret, text, url, type ConfigOf } from '@haven/config'
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
  selfSignedCertificate: text({
    optional: true,
    doc: 'File of the certificate that the proxy makes for itself, offered when there is no authority. Read at each download, since it comes late and is renewed.',
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
  gdprDeleteUser: bool({
    env: 'GDPR_DELETE_USER',
    default: false,
    doc: 'Of a deleted user nothing stays that tells who it was.',
  }),
  gdprAuditLogs: bool({
    env: 'GDPR_AUDIT_LOGS',
    default: false,
    doc: 'With GDPR_DELETE_USER: the lines of the audit log about what the user did name the pseudonym, too.',
  }),
  configOverwrite: text({
    env: 'CONFIG_OVERWRITE_JSON',
    optional: true,
    maxLength: 65_536,
    doc: 'JSON object of configuration keys and values. Written at each start; while it is set, nobody changes the configuration otherwise.',
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
