import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js'
import { schemaId, type ApiName, type JsonSchema, type Parameter } from './contract.ts'
import { contract, type Operation } from './operations.ts'

/** Validators of one operation. Each is compiled when it is first asked for and kept. */
export interface Validators {
  /** Expects and changes the raw values: strings become what the schema says, defaults are filled in. */
  readonly path: ValidateFunction<{ [name: string]: unknown }>
  readonly query: ValidateFunction<{ [name: string]: unknown }>
  readonly headers: ValidateFunction<{ [name: string]: unknown }>
  /** Undefined when the operation takes no body. */
  readonly body: ValidateFunction | undefined
  /** Undefined when the contract declares no such status, no default, or no body of that media type. */
  response(status: number, mediaType?: string): ValidateFunction | undefined
}

export type { ErrorObject }

const dateTime = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)$/

const formats = {
  int32: { type: 'number', validate: (value: number) => Number.isInteger(value) && Math.abs(value) <= 2 ** 31 },
  int64: { type: 'number', validate: Number.isInteger },
  float: { type: 'number', validate: Number.isFinite },
  double: { type: 'number', validate: Number.isFinite },
  binary: true,
  'date-time': (value: string) => dateTime.test(value) && !Number.isNaN(Date.parse(value)),
  // An address or a path: a scanner may be given without a scheme only as a path.
  uri: (value: string) => value.startsWith('/') || URL.canParse(value),
} as const

function engine(options: ConstructorParameters<typeof Ajv2020>[0]) {
  const ajv = new Ajv2020({
    allErrors: true,
    strict: true,
    strictTypes: false,
    strictRequired: false,
    formats,
    ...options,
  })
  for (const [api, schemas] of Object.entries(contract.schemas))
    ajv.addSchema({ $id: schemaId(api as ApiName), components: { schemas } })
  return ajv
}

const once = <T>(make: () => T) => {
  let made: { value: T } | undefined
  return () => (made ??= { value: make() }).value
}

const openApiKeywords = ['components', 'example'] as const
const engines = {
  coercing: once(() => engine({ coerceTypes: 'array', useDefaults: true, keywords: [...openApiKeywords] })),
  exact: once(() => engine({ keywords: [...openApiKeywords] })),
}

const made = new WeakMap<Operation, Validators>()

/** The validators of an operation, each compiled at first use. */
export function validators(operation: Operation): Validators {
  const known = made.get(operation)
  if (known) return known
  const within = (where: Parameter['in']) =>
    once(() =>
      engines
        .coercing()
        .compile<{ [name: string]: unknown }>(objectOf(operation.parameters.filter((p) => p.in === where))),
    )
  const path = within('path')
  const query = within('query')
  const headers = within('header')
  const body = once(() => operation.body && engines.exact().compile(operation.body.schema))
  const responses = new Map<JsonSchema, ValidateFunction>()

  const fresh: Validators = {
    get path() {
      return path()
    },
    get query() {
      return query()
    },
    get headers() {
      return headers()
    },
    get body() {
      return body()
    },
    response(status, mediaType) {
      const content = (operation.responses[status] ?? operation.responses['default'])?.content ?? {}
      const schema = mediaType === undefined ? Object.values(content)[0] : (content[mediaType] ?? content['*/*'])
      if (schema === undefined) return undefined
      // Most answers are a reference, which the engine compiles once for all operations.
      const ajv = engines.exact()
      const shared = named(schema) ? ajv.getSchema(schema.$ref) : undefined
      const compiled = responses.get(schema) ?? shared ?? ajv.compile(schema)
      responses.set(schema, compiled)
      return compiled
    },
  }
  made.set(operation, fresh)
  return fresh
}

const named = (schema: JsonSchema): schema is { $ref: string } =>
  typeof schema['$ref'] === 'string' && Object.keys(schema).length === 1

function objectOf(parameters: Parameter[]): JsonSchema {
  return {
    type: 'object',
    properties: Object.fromEntries(parameters.map(({ name, schema }) => [name, schema])),
    required: parameters.filter((parameter) => parameter.required).map((parameter) => parameter.name),
  }
}
