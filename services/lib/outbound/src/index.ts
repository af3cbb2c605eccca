export { AddressGuard, type AddressPolicy } from './addresses.ts'
export {
  bytesOf,
  OutboundClient,
  textOf,
  type OutboundOptions,
  type OutboundRequest,
  type OutboundResponse,
  type Resolve,
} from './client.ts'
export { outboundConfig } from './config.ts'
