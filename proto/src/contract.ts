// Reads OpenAPI documents into the table of operations that routers, binders and tests work from.
// Runs at generation time; what it returns is stored as src/gen/contract.json.

export type ApiName = 'harbor' | 'oci' | 'haven'

/** Who may call an operation. `signedIn` adds that a public project is not enough: the caller must have signed in. */
export type Permission =
  | { scope: 'public' }
  | { scope: 'authenticated' }
  | { scope: 'solution' }
  /** Answers anybody, but only what they may see. */
  | { scope: 'filtered' }
  | { scope: 'system'; resource: string; action: string }
  | { scope: 'project'; resource: string; action: string; signedIn?: boolean }
  | { scope: 'self-or-system'; resource: string; action: string }
  | { scope: 'special'; rule: string }

export type JsonSchema = { [keyword: string]: unknown }

export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

export interface Parameter {
  name: string
  in: 'path' | 'query' | 'header'
  required: boolean
  schema: JsonSchema
  /** One value holds the whole list, separated by commas. */
  commaSeparated?: true
}

export interface RequestBody {
  /** What messages call the body. */
  name: string
  required: boolean
  mediaTypes: string[]
  schema: JsonSchema
}

export interface Response {
  /** Names of the headers that the contract declares. */
  headers: string[]
  /** Schema by media type; empty when the answer has no body. */
  content: { [mediaType: string]: JsonSchema }
  /** The body may be absent although `content` declares one. */
  mayBeEmpty?: true
}

export interface OperationFacts {
  api: ApiName
  operationId: string
  method: Method
  /** With the base path of its API in front, parameters as `{name}`. */
  path: string
  tag: string
  permission: Permission
  /** The resources that the path names, outermost first; each is to be found within the one before it. */
  parents: string[]
  parameters: Parameter[]
  body?: RequestBody
  /** By status code or `default`. */
  responses: { [status: string]: Response }
}

export interface Contract {
  schemas: { [api in ApiName]: { [name: string]: JsonSchema } }
  operations: OperationFacts[]
}

export interface Document {
  api: ApiName
  /** Named in messages. */
  file: string
  content: unknown
}

/** A contract that cannot be generated from; the message lists every fault. */
export class ContractError extends Error {
  override name = 'ContractError'
}

const methods = ['get', 'head', 'post', 'put', 'patch', 'delete'] as const

/** Schemas refer to each other through this id once they are taken out of their document. */
export const schemaId = (api: ApiName) => `haven:${api}`

/**
 * The table of all operations of the documents. Throws a ContractError that names every operation without a permission
 * or parent chain, with a malformed one, or with an operationId that is taken.
 */
