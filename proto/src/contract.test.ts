import { readFileSync } from 'node:fs'
import { describe, expect, it } from '@jest/globals'
import { create, fromBinary, toBinary, type DescMessage } from '@bufbuild/protobuf'
import { parse } from 'yaml'
import { buildContract, ContractError } from './contract.ts'
import * as events from './events.ts'
import { checkResponse, formatNotYet, operations, validators, type Operation } from './index.ts'
import { GarbageCollectionSchema } from './jobs.ts'
import { contract } from './operations.ts'
import { RegistryControl } from './rpc.ts'

const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8')
const all: Operation[] = Object.values(operations)
const harbor = all.filter((operation) => operation.api === 'harbor')

describe('the platform API', () => {
  it('has every operation of the inventory under its id, and answers success with its codes', () => {
    const rows = harbor.map((operation) => {
      const success = Object.keys(operation.responses).filter((status) => status.startsWith('2'))
      return `${operation.method} ${operation.path.replace('/api/v2.0', '')} ${operation.operationId} ${success.join('/')}`
    })
    expect(rows.sort()).toEqual(read('../fixtures-contract/operations.txt').trim().split('\n').sort())
  })

  it('is as large as the inventory says', () => {
    expect({
      operations: harbor.length,
      paths: new Set(harbor.map((operation) => operation.path)).size,
      tags: new Set(harbor.map((operation) => operation.tag)).size,
      schemas: Object.keys(contract.schemas.harbor).length,
    }).toEqual({ operations: 203, paths: 135, tags: 38, schemas: 153 })
  })

  it('counts and links every list that comes in pages', () => {
    const paged = harbor.filter((operation) => operation.parameters.some(({ name }) => name === 'page'))
    const uncounted = paged.filter(
      ({ responses }) => !['X-Total-Count', 'Link'].every((name) => responses['200']?.headers.includes(name)),
    )
    // One artifact takes the paging parameters without being a list.
    expect(uncounted.map((operation) => operation.operationId)).toEqual(['getArtifact'])
    expect(paged.length).toBeGreaterThan(40)
  })

  it('keeps the misspellings that clients know', () => {
    expect(operations.getRentenitionMetadata.path).toBe('/api/v2.0/retentions/metadatas')
    expect(contract.schemas.harbor['AuthproxySetting']).toHaveProperty('properties.tokenreivew_endpoint')
  })
})

describe('permissions and parents', () => {
  it('names a parent for every resource in a path', () => {
    // Parameters that choose something without naming a resource.
    const selectors = new Set(['addition'])
    for (const operation of harbor) {
      const named = operation.parameters.filter(({ in: where, name }) => where === 'path' && !selectors.has(name))
      expect([operation.operationId, operation.parents.length]).toEqual([operation.operationId, named.length])
    }
    expect(operations.GetLogsOfWebhookTask.parents).toEqual(['project', 'webhook-policy', 'execution', 'task'])
    expect(operations.getReportLog.parents).toEqual(['project', 'repository', 'artifact', 'report'])
    expect(operations.listProjects.parents).toEqual([])
  })

  it('lets only a project scope decide below a project', () => {
    const elsewhere = harbor.filter(
      ({ parents, permission }) => parents[0] === 'project' && permission.scope !== 'project',
    )
    expect(elsewhere.map(({ operationId }) => operationId).sort()).toEqual(['scanArtifact', 'stopScanArtifact'])
  })

  it('finds the project of a retention policy through the policy', () => {
    const through = harbor.filter(
      ({ parents, permission }) => permission.scope === 'project' && parents[0] !== 'project',
    )
    expect(new Set(through.map(({ tag }) => tag))).toEqual(new Set(['Retention']))
  })

  it('leaves to anybody only what a stranger may have', () => {
    const open = all.filter(({ permission }) => permission.scope === 'public' || permission.scope === 'filtered')
    expect(open.map(({ operationId }) => operationId).sort()).toEqual(
      [
        'getCert',
        'getHealth',
        'getIcon',
        'getPing',
        'getSystemInfo',
        'listAllRepositories',
        'listProjects',
        'search',
        'searchArtifacts',
      ].sort(),
    )
  })
})

describe('examples', () => {
  const documents = { harbor: 'harbor-v2.0.yaml', oci: 'oci-v2.yaml', haven: 'haven-v1.yaml' } as const

  it('fit their schemas', () => {
    let checked = 0
    for (const api of ['harbor', 'oci', 'haven'] as const)
      for (const [name, schema] of Object.entries(contract.schemas[api]))
        for (const example of (schema['examples'] as unknown[] | undefined) ?? []) {
          const operation: Operation = {
            ...operations.getPing,
            api,
            operationId: 'getPing',
            responses: {
              200: {
                headers: [],
                content: { 'application/json': { $ref: `haven:${api}#/components/schemas/${name}` } },
              },
            },
          }
          expect([name, checkResponse(operation, 200, example)]).toEqual([name, []])
          checked++
        }
    expect(checked).toBeGreaterThan(70)
  })

  it('exist for every JSON body that a client sends', () => {
    const without: string[] = []
    for (const file of Object.values(documents)) {
      const document = parse(read(`../openapi/${file}`)) as OpenApi
      for (const [path, item] of Object.entries(document.paths))
        for (const [method, operation] of Object.entries(item)) {
          const media = operation.requestBody?.content['application/json']
          if (!media) continue
          const name = media.schema.$ref?.split('/').at(-1)
          const example = media.example ?? (name ? document.components.schemas[name]?.examples?.[0] : undefined)
          if (example === undefined) without.push(`${method} ${path}`)
          else {
            const validate = validators(operations[operation.operationId as keyof typeof operations]).body
            expect([path, validate?.(example), validate?.errors]).toEqual([path, true, null])
          }
        }
    }
    expect(without).toEqual([])
  })
})

