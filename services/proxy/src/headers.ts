import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'

// Harbor's nginx sends these (harbor-api.md §6), and HSTS over TLS.
const securityHeaders = [
  'X-Frame-Options',
  'DENY',
  'Content-Security-Policy',
  "frame-ancestors 'none'",
  'X-Content-Type-Options',
  'nosniff',
  'Referrer-Policy',
  'no-referrer',
]
const HSTS = 'max-age=31536000; includeSubdomains; preload'
const securityHeadersOfTls = [...securityHeaders, 'Strict-Transport-Security', HSTS]

/** Of every answer to a client that came so, as a list of names and values. */
export const securityHeadersOf = (scheme: 'http' | 'https'): readonly string[] =>
  scheme === 'https' ? securityHeadersOfTls : securityHeaders

// RFC 9110, 7.6.1. Transfer-Encoding stays: it frames the body that follows.
const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'upgrade',
  'http2-settings',
])

/** Whatever `Connection` names goes, except what frames and addresses the request. */
const kept: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'transfer-encoding',
  'content-type',
  'x-request-id',
])

const claims: ReadonlySet<string> = new Set([
  'forwarded',
  'x-real-ip',
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'true-client-ip',
])

function isClaim(name: string): boolean {
  if (claims.has(name)) return true
  if (!name.startsWith('x-')) return false
  return (
    name.startsWith('x-haven-') ||
    name.startsWith('x-forwarded-') ||
    name.startsWith('x-original-') ||
    name.startsWith('x-rewrite-')
  )
}

/**
 * Removes what a client may not say to our services: hop-by-hop headers and those `Connection` names, forwarding claims, our
 * internal names, method overrides, and the credential of Harbor's services (threats.md R6). Both readings of the headers,
 * `headers` and `rawHeaders`, are cleaned alike.
 */
export function stripInbound(req: IncomingMessage): void {
  const { headers, rawHeaders } = req
  const named = headers.connection === undefined ? null : namedByConnection(headers.connection)
  const clean: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    const value = rawHeaders[i + 1]!
    if (
      hopByHop.has(name) ||
      isClaim(name) ||
      (named !== null && named.has(name) && !kept.has(name)) ||
      (name === 'authorization' && /^\s*harbor-secret(?:\s|$)/i.test(value))
    ) {
      delete headers[name]
    } else clean.push(rawHeaders[i]!, value)
  }
  if (clean.length !== rawHeaders.length) req.rawHeaders = clean
}

function namedByConnection(connection: string): Set<string> | null {
  const plain = connection.toLowerCase()
  if (plain === 'keep-alive' || plain === 'close') return null
  return new Set(plain.split(',').map((name) => name.trim()))
}

/** The headers of a service's answer as the client gets them: without hop-by-hop and internal ones. */
export function outboundHeaders(
  { rawHeaders, headers }: { readonly rawHeaders: readonly string[]; readonly headers: IncomingHttpHeaders },
  omit: ReadonlySet<string> = nothing,
): string[] {
  const named = headers.connection === undefined ? null : namedByConnection(headers.connection)
  const clean: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (hopByHop.has(name) || name === 'transfer-encoding' || name.startsWith('x-haven-') || omit.has(name)) continue
    if (named !== null && named.has(name) && !kept.has(name)) continue
    clean.push(rawHeaders[i]!, rawHeaders[i + 1]!)
  }
  return clean
}

const nothing: ReadonlySet<string> = new Set()
