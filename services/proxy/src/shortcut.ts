import { randomUUID } from 'node:crypto'
import {
  bearerToken,
  harmlessHeaders,
  saneRequestId,
  type ShortAnswer,
  type ShortAnswerer,
  type Shortcut,
  type ShortReply,
} from '@haven/runtime'
import { canonicalPath, parseRegistryPath } from '@haven/oci'
import { isAuthority } from './admission.ts'
import type { Forwarder, WholeReply } from './forward.ts'
import { outboundHeaders, securityHeadersOf } from './headers.ts'
import type { TellAnswer } from './tell-answer.ts'
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

/** How the registry is asked without an object of `node:http`. */
export type ShortWay = (asker: ShortAsker) => (method: 'GET' | 'HEAD', target: string, requestId: string) => ShortReply

/** The registry in this process: what it answers at once, or nearly. */
export function withinProcess(shortAnswer: ShortAnswerer): ShortWay {
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
    return (method, target, requestId) => {
      if (!isManifest(target)) return null
      const asked = forwarder.ask(method, target, { ...given, 'x-request-id': requestId })
      return asked.then((answer) => answer && ofFar(answer, method, requestId))
    }
  }
}

/** What another process answered, as this one says it. */
function ofFar(answer: WholeReply, method: 'GET' | 'HEAD', requestId: string): ShortAnswer {
  const { status, body } = answer
  const length = method === 'HEAD' ? answer.headers['content-length'] : body.length
  const headers = linesOf([
    ...['X-Request-Id', requestId],
    ...(length === undefined ? [] : ['Content-Length', String(length)]),
    ...outboundHeaders(answer, ownHeaders),
  ])
  return { status, headers, body, onSent: ignore }
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
  { tell, trusted }: { tell: TellAnswer; trusted: TrustedProxies },
): Shortcut {
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
          onSent(bytes) {
            answer.onSent(bytes)
            tell(startedAt, {
              request: requestId,
              client: clientAddress,
              method,
              url: target,
              // The client left before it had the answer: as the long way has it.
              status: bytes === 0 ? 499 : answer.status,
              bytes,
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
