import { problems } from '@haven/errors'
import { contextOf } from '@haven/runtime'
import type { Handlers } from '../handler.ts'
import { ok, text } from '../http/answer.ts'

export const systemHandlers: Handlers = {
  getPing: () => text('Pong', 'text/plain'),

  async getSystemInfo({ caller, req }, { facts, settings, caCertificate }) {
    const now = await settings.read()
    const forEveryone = {
      auth_mode: now.auth_mode,
      primary_auth_mode: now.primary_auth_mode,
      self_registration: now.self_registration,
      banner_message: now.banner_message,
      oidc_provider_name: now.auth_mode === 'oidc_auth' ? now.oidc_name : '',
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
      has_ca_root: (await caCertificate()) !== null,
      notification_enable: now.notification_enable,
      project_creation_restriction: now.project_creation_restriction,
      read_only: now.read_only,
      registry_storage_provider_name: facts.storageName,
    })
  },

  async getVolumes(_call, { volumes }) {
    return ok({ storage: await volumes() })
  },

  async getCert(_call, { caCertificate }) {
    const certificate = await caCertificate()
    if (certificate === null) throw problems.notFound({ message: 'resource not found: cert not found' })
    return {
      status: 200,
      headers: { 'Content-Type': 'application/octet-stream', 'Content-Disposition': 'attachment; filename=ca.crt' },
      body: certificate,
    }
  },
}
