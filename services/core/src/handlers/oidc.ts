import { problems } from '@haven/errors'
import type { Handlers } from '../handler.ts'
import { ok } from '../http/answer.ts'

export const oidcHandlers: Handlers = {
  /** Reads the provider's metadata; nothing secret is sent there (threats.md A92). */
  async pingOIDC({ body }, { signIn }) {
    const { url: endpoint = '', verify_cert: verifyCertificate = true } = body
    try {
      await signIn.oidc?.client.ping({ endpoint, verifyCertificate })
    } catch (error) {
      if (!problems.identityProviderFailed.is(error)) throw error
      throw problems.badRequest({ message: error.message }, { cause: error })
    }
    return ok()
  },
}
