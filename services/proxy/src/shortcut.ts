import { randomUUID } from 'node:crypto'
import {
  accessLog,
  type Asker,
  bearerToken,
  harmlessHeaders,
  saneRequestId,
  type Logger,
  type Metrics,
  type Service,
  type ShortAnswer,
  type Shortcut,
} from '@haven/runtime'
import { canonicalPath, parseRegistryPath } from '@haven/oci'
import { isAuthority } from './admission.ts'
import type { Forwarder } from './forward.ts'
import { outboundHeaders, securityHeadersOf } from './headers.ts'
import type { TrustedProxies } from './trusted-proxies.ts'

/** What balancers and ingresses add. It says who the client is if they are trusted, and nothing if not. */
const ofBalancers = [
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-proto',
  'x-forwarded-scheme',
  'x-real-ip',
  'x-request-id',
  'x-scheme',
]

/** Who asks, and by what headers; each is the same for all requests of a connection that bring the same head. */
export interface ShortAsker {
  readonly token: string
  readonly clientAddress: string
  readonly scheme: 'http' | 'https'
  readonly headers: ReadonlyMap<string, string>
}

/** How the registry is asked without an object of `node:http`; it declines by null. */
export type ShortWay = (
  asker: ShortAsker,
) => (method: 'GET' | 'HEAD', target: string, requestId: string) => ReturnType<Asker>

/** The registry in this process: what it answers at once, or nearly. */
export function withinProcess(shortAnswer: NonNullable<Service['shortAnswer']>): ShortWay {
  return ({ token, clientAddress }) =>
    (method, target, requestId) =>
      shortAnswer({ method, target, token, requestId, clientAddress, handOver: false })
}

/** Of an answer to a client: said by the proxy, or by whoever writes the answer. */
const ownHeaders: ReadonlySet<string> = new Set([
  ...securityHeadersOf('https')
    .filter((_, index) => index % 2 === 0)
    .map((name) => name.toLowerCase()),
  'content-length',
  'date',
  'x-request-id',
])

/** The registry of another process: its manifests, which it always sends itself. */
export function overTheHop(forwarder: Forwarder): ShortWay {
  return ({ clientAddress, scheme, headers }) => {
    const given: Record<string, string> = {}
    for (const name of harmlessHeaders) {
      const value = headers.get(name)
      if (value !== undefined && name !== 'connection') given[name] = value
    }
    Object.assign(given, forwarder.vouchersOf({ clientAddress, scheme, host: given.host! }))
    return (method, target, requestId) =>
      isManifest(target)
        ? forwarder.ask(method, target, { ...given, 'x-request-id': requestId }).then((answer) => {
            if (!answer) return null
            const { status, body } = answer
            const length = method === 'HEAD' ? answer.headers['content-length'] : body.length
            const lines = linesOf([
              ...['X-Request-Id', requestId],
              ...(length === undefined ? [] : ['Content-Length', String(length)]),
              ...outboundHeaders(answer, ownHeaders),
            ])
            return { status, headers: lines, body, left: ignore }
          })
        : null
  }
}

function isManifest(target: string): boolean {
  const canonical = canonicalPath(target)
  return 'path' in canonical && canonical.path === target && parseRegistryPath(target)?.kind === 'manifest'
}

// The registry counts what it answers.
function ignore(): void {}

/** Pulls that are short, through the door: the same answers, lines and counts as by the long way. */
export function proxyShortcut(
  way: ShortWay,
  { log, metrics, trusted }: { log: Logger; metrics: Metrics; trusted: TrustedProxies },
): Shortcut {
  const logAccess = accessLog(log)
  return {
    prefix: '/v2/',
    headers: new Set([...harmlessHeaders, ...ofBalancers]),
    asker(headers, socket) {
      const token = bearerToken(headers.get('authorization'))
      if (token === null || !isAuthority(headers.get('host'))) return null
      const { clientAddress, scheme } = trusted.clientOf(socket, (name) => headers.get(name))
      const givenId = saneRequestId(headers.get('x-request-id'))
      const agent = headers.get('user-agent')
      const security = linesOf(securityHeadersOf(scheme))
      const ask = way({ token, clientAddress, scheme, headers })
      return (method, target) => {
        const startedAt = performance.now()
        const requestId = givenId ?? randomUUID()
        const told = (answer: ShortAnswer): ShortAnswer => ({
          status: answer.status,
          headers: security + answer.headers,
          body: answer.body,
          left(bytes) {
            answer.left(bytes)
            // The client left before it had the answer: as the long way has it.
            const status = bytes === 0 ? 499 : answer.status
            const ms = performance.now() - startedAt
            metrics.observe({ service: 'proxy', method, route: 'registry', status, seconds: ms / 1000 })
            logAccess({
              request: requestId,
              client: clientAddress,
              method,
              url: target,
              status,
              bytes,
              ms: Math.round(ms * 1000) / 1000,
              to: 'registry',
              agent,
            })
          },
        })
        const answer = ask(method, target, requestId)
        if (answer instanceof Promise) return answer.then((late) => late && told(late))
        return answer && told(answer)
      }
    },
  }
}

function linesOf(headers: readonly string[]): string {
  let lines = ''
  for (let i = 0; i < headers.length; i += 2) lines += `${headers[i]}: ${headers[i + 1]}\r\n`
  return lines
}
