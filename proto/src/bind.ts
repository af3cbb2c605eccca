// How a request becomes values, as Harbor's API does it: what it forgives, what it refuses, and in which words.
import type { ErrorObject } from 'ajv/dist/2020.js'
import {
  contract,
  type BodyOf,
  type HeadersOf,
  type Operation,
  type OperationId,
  type PathOf,
  type QueryOf,
} from './operations.ts'
import type { ApiName, JsonSchema, Parameter, RequestBody } from './contract.ts'
import { validators } from './validators.ts'

export interface RawRequest {
  /** Decoded once. */
  path: { [name: string]: string | undefined }
  query: { [name: string]: string | string[] | undefined }
  /** Keys in lower case, as Node gives them. */
  headers: { [name: string]: string | string[] | undefined }
  /** As received; undefined or empty when there is none. */
  body?: string | Uint8Array | undefined
}

export type Bound<K extends OperationId> =
  | { ok: true; path: PathOf<K>; query: QueryOf<K>; headers: HeadersOf<K>; body: BodyOf<K> }
  /** `message` is what a 422 says. */
  | { ok: false; failures: string[]; message: string }

const heading = 'validation failure list:'

/**
 * The values of a request, typed as the contract says: unknown parameters and body keys are dropped, keys of a body match
 * whatever their case, a boolean parameter that is no boolean is false, an empty parameter is an absent one, of a repeated
 * one the last counts, bytes after the JSON value are ignored. Never throws on bad input: it answers the failures.
 */
export function bindRequest<K extends OperationId>(operation: Operation<K>, raw: RawRequest): Bound<K> {
  const negotiation = refuseMediaTypes(operation, raw)
  if (negotiation) return refused([negotiation])

  const failures: string[] = []
  const path = bindParameters(operation, 'path', (name) => raw.path[name], failures)
  const query = bindParameters(operation, 'query', (name) => own(raw.query, name), failures)
  const headers = bindParameters(operation, 'header', (name) => own(raw.headers, name.toLowerCase()), failures)
  const body = operation.body && bindBody(operation, operation.body, raw.body, failures)
  if (failures.length > 0) return refused(failures)
  return { ok: true, path, query, headers, body } as unknown as Bound<K>
}

const refused = (failures: string[]) => ({ ok: false as const, failures, message: [heading, ...failures].join('\n') })
const own = <T>(values: { [name: string]: T }, name: string): T | undefined =>
  Object.hasOwn(values, name) ? values[name] : undefined
const isEmpty = (body: RawRequest['body']) => body === undefined || body.length === 0

// ---- media types

function refuseMediaTypes(operation: Operation, raw: RawRequest): string | undefined {
  if (!isEmpty(raw.body)) {
    const accepted = operation.body?.mediaTypes ?? ['application/json']
    const given = mediaType(single(raw.headers['content-type']) || 'application/octet-stream')
    if (!accepted.some((type) => covers(type, given)))
      return `unsupported media type "${given}", only [${accepted.join(' ')}] are allowed`
  }
  const accept = single(raw.headers['accept'])
  // Problems come as JSON whatever else does: a client that was generated of the contract asks for JSON wherever it is among the answers.
  const offered = [...produces(operation), 'application/json']
  if (
    accept &&
    !accept
      .split(',')
      .some((range) => !/;\s*q=0(?:\.0*)?\s*$/.test(range) && offered.some((type) => covers(mediaType(range), type)))
  )
    return `unsupported media type requested, only [${produces(operation).join(' ')}] are available`
  return undefined
}

function produces(operation: Operation): string[] {
  const types = Object.entries(operation.responses)
    .filter(([status]) => status.startsWith('2'))
    .flatMap(([, response]) => Object.keys(response.content))
  return types.length === 0 ? ['application/json'] : [...new Set(types)]
}

const mediaType = (value: string) => (value.split(';', 1)[0] ?? '').trim().toLowerCase()
const covers = (range: string, type: string) =>
  range === type || range === '*/*' || (range.endsWith('/*') && type.startsWith(range.slice(0, -1)))
const single = (value: string | string[] | undefined) => (Array.isArray(value) ? value.join(',') : value)

// ---- parameters

