import { formatScope, type Scope } from './scopes.ts'

/** Of every answer under `/v2`, whoever gives it: old clients test for it (clients.md §1.1). */
export const apiVersion = ['Docker-Distribution-Api-Version', 'registry/2.0'] as const

export interface Challenge {
  /** Absolute URL of the token service. */
  readonly realm: string
  readonly service: string
  readonly scopes?: readonly Scope[]
  readonly error?: 'invalid_token' | 'insufficient_scope'
}

/** The `WWW-Authenticate` that leads a client to its token (clients.md §1.1). Scopes stand in one value, separated by blanks. */
export function formatChallenge({ realm, service, scopes = [], error }: Challenge): string {
  const parts = [`realm=${quote(realm)}`, `service=${quote(service)}`]
  if (scopes.length > 0) parts.push(`scope=${quote(scopes.map(formatScope).join(' '))}`)
  if (error !== undefined) parts.push(`error=${quote(error)}`)
  return `Bearer ${parts.join(',')}`
}

/** A quoted-string of RFC 9110, 5.6.4. Control and non-ASCII characters cannot be in one and become `?`. */
function quote(text: string): string {
  return `"${text.replaceAll(/[^\u0020-\u007e]/g, '?').replaceAll(/["\\]/g, String.raw`\$&`)}"`
}

/** The `Link` to the next page. `last` and the like are escaped, so that a tag cannot write a header (threats.md A56). */
export function formatLink(path: string, query: Readonly<Record<string, string | number>>): string {
  const parameters = Object.entries(query).map(
    ([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(String(value).toWellFormed())}`,
  )
  // A path comes from formatRegistryPath and needs nothing; anything else in it must not end the link.
  return `<${path.toWellFormed().replaceAll(/[^!-;=@-~]/gu, encodeURIComponent)}?${parameters.join('&')}>; rel="next"`
}