export function buildContract(documents: Document[]): Contract {
  const faults: string[] = []
  const operations: OperationFacts[] = []
  const schemas = { harbor: {}, oci: {}, haven: {} }
  const seen = new Map<string, string>()

  for (const { api, file, content } of documents) {
    const document = record(content)
    const resolve = (value: unknown): Node => {
      const node = record(value)
      return typeof node['$ref'] === 'string' ? resolve(follow(document, file, node['$ref'])) : node
    }
    const baseOf = (node: Node) => record(list(node['servers'])[0])['url']
    schemas[api] = record(record(document['components'])['schemas'])

    for (const [path, item] of Object.entries(record(document['paths']))) {
      const basePath = String(baseOf(record(item)) ?? baseOf(document) ?? '').replace(/\/$/, '')
      for (const method of methods) {
        const source = record(item)[method]
        if (source === undefined) continue
        const operation = record(source)
        const operationId = String(operation['operationId'] ?? '')
        const where = `${file}: ${method.toUpperCase()} ${path}${operationId && ` (${operationId})`}`
        if (!operationId) faults.push(`${where} lacks an operationId`)
        else if (seen.has(operationId)) faults.push(`${where} has the operationId of ${seen.get(operationId)}`)
        seen.set(operationId, where)

        const permission = operation['x-haven-permission']
        const parents = operation['x-haven-parents']
        if (permission === undefined) faults.push(`${where} lacks x-haven-permission`)
        else if (!isPermission(permission))
          faults.push(`${where} has a malformed x-haven-permission: ${JSON.stringify(permission)}`)
        if (parents === undefined) faults.push(`${where} lacks x-haven-parents`)
        else if (!Array.isArray(parents) || !parents.every((parent) => typeof parent === 'string'))
          faults.push(`${where} has a malformed x-haven-parents: ${JSON.stringify(parents)}`)

        const parameters = [...list(record(item)['parameters']), ...list(operation['parameters'])].map((entry) =>
          toParameter(api, resolve(entry)),
        )
        const declared = parameters.filter((parameter) => parameter.in === 'path').map((parameter) => parameter.name)
        for (const [, name] of path.matchAll(/\{([^}]+)\}/g))
          if (!declared.includes(name as string))
            faults.push(`${where} does not declare the parameter ${name} of its path`)

        operations.push({
          api,
          operationId,
          method: method.toUpperCase() as Method,
          path: basePath + path,
          tag: String(list(operation['tags'])[0] ?? ''),
          permission: permission as Permission,
          parents: parents as string[],
          parameters,
          ...(operation['requestBody'] === undefined ? {} : { body: toBody(api, resolve(operation['requestBody'])) }),
          responses: Object.fromEntries(
            Object.entries(record(operation['responses'])).map(([status, response]) => [
              status,
              toResponse(api, resolve(response)),
            ]),
          ),
        })
      }
    }
  }
  if (faults.length > 0) throw new ContractError(`the contract is incomplete:\n  ${faults.join('\n  ')}`)
  return { schemas, operations }
}

type Node = { [key: string]: unknown }

const record = (value: unknown): Node =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Node) : {}
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])

function follow(document: Node, file: string, ref: string): unknown {
  let node: unknown = document
  for (const part of ref.replace(/^#\//, '').split('/')) node = record(node)[part]
  if (node === undefined) throw new ContractError(`${file}: ${ref} leads nowhere`)
  return node
}

/** A copy whose references name the document they were in. */
function detach(api: ApiName, schema: unknown): JsonSchema {
  return JSON.parse(JSON.stringify(schema ?? {}), (key, value: unknown) =>
    key === '$ref' && typeof value === 'string' && value.startsWith('#') ? schemaId(api) + value : value,
  ) as JsonSchema
}

function toParameter(api: ApiName, node: Node): Parameter {
  return {
    name: String(node['name']),
    in: node['in'] as Parameter['in'],
    required: node['required'] === true,
    schema: detach(api, node['schema']),
    ...(node['in'] === 'query' && node['explode'] === false ? { commaSeparated: true } : {}),
  }
}

function toBody(api: ApiName, node: Node): RequestBody {
  const content = record(node['content'])
  return {
    name: String(node['x-name'] ?? 'body'),
    required: node['required'] === true,
    mediaTypes: Object.keys(content),
    schema: detach(api, record(Object.values(content)[0])['schema']),
  }
}

function toResponse(api: ApiName, node: Node): Response {
  return {
    headers: Object.keys(record(node['headers'])),
    content: Object.fromEntries(
      Object.entries(record(node['content'])).map(([mediaType, media]) => [
        mediaType,
        detach(api, record(media)['schema']),
      ]),
    ),
    ...(node['x-may-be-empty'] === true ? { mayBeEmpty: true } : {}),
  }
}

const permissionKeys: { [scope in Permission['scope']]: string[] } = {
  public: [],
  authenticated: [],
  solution: [],
  filtered: [],
  system: ['resource', 'action'],
  project: ['resource', 'action'],
  'self-or-system': ['resource', 'action'],
  special: ['rule'],
}

function isPermission(value: unknown): value is Permission {
  const { scope, signedIn, ...rest } = record(value)
  if (typeof scope !== 'string' || !Object.hasOwn(permissionKeys, scope)) return false
  if (signedIn !== undefined && (signedIn !== true || scope !== 'project')) return false
  const keys = permissionKeys[scope as Permission['scope']]
  return (
    Object.keys(rest).length === keys.length && keys.every((key) => typeof rest[key] === 'string' && rest[key] !== '')
  )
}
