import { problems } from '@haven/errors'
import type { Handlers } from '../handler.ts'
import { ok, text } from '../http/answer.ts'

export const systemHandlers: Handlers = {
  getPing: () => text('Pong', 'text/plain'),

  getSystemInfo({ caller }, { settings, policy }) {
    const { authMode, selfRegistration, projectCreation, readOnly } = policy()
    const forEveryone = {
      auth_mode: authMode,
      primary_auth_mode: false,
      self_registration: selfRegistration,
      banner_message: '',
      oidc_provider_name: '',
    }
    if (caller.principal.kind === 'anonymous') return ok(forEveryone)
    return ok({
      ...forEveryone,
      current_time: new Date().toISOString(),
      external_url: settings.externalUrl,
      registry_url: new URL(settings.externalUrl).host,
      harbor_version: settings.version,
      has_ca_root: settings.caCertificate !== null,
      notification_enable: true,
      project_creation_restriction: projectCreation,
      read_only: readOnly,
      registry_storage_provider_name: settings.storageName,
    })
  },

  async getVolumes(_call, { volumes }) {
    return ok({ storage: await volumes() })
  },

  getCert(_call, { settings }) {
    if (settings.caCertificate === null) throw problems.notFound({ message: 'resource not found: cert not found' })
    return {
      status: 200,
      headers: { 'Content-Type': 'application/octet-stream', 'Content-Disposition': 'attachment; filename=ca.crt' },
      body: settings.caCertificate,
    }
  },
}
