export { AddressGuard, type AddressPolicy } from './addresses.ts'
export { OutboundClient, textOf, type OutboundOptions, type OutboundRequest, type OutboundResponse } from './client.ts'
