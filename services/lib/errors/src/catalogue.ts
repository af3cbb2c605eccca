import { catalogue, define, Problem } from './problem.ts'
import { formatBytes } from './format-bytes.ts'
import { isUnavailable } from './unavailable.ts'

/** When to ask again while Postgres or another service is being started again. */
const AWAY_SECONDS = 2

const reference = (p: { repository: string; reference: string }) =>
  `${p.repository}${p.reference.includes(':') ? '@' : ':'}${p.reference}`

/** Every problem that a client or an operator can be told about. Where Harbor has a text for it, the text is Harbor's. */
export const problems = catalogue({
  // Who asks, and for what

  unauthorized: define(
    { status: 401, oci: 'UNAUTHORIZED', harbor: 'UNAUTHORIZED' },
    (p: { message?: string }) => p.message ?? 'unauthorized',
  ),
  repositoryUnauthorized: define(
    { status: 401, oci: 'UNAUTHORIZED', harbor: 'UNAUTHORIZED' },
    (p: { repository: string; action: string }) =>
      `unauthorized to access repository: ${p.repository}, action: ${p.action}`,
  ),
  forbidden: define(
    { status: 403, oci: 'DENIED', harbor: 'FORBIDDEN' },
    (p: { message?: string }) => p.message ?? 'forbidden',
  ),
  denied: define(
    { status: 403, oci: 'DENIED', harbor: 'DENIED' },
    (p: { message?: string }) => p.message ?? 'requested access to the resource is denied',
  ),
  csrfTokenMissing: define(
    { status: 403, oci: 'DENIED', harbor: 'FORBIDDEN' },
    () => 'CSRF token not found in request',
  ),
  csrfTokenInvalid: define({ status: 403, oci: 'DENIED', harbor: 'FORBIDDEN' }, () => 'CSRF token invalid'),
  readOnly: define(
    { status: 403, oci: 'DENIED', harbor: 'DENIED' },
    () => 'The system is in read only mode. Any modification is prohibited.',
  ),

  // What is asked for

  notFound: define({ status: 404 }, (p: { resource: string; id: string | number } | { message: string }) =>
    'message' in p ? p.message : `${p.resource} ${p.id} not found`,
  ),
  pathNotFound: define({ status: 404 }, (p: { path: string }) => `path ${p.path} was not found`),
  projectNotFound: define(
    { status: 404, oci: 'NAME_UNKNOWN', harbor: 'NOT_FOUND' },
    (p: { project: string | number }) => `project ${p.project} not found`,
  ),
  methodNotAllowed: define(
    { status: 405, oci: 'UNSUPPORTED', harbor: 'METHOD_NOT_ALLOWED' },
    (p: { method: string; allowed: readonly string[] } | { message: string }) =>
      'message' in p ? p.message : `method ${p.method} is not allowed, but [${p.allowed.join(',')}] are`,
  ),

  // What was sent

  badRequest: define({ status: 400 }, (p: { message: string }) => p.message),
  unprocessable: define(
    { status: 422, oci: 'UNSUPPORTED', harbor: 'UNPROCESSABLE_ENTITY' },
    (p: { failures: readonly string[] }) => ['validation failure list:', ...p.failures].join('\n'),
  ),
  conflict: define({ status: 409 }, (p: { resource: string; name: string } | { message: string }) =>
    'message' in p ? p.message : `${p.resource} ${p.name} already exists`,
  ),
  projectNameInvalid: define(
    { status: 400, oci: 'NAME_INVALID', harbor: 'BAD_REQUEST' },
    ({ project }: { project: string }) =>
      project.length < 1 || project.length > 255
        ? `Project name ${project} is illegal in length. (greater than 255 or less than 1)`
        : 'project name is not in lower case or contains illegal characters',
  ),
  preconditionFailed: define({ status: 412 }, (p: { message: string }) => p.message),
  authModeMismatch: define({ status: 412, harbor: 'PRECONDITION_FAILED' }, (p: { message: string }) => p.message),
  stillReferenced: define(
    { status: 412, oci: 'DENIED', harbor: 'VIOLATE_FOREIGN_KEY_CONSTRAINT' },
    (p: { message?: string }) => p.message ?? 'the deleting artifact is referenced by others',
  ),
  policyViolation: define(
    { status: 412, oci: 'PROJECTPOLICYVIOLATION', harbor: 'PROJECTPOLICYVIOLATION' },
    (p: { message: string }) => p.message,
  ),
  requestTimeout: define({ status: 408 }, () => 'the request took too long to arrive'),
  payloadTooLarge: define<{ limitBytes?: number }>(
    { status: 413, oci: 'SIZE_INVALID', harbor: 'REQUEST_ENTITY_TOO_LARGE' },
    () => 'request entity too large',
  ),
  uriTooLong: define(
    { status: 414 },
    (p: { limitBytes: number }) => `the request line is longer than ${p.limitBytes} bytes`,
  ),
  headersTooLarge: define(
    { status: 431 },
    (p: { limitBytes?: number }) =>
      `the request headers are too large${p.limitBytes === undefined ? '' : ` (limit ${p.limitBytes} bytes)`}`,
  ),
  tooManyRequests: define(
    { status: 429, oci: 'TOOMANYREQUESTS', harbor: 'TOO_MANY_REQUEST' },
    (p: { retryAfterSeconds: number; message?: string }) => p.message ?? 'too many requests',
    { headers: retryAfter },
  ),

  // What we cannot do

  internal: define<{ requestId?: string }>({ status: 500, exitCode: 70 }, () => 'internal server error'),
  notImplemented: define(
    { status: 501, oci: 'UNSUPPORTED' },
    (p: { operation: string }) => `${p.operation} is not implemented yet`,
  ),
  badGateway: define(
    { status: 502 },
    (p: { message?: string }) => p.message ?? 'a service behind this address gave no usable answer',
  ),
  directoryFailed: define(
    { status: 503, oci: 'UNAVAILABLE' },
    (p: { reason: string }) => `the LDAP directory cannot be used: ${p.reason}`,
  ),
  identityProviderFailed: define(
    { status: 503, oci: 'UNAVAILABLE' },
    (p: { reason: string }) => `the identity provider cannot be used: ${p.reason}`,
  ),
  serviceUnavailable: define(
    { status: 503, oci: 'UNAVAILABLE', exitCode: 69 },
    (p: { message?: string; retryAfterSeconds?: number }) => p.message ?? 'the service is not available at the moment',
    { headers: retryAfter },
  ),
  gatewayTimeout: define(
    { status: 504 },
    (p: { message?: string }) => p.message ?? 'a service behind this address took too long',
  ),

  // The registry

  nameInvalid: define(
    { status: 400, oci: 'NAME_INVALID', harbor: 'BAD_REQUEST' },
    (p: { name: string; reason?: string }) =>
      `invalid repository name: ${p.name}${p.reason === undefined ? '' : ` (${p.reason})`}`,
  ),
  nameUnknown: define(
    { status: 404, oci: 'NAME_UNKNOWN', harbor: 'NOT_FOUND' },
    (p: { repository: string }) => `repository ${p.repository} not found`,
  ),
  tagInvalid: define(
    { status: 400, oci: 'MANIFEST_INVALID', harbor: 'BAD_REQUEST' },
    (p: { tag: string }) => `invalid tag name: ${p.tag}`,
  ),
  manifestUnknown: define(
    { status: 404, oci: 'MANIFEST_UNKNOWN', harbor: 'NOT_FOUND' },
    (p: { repository: string; reference: string }) => `artifact ${reference(p)} not found`,
  ),
  manifestInvalid: define(
    { status: 400, oci: 'MANIFEST_INVALID', harbor: 'MANIFEST_INVALID' },
    // `path`: of the first fault, where it has one: `layers[3].digest`.
    (p: { reason: string; path?: string }) => `manifest invalid: ${p.reason}`,
  ),
  // 404 and not Distribution's 400: OCI Distribution 1.1 lists 404 as the failure of a manifest PUT (end-7).
  manifestBlobUnknown: define<{ digests: readonly string[] }>(
    { status: 404, oci: 'MANIFEST_BLOB_UNKNOWN', harbor: 'NOT_FOUND' },
    () => 'blob unknown to registry',
    {
      entries: (p) =>
        p.digests.map((digest) => ({ message: `blob unknown to registry: ${digest}`, facts: { digest } })),
    },
  ),
  blobUnknown: define<{ digest: string }>(
    { status: 404, oci: 'BLOB_UNKNOWN', harbor: 'NOT_FOUND' },
    () => 'blob unknown to registry',
  ),
  blobUploadUnknown: define<{ upload?: string }>(
    { status: 404, oci: 'BLOB_UPLOAD_UNKNOWN', harbor: 'NOT_FOUND' },
    () => 'blob upload unknown to registry',
  ),
  blobUploadInvalid: define(
    { status: 400, oci: 'BLOB_UPLOAD_INVALID', harbor: 'BAD_REQUEST' },
    (p: { reason?: string }) => `blob upload invalid${p.reason === undefined ? '' : `: ${p.reason}`}`,
  ),
  digestInvalid: define(
    { status: 400, oci: 'DIGEST_INVALID', harbor: 'DIGEST_INVALID' },
    (p: { digest?: string; reason?: string }) => p.reason ?? 'provided digest did not match uploaded content',
  ),
  sizeInvalid: define<{ declaredBytes?: number; receivedBytes?: number }>(
    { status: 400, oci: 'SIZE_INVALID', harbor: 'BAD_REQUEST' },
    () => 'provided length did not match content length',
  ),
  rangeInvalid: define(
    { status: 416, oci: 'RANGE_INVALID', harbor: 'BAD_REQUEST' },
    (p: { reason?: string }) => p.reason ?? 'invalid content range',
  ),
  tagImmutable: define(
    { status: 412, oci: 'PRECONDITION', harbor: 'PRECONDITION' },
    // Harbor names the repository without its project here.
    (p: { repository: string; tag: string; reasons?: readonly string[] }) =>
      `Failed to process request due to '${p.repository.slice(p.repository.indexOf('/') + 1)}:${p.tag}' configured as immutable.`,
  ),
  tagUndeletable: define(
    { status: 412, oci: 'PRECONDITION', harbor: 'PRECONDITION' },
    (p: { tag: string; reasons?: readonly string[] }) => `the tag ${p.tag} configured as immutable, cannot be deleted`,
  ),
  quotaExceeded: define(
    { status: 403, oci: 'DENIED', harbor: 'DENIED' },
    (p: { addedBytes: number; usedBytes: number; limitBytes: number }) =>
      `Quota exceeded when processing the request of adding ${formatBytes(p.addedBytes)} of storage resource, which when ` +
      `updated to current usage of ${formatBytes(p.usedBytes)} will exceed the configured upper limit of ${formatBytes(p.limitBytes)}.`,
  ),
  unsupported: define(
    { status: 405, oci: 'UNSUPPORTED', harbor: 'UNSUPPORTED' },
    (p: { message?: string }) => p.message ?? 'The operation is unsupported.',
  ),

  // What we asked of somebody else's server. The host is the caller's own choice; what the server said is not repeated (threats.md R11).

  outboundRefused: define(
    { status: 400, harbor: 'BAD_REQUEST', oci: 'DENIED' },
    (p: { host: string }) => `${p.host} may not be reached from here`,
  ),
  outboundFailed: define(
    { status: 502, harbor: 'UNKNOWN', oci: 'UNAVAILABLE' },
    (p: { host: string; reason: string }) => `${p.host} did not answer as it should: ${p.reason}`,
  ),

  // A process that cannot start: each has its own exit code, for scripts and unit files

  settingsInvalid: define({ status: 500, exitCode: 78 }, (p: { message: string }) => p.message),
  portInUse: define(
    { status: 500, exitCode: 20 },
    (p: { host: string; port: number; setting?: string }) =>
      `${p.host}:${p.port} is in use by another program${p.setting === undefined ? '' : `; choose another port with ${p.setting}`}`,
  ),
  databaseUnreachable: define(
    { status: 503, exitCode: 21 },
    (p: { reason: string }) => `Postgres cannot be reached: ${p.reason}`,
  ),
  databaseTooNew: define(
    { status: 503, exitCode: 22 },
    (p: { migration: string }) =>
      `the database is of a newer version: it has the migration ${p.migration}, which this version does not know`,
  ),
  redisUnreachable: define(
    { status: 503, exitCode: 23 },
    (p: { reason: string }) => `Redis cannot be reached: ${p.reason}`,
  ),
  storageUnreachable: define(
    { status: 503, exitCode: 24 },
    (p: { reason: string }) => `the blob store cannot be used: ${p.reason}`,
  ),
  diskFull: define({ status: 503, exitCode: 25 }, (p: { reason: string }) => `no space is left: ${p.reason}`),
  clockSkewed: define(
    { status: 503, exitCode: 26 },
    (p: { skewSeconds: number }) =>
      `this machine's clock is ${Math.abs(p.skewSeconds)} s ${p.skewSeconds < 0 ? 'behind' : 'ahead of'} the database's; tokens would be refused`,
  ),
  keyUnreadable: define(
    { status: 500, exitCode: 27 },
    (p: { setting: string; reason: string }) => `the key of ${p.setting} cannot be used: ${p.reason}`,
  ),
  alreadyRunning: define({ status: 500, exitCode: 28 }, (p: { pid: number }) => `already running, as process ${p.pid}`),
  programMissing: define(
    { status: 500, exitCode: 29 },
    (p: { program: string; advice: string }) => `${p.program} was not found; ${p.advice}`,
  ),
  notReadyInTime: define(
    { status: 503, exitCode: 30 },
    (p: { what: string; seconds: number; logs: string }) =>
      `${p.what} was not ready within ${p.seconds} s; its log is in ${p.logs}`,
  ),
  processEnded: define(
    { status: 500, exitCode: 31 },
    (p: { what: string; how: string | number; logs: string }) =>
      `${p.what} ended with ${p.how} before it was ready; its log is in ${p.logs}`,
  ),
  badUsage: define({ status: 500, exitCode: 64 }, (p: { message: string }) => p.message),
})

function retryAfter(p: { retryAfterSeconds?: number }): Record<string, string> {
  return p.retryAfterSeconds === undefined ? {} : { 'Retry-After': String(Math.max(1, Math.ceil(p.retryAfterSeconds))) }
}

/**
 * The problem to answer with for anything that was thrown. What is no Problem is a bug, unless something we need is away: the client
 * learns nothing of it but the request id; the original is the `cause`, for the log.
 */
export function toProblem(thrown: unknown, requestId?: string): Problem {
  if (thrown instanceof Problem) return thrown
  if (isUnavailable(thrown)) return problems.serviceUnavailable({ retryAfterSeconds: AWAY_SECONDS }, { cause: thrown })
  return problems.internal(requestId === undefined ? {} : { requestId }, { cause: thrown })
}
