import { operations } from './operations.ts'

/** The sorted list of the platform API's operations that have no handler, one `METHOD path operationId` a line. */
export function formatNotYet(handled: ReadonlySet<string>): string {
  return Object.values(operations)
    .filter((operation) => operation.api === 'harbor' && !handled.has(operation.operationId))
    .map((operation) => `${operation.method} ${operation.path.replace('/api/v2.0', '')} ${operation.operationId}\n`)
    .sort()
    .join('')
}
