import { X509Certificate } from 'node:crypto'
import { problems } from '@haven/errors'
import { adapterOf } from './adapters.ts'

/** What it takes to speak to another registry. The secret is in the clear: such a value stays in memory. */
export type RemoteRegistry = {
  readonly type: string
  /** http or https, without a slash at its end. */
  readonly url: string
  /** Its certificate is not checked. */
  readonly insecure: boolean
  /** PEM, trusted beside the system's; empty: none. */
  readonly caCertificate: string
  readonly credential: RemoteCredential
}

/** Without a secret we sign in as nobody. */
export type RemoteCredential = {
  /** basic or oauth; empty: nobody said, which is basic. */
  readonly type: string
  readonly accessKey: string
  readonly accessSecret: string
}

const MAX_NAME = 64
const MAX_URL = 256
const MAX_CREDENTIAL = 4096
const MAX_CERTIFICATE = 65_536
const MAX_DESCRIPTION = 4096

/** @throws badRequest */
export function requireName(name: string): string {
  if (name.trim() !== '' && name.length <= MAX_NAME) return name
  throw problems.badRequest({ message: `the name of a registry has 1 to ${MAX_NAME} characters` })
}

/** @throws badRequest */
export function requireDescription(description: string): string {
  if (description.length <= MAX_DESCRIPTION) return description
  throw problems.badRequest({ message: `the description of a registry has at most ${MAX_DESCRIPTION} characters` })
}

/**
 * What can be said about a registry without asking it. The address is made whole as Harbor does: `http://` before a bare host, no query, no
 * slash at the end.
 * @throws badRequest that names the field
 */
export function parseRemote(given: RemoteRegistry): RemoteRegistry {
  const { type, insecure, caCertificate, credential } = given
  adapterOf(type)
  if (!['', 'basic', 'oauth'].includes(credential.type)) {
    throw problems.badRequest({
      message: `credential type ${JSON.stringify(credential.type)} is neither basic nor oauth`,
    })
  }
  if (credential.accessKey.length > MAX_CREDENTIAL || credential.accessSecret.length > MAX_CREDENTIAL) {
    throw problems.badRequest({ message: `access_key and access_secret have at most ${MAX_CREDENTIAL} characters` })
  }
  requireCertificate(caCertificate)
  return { type, url: parseUrl(given.url), insecure, caCertificate, credential }
}

function parseUrl(given: string): string {
  const text = given.trim()
  const url = URL.parse(text.includes('://') ? text : `http://${text}`)
  const readable =
    url !== null &&
    ['http:', 'https:'].includes(url.protocol) &&
    url.username === '' &&
    url.password === '' &&
    // The parser would pass over what could end a header.
    !/[\s\p{Cc}]/u.test(text)
  if (!readable) throw problems.badRequest({ message: 'the url must be one of http or https, without a user' })
  const whole = url.origin + url.pathname.replace(/\/+$/, '')
  if (whole.length > MAX_URL) throw problems.badRequest({ message: `the url has at most ${MAX_URL} characters` })
  return whole
}

function requireCertificate(pem: string): void {
  if (pem === '') return
  try {
    if (pem.length <= MAX_CERTIFICATE && new X509Certificate(pem).raw.length > 0) return
  } catch (cause) {
    throw problems.badRequest({ message: 'ca_certificate is no certificate in PEM' }, { cause })
  }
  throw problems.badRequest({ message: `ca_certificate has at most ${MAX_CERTIFICATE} characters` })
}
