import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { operations, type JsonSchema, type Operation } from '@haven/proto'

const require = createRequire(import.meta.url)
type Schemas = { [name: string]: JsonSchema }
const schemasOf = (file: string): Schemas =>
  (
    JSON.parse(readFileSync(require.resolve(`@haven/proto/openapi/${file}.json`), 'utf8')) as {
      components: { schemas: Schemas }
    }
  ).components.schemas
const schemas: { [api: string]: Schemas } = { harbor: schemasOf('harbor-v2.0'), haven: schemasOf('haven-v1') }

/** The operations of the platform's APIs that are served. */
export function servedOperations(): Operation[] {
  const text = readFileSync(new URL('not-yet.txt', import.meta.url), 'utf8')
  const notYet = new Set(text.split('\n').map((line) => line.split(' ').at(-1)))
  return Object.values(operations).filter(({ api, operationId }) => api !== 'oci' && !notYet.has(operationId))
}

const resolve = (api: string, schema: JsonSchema): JsonSchema => {
  const ref = schema['$ref']
  return typeof ref === 'string' ? (schemas[api]?.[ref.slice(ref.lastIndexOf('/') + 1)] ?? {}) : schema
}

/**
 * The body that the contract shows as its example; an empty one where it shows none. What says its own id says that of the path.
 * @param ownId the last parameter of the path.
 */
export function exampleBody({ api, body, parents }: Operation, ownId: string | undefined): object | undefined {
  if (!body) return undefined
  const schema = resolve(api, body.schema)
  const [example] = (schema['examples'] as object[] | undefined) ?? []
  if (!example) return schema['type'] === 'array' ? [] : {}
  const saysId = parents.length > 0 && Object.hasOwn((schema['properties'] as object | undefined) ?? {}, 'id')
  return saysId ? { ...example, id: Number(ownId) } : example
}

/** Values for the query parameters that an operation requires. */
export function exampleQuery({ parameters }: Operation, known: { readonly [name: string]: string }): string {
  const query = new URLSearchParams()
  for (const { name, in: where, required, schema } of parameters) {
    if (where !== 'query' || !required) continue
    query.set(name, known[name] ?? String((schema['enum'] as unknown[] | undefined)?.[0] ?? '1'))
  }
  return query.size === 0 ? '' : `?${query.toString()}`
}
