import { randomUUID } from 'node:crypto'
import { bearerToken, internalHeaders, isProxy, saneRequestId, socketAddress, type Trust } from './context.ts'
import type { ShortAnswerer } from './service.ts'
import { harmlessHeaders, type Shortcut } from './shortcut.ts'

/** The shortcut of a service's own port: by the headers of its proxy, and of whoever reaches it without one. */
export function serviceShortcut(shortAnswer: ShortAnswerer, trust: Trust): Shortcut {
  return {
    prefix: '/v2/',
    headers: new Set([
      ...harmlessHeaders,
      internalHeaders.canSend,
      internalHeaders.proxy,
      'x-forwarded-for',
      'x-forwarded-host',
      'x-forwarded-proto',
      'x-request-id',
    ]),
    asker(headers, socket) {
      const token = bearerToken(headers.get('authorization'))
      if (token === null) return null
      const proxied = isProxy(headers.get(internalHeaders.proxy), trust)
      const given = saneRequestId(headers.get('x-request-id'))
      const facts = {
        token,
        clientAddress: proxied ? (headers.get('x-forwarded-for') ?? '') : socketAddress({ socket }),
        handOver: proxied && headers.get(internalHeaders.canSend) === '1',
      }
      return (method, target) => shortAnswer({ ...facts, method, target, requestId: given ?? randomUUID() })
    },
  }
}