function bindParameters(
  operation: Operation,
  where: Parameter['in'],
  read: (name: string) => string | string[] | undefined,
  failures: string[],
): { [name: string]: unknown } {
  const values: { [name: string]: unknown } = {}
  const wrong = new Set<string>()
  const fail = (name: string, text: string) => {
    wrong.add(name)
    failures.push(`${name} in ${where} ${text}`)
  }
  for (const parameter of operation.parameters) {
    if (parameter.in !== where) continue
    const given = read(parameter.name)
    if (parameter.schema['type'] === 'array') {
      const all = (Array.isArray(given) ? given : given === undefined ? [] : [given]).filter((value) => value !== '')
      const items = parameter.commaSeparated
        ? (
            all
              .at(-1)
              ?.split(',')
              .map((item) => item.trim()) ?? []
          ).filter(Boolean)
        : all
      if (items.length > 0) values[parameter.name] = items
      continue
    }
    const text = Array.isArray(given) ? given.at(-1) : given
    if (text === undefined || text === '') continue
    const converted = convert(parameter.schema, text)
    if (converted === undefined)
      fail(parameter.name, `must be of type ${typeName(parameter.schema)}: ${JSON.stringify(text)}`)
    else values[parameter.name] = converted
  }
  const { path, query, headers } = lazily(operation)
  const validate = { path, query, header: headers }[where]()
  if (!validate(values))
    for (const error of validate.errors ?? []) {
      const name =
        error.keyword === 'required'
          ? String(error.params['missingProperty'])
          : (error.instancePath.split('/')[1] ?? '')
      if (!wrong.has(name)) fail(name, complaint(error))
    }
  return values
}

// Getters compile: ask only for the one that is needed.
const lazily = (operation: Operation) => {
  const all = validators(operation)
  return { path: () => all.path, query: () => all.query, headers: () => all.headers }
}

const truths = new Set(['true', '1', 'yes', 'ok', 'y', 'on', 'selected', 'checked', 't', 'enabled'])
const int64 = { least: -(2n ** 63n), most: 2n ** 63n - 1n }

/** Undefined when the text is not of the schema's type. */
function convert(schema: JsonSchema, text: string): unknown {
  if (schema['type'] === 'boolean') return truths.has(text.toLowerCase())
  if (schema['type'] !== 'integer') return text
  if (!/^[+-]?\d{1,30}$/.test(text)) return undefined
  const value = BigInt(text.replace('+', ''))
  return value < int64.least || value > int64.most ? undefined : Number(value)
}

const typeName = (schema: JsonSchema) => String(schema['format'] ?? schema['type'])

function complaint({ keyword, params, message }: ErrorObject): string {
  switch (keyword) {
    case 'required':
      return 'is required'
    case 'maximum':
      return `should be less than or equal to ${params['limit']}`
    case 'minimum':
      return `should be greater than or equal to ${params['limit']}`
    case 'maxLength':
      return `should be at most ${params['limit']} chars long`
    case 'minLength':
      return `should be at least ${params['limit']} chars long`
    case 'enum':
      return `should be one of [${(params['allowedValues'] as unknown[]).join(' ')}]`
    case 'format':
      return `must be of type ${params['format']}`
    case 'type':
      return `must be of type ${String(params['type'])}`
    case 'pattern':
      return `should match '${params['pattern']}'`
    default:
      return message ?? 'is not valid'
  }
}

// ---- body

/** More than any request of the API needs; deeper nesting is an attack on whoever walks the value by recursion. */
const maxDepth = 64

