import { describe, expect, it } from '@jest/globals'
import { operations } from '@haven/proto'
import { RouteTable } from './router.ts'

const table = new RouteTable(Object.values(operations).filter((operation) => operation.api !== 'oci'))
const find = (method: string, path: string) => {
  const match = table.find(method, path)
  return match && ('allowed' in match ? match.allowed : [match.operation.operationId, ...match.values])
}

describe('RouteTable', () => {
  it('finds every operation of the contract at its path', () => {
    for (const operation of Object.values(operations)) {
      if (operation.api === 'oci') continue
      const path = operation.path.replaceAll(/\{[^}]+\}/g, 'x')
      expect([operation.method, path, ...(find(operation.method, path) ?? [])]).toEqual([
        operation.method,
        path,
        operation.operationId,
        ...[...operation.path.matchAll(/\{/g)].map(() => 'x'),
      ])
    }
  })

  it.each([
    ['GET', '/api/v2.0/users/current', ['getCurrentUserInfo']],
    ['GET', '/api/v2.0/users/7', ['getUser', '7']],
    ['GET', '/api/v2.0/projects/', ['listProjects']],
    ['GET', '/api/v2.0/projects/p/metadatas', ['listProjectMetadatas', 'p']],
    ['GET', '/api/v2.0/system/gc/schedule', ['getGCSchedule']],
    ['GET', '/api/v2.0/projects/p/repositories/a%2Fb/artifacts', ['listArtifacts', 'p', 'a%2Fb']],
    ['PATCH', '/api/v2.0/projects', ['GET', 'HEAD', 'POST']],
    ['HEAD', '/api/v2.0/users', ['GET', 'POST']],
    ['OPTIONS', '/api/v2.0/ping', ['GET']],
    ['GET', '/api/v2.0', null],
    ['GET', '/api/v2.0/nope', null],
    ['GET', '/api/v2.0/ping/more', null],
    ['GET', '/api/v2.0/__proto__', null],
  ])('%s %s is %j', (method, path, expected) => {
    expect(find(method, path)).toEqual(expected)
  })
})
