import { createClient, type Client, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { RegistryControl } from '@haven/proto/rpc'
import { cause } from '@haven/telemetry'

export type RegistryControlClient = Client<typeof RegistryControl>

/** Calls registryctl. A stream may last as long as there is trash; every other call ends within ten seconds. */
export function registryControlClient(baseUrl: string, secret: string): RegistryControlClient {
  const showSecret: Interceptor = (next) => (request) => {
    request.header.set('authorization', `Harbor-Secret ${secret}`)
    const { request: requestId, traceparent } = cause()
    if (requestId !== undefined) request.header.set('x-request-id', requestId)
    if (traceparent !== undefined) request.header.set('traceparent', traceparent)
    return next(request)
  }
  return createClient(
    RegistryControl,
    createConnectTransport({ baseUrl, httpVersion: '1.1', interceptors: [showSecret] }),
  )
}