function bindBody(operation: Operation, expected: RequestBody, raw: RawRequest['body'], failures: string[]): unknown {
  if (isEmpty(raw)) {
    if (expected.required) failures.push(`${expected.name} in body is required`)
    return undefined
  }
  // Bytes and forms are the handler's to read.
  if (!expected.mediaTypes.includes('application/json')) return raw
  const unreadable = (reason: string) => {
    failures.push(`parsing ${expected.name} body from "" failed, because ${reason}`)
    return undefined
  }
  const parsed = parseLeading(typeof raw === 'string' ? raw : new TextDecoder().decode(raw))
  if ('reason' in parsed) return unreadable(parsed.reason)
  const value = parsed.value === null ? {} : parsed.value
  const shaped = shape(operation.api, expected.schema, value)
  const validate = validators(operation).body
  if (!validate || validate(shaped)) return shaped

  const errors = (validate.errors ?? []).filter((error) => error.keyword !== 'anyOf')
  const mismatch = errors.find((error) => error.keyword === 'type')
  if (mismatch) {
    const at = pointer(mismatch.instancePath)
    return unreadable(`${at ? `${at} is ` : 'it is '}not of type ${[mismatch.params['type']].flat().join(' or ')}`)
  }
  const complaints = errors.map((error) => {
    const at = [
      pointer(error.instancePath),
      error.keyword === 'required' ? String(error.params['missingProperty']) : '',
    ]
      .filter(Boolean)
      .join('.')
    return `${at} in body ${complaint(error)}`
  })
  failures.push([heading, ...new Set(complaints)].join('\n'))
  return undefined
}

const pointer = (instancePath: string) => instancePath.split('/').slice(1).join('.')

/** The JSON value at the start of a text, whatever follows it. */
function parseLeading(text: string): { value: unknown } | { reason: string } {
  const { end, depth } = measure(text)
  if (depth > maxDepth) return { reason: 'it is nested too deep' }
  // Postgres has no U+0000 (threats.md A77). JSON spells it in one way; a backslash that is escaped itself escapes nothing.
  if (/(?<!\\)(?:\\\\)*\\u0000/.test(text)) return { reason: 'it holds a NUL character' }
  try {
    return { value: JSON.parse(withWholeCharacters(text.slice(0, end))) as unknown }
  } catch (error) {
    // The engine's own words quote the text, which may hold a password.
    const position = error instanceof Error && / at position (\d+)/.exec(error.message)?.[1]
    return { reason: `it is not valid JSON${position ? ` at position ${position}` : ''}` }
  }
}

/** JSON with U+FFFD for each half of a surrogate pair, as in Harbor's answers: neither Postgres nor Protobuf takes one. */
const withWholeCharacters = (json: string): string =>
  json.replaceAll(/\\(?:ud[89ab][\da-f]{2}\\ud[c-f][\da-f]{2}|(ud[89a-f][\da-f]{2})|[^])/gi, (escape, half) =>
    half === undefined ? escape : String.raw`\ufffd`,
  )

