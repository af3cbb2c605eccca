import type { IncomingMessage } from 'node:http'
import { problems, type Problem } from '@haven/errors'
import { canonicalPath, refusals, type CanonicalTarget } from '@haven/oci'

const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

const closing = { headers: { Connection: 'close' } }

const hostPattern = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/

/**
 * Reads what a request asks for, or says why it is not looked at any further. Rewrites an absolute-form target to the path it
 * means. Node's parser has already refused ambiguous framing; what it lets pass is decided here (threats.md A47, A48, A51).
 */
export function admit(req: IncomingMessage): CanonicalTarget | Problem {
  const method = req.method ?? ''
  if (!METHODS.has(method)) return problems.methodNotAllowed({ method, allowed: [...METHODS] })
  const host = hostOf(req)
  if (host === null) return problems.badRequest({ message: 'the Host header must name one host' })

  // http-proxy forwards these with `Content-Length: 0` and the body behind it, which the service would read as a request.
  if ((method === 'DELETE' || method === 'OPTIONS') && req.headers['transfer-encoding'] !== undefined) {
    return problems.badRequest({ message: `the body of ${method} must have a Content-Length` }, closing)
  }
  // RFC 9112, 6.1: HTTP/1.0 has no chunks, so whoever sends one and we may differ on where the request ends.
  if (req.httpVersion === '1.0' && req.headers['transfer-encoding'] !== undefined) {
    return problems.badRequest({ message: 'the body of a request of HTTP/1.0 must have a Content-Length' }, closing)
  }
  const target = req.url ?? ''
  const absolute = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target)
  if (absolute) {
    if (absolute[1]!.toLowerCase() !== host.toLowerCase()) {
      return problems.badRequest({ message: 'the request target and the Host header name different hosts' })
    }
    req.url = absolute[2]!.startsWith('/') ? absolute[2]! : `/${absolute[2]!}`
  }
  // Harbor's own API takes `//` for `/`. Merged here, so that services see one spelling whichever way they are reached.
  if (/^\/+(?:api|c)(?:\/|$)/.test(req.url!))
    req.url = req.url!.replace(/^[^?]*/, (path) => path.replaceAll(/\/{2,}/g, '/'))
  const read = canonicalPath(req.url!)
  if ('path' in read) return read
  switch (read.refused) {
    case 'encoded-slash':
    case 'backslash':
    case 'dot-segment':
    case 'repeated-slash':
      // Harbor's paths have no such spelling, so nothing is there: also for the internal ones behind it (threats.md A52).
      return problems.pathNotFound({ path: printable(req.url!) })
    default:
      return problems.badRequest({ message: refusals[read.refused] })
  }
}

/** The one valid authority of the Host header; the empty text for HTTP/1.0 without one; null for anything else. */
function hostOf(req: IncomingMessage): string | null {
  let host: string | null = null
  const { rawHeaders } = req
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length !== 4 || name.toLowerCase() !== 'host') continue
    if (host !== null) return null
    host = rawHeaders[i + 1]!
  }
  if (host === null) return req.httpVersion === '1.0' ? '' : null
  return isAuthority(host) ? host : null
}

/** Whether a text is what a Host header may say. */
export function isAuthority(host: string | undefined): host is string {
  const match = host === undefined ? null : hostPattern.exec(host)
  return match !== null && Number(match[1] ?? 0) <= 65535 && match[0].length <= 260
}

function printable(target: string): string {
  return target.slice(0, 256).replaceAll(/[^!-~]/g, '?')
}
