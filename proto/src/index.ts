export { bindRequest, checkResponse, type Bound, type RawRequest } from './bind.ts'
export type {
  ApiName,
  JsonSchema,
  Method,
  OperationFacts,
  Parameter,
  Permission,
  RequestBody,
  Response,
} from './contract.ts'
export { harborDocument } from './harbor-document.ts'
export { formatNotYet } from './not-yet.ts'
export {
  operations,
  type BodyOf,
  type HarborOperations,
  type HarborSchemas,
  type HavenOperations,
  type HavenSchemas,
  type HeadersOf,
  type OciOperations,
  type OciSchemas,
  type Operation,
  type OperationId,
  type PathOf,
  type QueryOf,
  type ResponseOf,
} from './operations.ts'
export { version } from './version.ts'
export { validators, type ErrorObject, type Validators } from './validators.ts'
