import { randomUUID } from 'node:crypto'
import {
  accessLog,
  bearerToken,
  harmlessHeaders,
  saneRequestId,
  type Logger,
  type Metrics,
  type Service,
  type Shortcut,
} from '@haven/runtime'
import { isAuthority } from './admission.ts'
import { securityHeadersOf } from './headers.ts'
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

/** Pulls of what a registry in this process has in memory, through the door: the same answers, lines and counts as by the long way. */
export function proxyShortcut(
  fromMemory: NonNullable<Service['fromMemory']>,
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
      return (method, target) => {
        const startedAt = performance.now()
        const requestId = givenId ?? randomUUID()
        const answer = fromMemory({ method, target, token, requestId, clientAddress, handOver: false })
        if (answer === null) return null
        const { status } = answer
        const left = (bytes: number) => {
          answer.left(bytes)
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
        }
        return { status, headers: security + answer.headers, body: answer.body, left }
      }
    },
  }
}

function linesOf(headers: readonly string[]): string {
  let lines = ''
  for (let i = 0; i < headers.length; i += 2) lines += `${headers[i]}: ${headers[i + 1]}\r\n`
  return lines
}
