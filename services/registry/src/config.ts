import { bool, defineConfig, duration, int, oneOf, url, type ConfigOf } from '@haven/config'
import { serviceSettings } from '@haven/runtime'

/** How the registry behaves, wherever it runs. */
export const registrySettings = {
  externalUrl: url({
    env: 'HAVEN_EXTERNAL_URL',
    optional: true,
    doc: 'Where clients reach this installation; challenges send them there. Default: the host they asked for.',
  }),
  blobReads: oneOf(['stream', 'redirect'], {
    default: 'stream',
    doc: 'redirect: answer 307 with a signed storage URL (clients must reach the store, under another host name than ours). stream: send the bytes.',
  }),
  redirectDisabled: bool({
    env: 'REGISTRY_STORAGE_REDIRECT_DISABLE',
    optional: true,
    doc: "The same by Distribution's name, as Harbor's storage_service.redirect.disable sets it: false is redirect, true is stream.",
  }),
  uploadLeaseMs: duration({
    default: '10s',
    min: '2s',
    max: '5m',
    doc: 'A writer that is silent for this long has died: another request may continue its upload.',
  }),
  uploadsPerPrincipal: int({ default: 200, min: 1, doc: 'Open uploads of one user or robot; more are answered 429.' }),
  uploadsPerProject: int({ default: 1000, min: 1, doc: 'Open uploads in one project; more are answered 429.' }),
  blobGraceMs: duration({
    default: '2h',
    doc: 'How long garbage collection spares a blob that a client was told of and nothing refers to yet. Short: a push while it runs may have to start again.',
  }),
  sparseIndexes: bool({ default: true, doc: 'Accept an index whose manifests are not all in its repository.' }),
}

/** The registry as a process of its own. */
export const registryConfig = defineConfig('REGISTRY', {
  ...serviceSettings({ port: 5000 }),
  ...registrySettings,
})

/** Who sends blobs to clients. */
export function blobReadsOf({ redirectDisabled, blobReads }: RegistrySettings): 'stream' | 'redirect' {
  if (redirectDisabled === undefined) return blobReads
  return redirectDisabled ? 'stream' : 'redirect'
}

export type RegistrySettings = Pick<ConfigOf<typeof registryConfig>, keyof typeof registrySettings>