describe('generation', () => {
  const document = (operation: object, more: object = {}) => ({
    api: 'harbor' as const,
    file: 'some.yaml',
    content: {
      servers: [{ url: '/api' }],
      paths: { '/things/{id}': { parameters: [idParameter], get: operation, ...more } },
    },
  })
  const idParameter = { name: 'id', in: 'path', required: true, schema: { type: 'integer' } }
  const whole = {
    operationId: 'getThing',
    'x-haven-permission': { scope: 'public' },
    'x-haven-parents': ['thing'],
    responses: {},
  }
  const { 'x-haven-permission': _permission, ...unguarded } = whole
  const { 'x-haven-parents': _parents, ...orphaned } = whole

  it('takes an operation that says who may call it and what it is part of', () => {
    const [operation] = buildContract([document(whole)]).operations
    expect(operation).toMatchObject({
      method: 'GET',
      path: '/api/things/{id}',
      permission: { scope: 'public' },
      parents: ['thing'],
    })
  })

  it.each([
    ['without a permission', document(unguarded), 'some.yaml: GET /things/{id} (getThing) lacks x-haven-permission'],
    ['without parents', document(orphaned), 'GET /things/{id} (getThing) lacks x-haven-parents'],
    ['without an id', document({ ...whole, operationId: undefined }), 'GET /things/{id} lacks an operationId'],
    [
      'with an id that is taken',
      document(whole, { put: whole }),
      'PUT /things/{id} (getThing) has the operationId of some.yaml: GET',
    ],
    [
      'with an unknown scope',
      document({ ...whole, 'x-haven-permission': { scope: 'anyone' } }),
      'malformed x-haven-permission',
    ],
    [
      'with a scope that lacks its action',
      document({ ...whole, 'x-haven-permission': { scope: 'system', resource: 'user' } }),
      'malformed x-haven-permission',
    ],
    [
      'with a rule too many',
      document({ ...whole, 'x-haven-permission': { scope: 'public', rule: 'but not for all' } }),
      'malformed x-haven-permission',
    ],
    ['with parents that are no list', document({ ...whole, 'x-haven-parents': 'thing' }), 'malformed x-haven-parents'],
    [
      'with a path parameter nobody declared',
      { ...document(whole), content: { paths: { '/things/{name}': { get: whole } } } },
      'does not declare the parameter name',
    ],
    [
      'with a reference that leads nowhere',
      document({ ...whole, responses: { 200: { $ref: '#/components/responses/Gone' } } }),
      'some.yaml: #/components/responses/Gone leads nowhere',
    ],
  ])('refuses an operation %s', (_, given, message) => {
    expect(() => buildContract([given])).toThrow(ContractError)
    expect(() => buildContract([given])).toThrow(message)
  })

  it('names every fault at once', () => {
    expect(() => buildContract([document(unguarded, { put: orphaned })])).toThrow(
      /lacks x-haven-permission[^]*lacks x-haven-parents/,
    )
  })
})

describe('the list of operations without a handler', () => {
  it('shrinks by what is handled, and stays sorted', () => {
    const whole = formatNotYet(new Set())
    expect(whole.trim().split('\n')).toHaveLength(203)
    expect(whole).toContain('GET /ping getPing\n')
    const lines = formatNotYet(new Set(['getPing', 'getManifest']))
      .trim()
      .split('\n')
    expect(lines).toHaveLength(202)
    expect(lines).toEqual([...lines].sort())
  })
})

describe('messages', () => {
  it('survive the wire', () => {
    const sent = create(GarbageCollectionSchema, { deleteUntagged: true, workers: 4, timeWindowSeconds: 7200 })
    expect(fromBinary(GarbageCollectionSchema, toBinary(GarbageCollectionSchema, sent))).toEqual(sent)
  })

  it('say of every event who did it, when, and by which request', () => {
    const parts = new Set([
      'EventHeader',
      'Actor',
      'ProjectRef',
      'RepositoryRef',
      'ArtifactRef',
      'UserRef',
      'GroupRef',
      'RobotRef',
      'LabelRef',
      'RegistryRef',
      'Membership',
      'Pull',
      'Puller',
    ])
    const messages: DescMessage[] = Object.values(events).flatMap((value) =>
      'kind' in value && value.kind === 'message' ? [value as DescMessage] : [],
    )
    const kinds = messages.filter(({ name }) => !parts.has(name))
    expect(kinds.filter(({ fields }) => fields[0]?.message?.name !== 'EventHeader').map(({ name }) => name)).toEqual([])
    expect(kinds.length).toBeGreaterThan(20)
  })

  it('offer the registry control calls, those that take long as streams', () => {
    expect(RegistryControl.methods.map(({ name, methodKind }) => `${name} ${methodKind}`)).toEqual([
      'Erase server_streaming',
      'Verify server_streaming',
      'Repair unary',
      'Statistics unary',
    ])
  })
})

interface OpenApi {
  paths: {
    [path: string]: {
      [method: string]: {
        operationId: string
        requestBody?: { content: { [type: string]: { schema: { $ref?: string }; example?: unknown } } }
      }
    }
  }
  components: { schemas: { [name: string]: { examples?: unknown[] } } }
}
