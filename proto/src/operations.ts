// The generated table of operations, with the types of what goes in and comes out.
import { readFileSync } from 'node:fs'
import type { Contract, OperationFacts } from './contract.ts'
import type { components as HarborComponents, operations as HarborOperations } from './gen/harbor.ts'
import type { components as HavenComponents, operations as HavenOperations } from './gen/haven.ts'
import type { components as OciComponents, operations as OciOperations } from './gen/oci.ts'

export type { HarborOperations, HavenOperations, OciOperations }
export type HarborSchemas = HarborComponents['schemas']
export type HavenSchemas = HavenComponents['schemas']
export type OciSchemas = OciComponents['schemas']

type Typed = HarborOperations & OciOperations & HavenOperations
export type OperationId = keyof Typed

/** One operation of the contract; K keeps the types of its parameters and bodies. */
export interface Operation<K extends OperationId = OperationId> extends OperationFacts {
  operationId: K
}

type Nothing = Record<never, never>
type In<K extends OperationId, Where extends string> = Typed[K] extends { parameters: infer P }
  ? Where extends keyof P
    ? [NonNullable<P[Where]>] extends [never]
      ? Nothing
      : NonNullable<P[Where]>
    : Nothing
  : Nothing
type Content<T> = T extends { content: infer C } ? C[keyof C] : undefined

export type PathOf<K extends OperationId> = In<K, 'path'>
export type QueryOf<K extends OperationId> = In<K, 'query'>
/** Keys as the contract spells them. */
export type HeadersOf<K extends OperationId> = In<K, 'header'>
export type BodyOf<K extends OperationId> = Typed[K] extends { requestBody: infer B }
  ? Content<B>
  : Typed[K] extends { requestBody?: infer B }
    ? [NonNullable<B>] extends [never]
      ? undefined
      : Content<NonNullable<B>> | undefined
    : undefined
/** Body of the answer with this status. */
export type ResponseOf<K extends OperationId, Status extends number = 200> = Typed[K] extends { responses: infer R }
  ? Status extends keyof R
    ? Content<R[Status]>
    : undefined
  : undefined

export const contract = JSON.parse(readFileSync(new URL('./gen/contract.json', import.meta.url), 'utf8')) as Contract

/** Every operation of the three APIs by its id. */
export const operations = Object.fromEntries(
  contract.operations.map((operation) => [operation.operationId, operation]),
) as unknown as { readonly [K in OperationId]: Operation<K> }
