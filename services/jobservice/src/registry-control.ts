import { createClient, type Client, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { RegistryControl } from '@haven/proto/rpc'

export type RegistryControlClient = Client<typeof RegistryControl>

/** Calls registryctl. A stream may last as long as there is trash; every other call ends within ten seconds. */
export function registryControlClient(baseUrl: string, secret: string): RegistryControlClient {
  const showSecret: Interceptor = (next) => (request) => {
    request.header.set('authorization', `Harbor-Secret ${secret}`)
    return next(request)
  }
  return createClient(
    RegistryControl,
    createConnectTransport({ baseUrl, httpVersion: '1.1', interceptors: [showSecret] }),
  )
}
