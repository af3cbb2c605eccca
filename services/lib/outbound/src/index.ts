export { AddressGuard, type AddressPolicy } from './addresses.ts'
export { CircuitBreaker } from './breaker.ts'
export {
  bytesOf,
  OutboundClient,
  textOf,
  type OutboundOptions,
  type OutboundRequest,
  type OutboundResponse,
  type Resolve,
} from './client.ts'
export type { DialTarget } from './dial.ts'
export { outboundConfig } from './config.ts'