/** Where the first value of a text ends, and how deep its brackets go. What is not JSON may give any end. */
function measure(text: string): { end: number; depth: number } {
  const start = text.search(/\S/)
  if (start < 0) return { end: text.length, depth: 0 }
  if (!/[{["]/.test(text[start] as string))
    return { end: start + (/^[\w.+-]*/.exec(text.slice(start))?.[0].length || 1), depth: 0 }
  let open = 0
  let depth = 0
  let quoted = false
  for (let i = start; i < text.length; i++) {
    const char = text[i]
    if (char === '"') quoted = !quoted
    else if (quoted) {
      if (char === '\\') i++
      continue
    } else if (char === '{' || char === '[') depth = Math.max(depth, ++open)
    else if (char === '}' || char === ']') open--
    else continue
    if (open === 0 && !quoted) return { end: i + 1, depth }
  }
  return { end: text.length, depth }
}

/**
 * A copy that has only what the schema knows, under the schema's spelling. A null where the schema allows none is as if it
 * were absent, and so is an empty string in an optional field whose values are restricted: clients send back what they read.
 */
function shape(api: ApiName, schema: JsonSchema, value: unknown): unknown {
  const known = resolve(api, schema)
  if (Array.isArray(value)) {
    const items = known['items'] as JsonSchema | undefined
    return items ? value.map((item) => shape(api, items, item)) : value
  }
  if (typeof value !== 'object' || value === null) return value
  const properties = known['properties'] as { [name: string]: JsonSchema } | undefined
  const rest = known['additionalProperties'] as JsonSchema | boolean | undefined
  if (!properties && rest === undefined) return value

  const required = (known['required'] as string[] | undefined) ?? []
  const folded = properties && caseFolded(properties)
  const shaped: { [name: string]: unknown } = {}
  for (const [key, entry] of Object.entries(value)) {
    const name = properties && (Object.hasOwn(properties, key) ? key : folded?.get(key.toLowerCase()))
    if (name === undefined) {
      if (rest === true) define(shaped, key, entry)
      else if (typeof rest === 'object' && entry !== null) define(shaped, key, shape(api, rest, entry))
      continue
    }
    const property = (properties as { [name: string]: JsonSchema })[name] as JsonSchema
    const target = resolve(api, property)
    if (entry === null && !allowsNull(target)) continue
    if (entry === '' && (required.includes(name) || target['enum'] !== undefined || target['format'] !== undefined))
      continue
    define(shaped, name, shape(api, property, entry))
  }
  return shaped
}

/** `__proto__` is a key like any other. */
const define = (target: object, key: string, value: unknown) =>
  Object.defineProperty(target, key, { value, enumerable: true, writable: true, configurable: true })

const allowsNull = (schema: JsonSchema) =>
  schema['type'] === undefined || (Array.isArray(schema['type']) && schema['type'].includes('null'))

const foldings = new WeakMap<object, Map<string, string>>()

function caseFolded(properties: { [name: string]: JsonSchema }): Map<string, string> {
  let folded = foldings.get(properties)
  if (!folded)
    foldings.set(properties, (folded = new Map(Object.keys(properties).map((name) => [name.toLowerCase(), name]))))
  return folded
}

function resolve(api: ApiName, schema: JsonSchema): JsonSchema {
  const ref = schema['$ref']
  if (typeof ref !== 'string') return schema
  const named = contract.schemas[api][ref.slice(ref.lastIndexOf('/') + 1)]
  if (!named) throw new Error(`${ref} leads nowhere`)
  return resolve(api, named)
}

// ---- answers, for tests

/**
 * What is wrong with an answer by the contract, for tests; empty when it fits. `body` is the parsed JSON, or text;
 * undefined when there was none.
 */
export function checkResponse(operation: Operation, status: number, body: unknown, contentType?: string): string[] {
  const response = operation.responses[status] ?? operation.responses['default']
  const at = `${operation.operationId} ${status}`
  if (!response) return [`${at} is not in the contract`]
  if (status < 400 && !operation.responses[status]) return [`${at} is not in the contract`]
  const types = Object.keys(response.content)
  if (types.length === 0 || operation.method === 'HEAD')
    return body === undefined || body === null || body === '' ? [] : [`${at} has a body and should have none`]
  if (body === undefined || body === '') return response.mayBeEmpty ? [] : [`${at} has no body`]
  const type = contentType && mediaType(contentType)
  if (type && !types.some((declared) => covers(declared, type))) return [`${at} is ${type}, not ${types.join(' or ')}`]
  const validate = validators(operation).response(status, type)
  if (!validate) return []
  validate(body)
  const schema = (type && response.content[type]) || Object.values(response.content)[0]
  return [
    ...(validate.errors ?? []).map((error) => `${at} ${error.instancePath || '/'} ${error.message ?? error.keyword}`),
    ...(schema
      ? undeclared(operation.api, schema, body, '').map((path) => `${at} ${path} is not in the contract`)
      : []),
  ]
}

/** Fields that the schema does not know: a secret that slips into an answer is one of these. */
function undeclared(api: ApiName, schema: JsonSchema, value: unknown, at: string): string[] {
  const known = resolve(api, schema)
  if (Array.isArray(value)) {
    const items = known['items'] as JsonSchema | undefined
    return items ? value.flatMap((item, index) => undeclared(api, items, item, `${at}/${index}`)) : []
  }
  if (typeof value !== 'object' || value === null) return []
  const properties = known['properties'] as { [name: string]: JsonSchema } | undefined
  const rest = known['additionalProperties'] as JsonSchema | boolean | undefined
  return Object.entries(value).flatMap(([key, entry]) => {
    const property = properties && Object.hasOwn(properties, key) ? properties[key] : undefined
    if (property) return undeclared(api, property, entry, `${at}/${key}`)
    if (typeof rest === 'object') return undeclared(api, rest, entry, `${at}/${key}`)
    return properties && rest !== true ? [`${at}/${key}`] : []
  })
}
