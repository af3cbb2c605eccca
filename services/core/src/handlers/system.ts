import { problems } from '@haven/errors'
import { contextOf } from '@haven/runtime'
import type { Handlers } from '../handler.ts'
import { ok, text } from '../http/answer.ts'

export const systemHandlers: Handlers = {
  getPing: () => text('Pong', 'text/plain'),

  getSystemInfo({ caller, req }, { facts, policy }) {
    const { authMode, selfRegistration, projectCreation, readOnly } = policy()
    const forEveryone = {
      auth_mode: authMode,
      primary_auth_mode: false,
      self_registration: selfRegistration,
      banner_message: '',
      oidc_provider_name: '',
    }
    if (caller.principal.kind === 'anonymous') return ok(forEveryone)
    const { scheme, host } = contextOf(req)
    const externalUrl = facts.externalUrl ?? `${scheme}://${host}`
    return ok({
      ...forEveryone,
      current_time: new Date().toISOString(),
      external_url: externalUrl,
      registry_url: URL.parse(externalUrl)?.host ?? host,
      harbor_version: facts.version,
      has_ca_root: facts.caCertificate !== null,
      notification_enable: true,
      project_creation_restriction: projectCreation,
      read_only: readOnly,
      registry_storage_provider_name: facts.storageName,
    })
  },

  async getVolumes(_call, { volumes }) {
    return ok({ storage: await volumes() })
  },

  getCert(_call, { facts }) {
    if (facts.caCertificate === null) throw problems.notFound({ message: 'resource not found: cert not found' })
    return {
      status: 200,
      headers: { 'Content-Type': 'application/octet-stream', 'Content-Disposition': 'attachment; filename=ca.crt' },
      body: facts.caCertificate,
    }
  },
}
