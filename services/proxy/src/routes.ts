/** Where a request goes. `absent`: nothing is there for anybody outside. */
export type Destination = 'registry' | 'token' | 'core' | 'portal' | 'absent' | 'registry-root'

/**
 * Harbor's split of paths (harbor-api.md §6), on a canonical path. What is meant for our own services only (`/service/notifications`,
 * `/api/internal`) is absent here and asks for a credential there.
 */
export function destinationOf(path: string): Destination {
  const end = path.indexOf('/', 1)
  switch (end === -1 ? path.slice(1) : path.slice(1, end)) {
    case 'v2':
      return end === -1 ? 'registry-root' : 'registry'
    case 'api':
      return path === '/api/internal' || path.startsWith('/api/internal/') ? 'absent' : 'core'
    case 'c':
    // The API's contract and the page to try it on, where Harbor's portal has them.
    case 'swagger.json':
    case 'devcenter-api-2.0':
      return 'core'
    case 'service':
      return path === '/service/token' ? 'token' : 'absent'
    case 'v1':
      return 'absent'
    default:
      return 'portal'
  }
}
