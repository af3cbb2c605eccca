import { describe, expect, it } from '@jest/globals'
import { catalogue, define, harborEnvelope, ociEnvelope, Problem, problems, toProblem } from './index.ts'
import { formatBytes } from './format-bytes.ts'

describe('define', () => {
  const { teapot } = catalogue({
    teapot: define({ status: 418 }, (p: { litres: number }) => `only ${p.litres} l of tea`),
  })

  it('makes an Error with kind, facts and message', () => {
    const problem = teapot({ litres: 2 })
    expect(problem).toBeInstanceOf(Error)
    expect(problem).toMatchObject({ status: 418, message: 'only 2 l of tea', facts: { litres: 2 }, headers: {} })
    expect(problem.kind.name).toBe('teapot')
  })

  it('tells its own problems from others', () => {
    expect(teapot.is(teapot({ litres: 1 }))).toBe(true)
    expect(teapot.is(problems.forbidden())).toBe(false)
    expect(teapot.is(new Error('only 2 l of tea'))).toBe(false)
  })

  it('keeps the cause and the headers it is given', () => {
    const cause = new Error('why')
    const problem = problems.unauthorized({}, { cause, headers: { 'WWW-Authenticate': 'Bearer realm="r"' } })
    expect(problem.cause).toBe(cause)
    expect(problem.headers).toEqual({ 'WWW-Authenticate': 'Bearer realm="r"' })
  })
})

describe('the catalogue', () => {
  it('names each kind by its key', () => {
    for (const [name, { kind }] of Object.entries(problems)) expect(kind.name).toBe(name)
  })

  it('uses only statuses with the codes that Harbor pairs them with', () => {
    const allowed: Record<string, number> = {
      BAD_REQUEST: 400,
      DIGEST_INVALID: 400,
      MANIFEST_INVALID: 400,
      UNAUTHORIZED: 401,
      FORBIDDEN: 403,
      DENIED: 403,
      NOT_FOUND: 404,
      METHOD_NOT_ALLOWED: 405,
      CONFLICT: 409,
      PRECONDITION: 412,
      PRECONDITION_FAILED: 412,
      VIOLATE_FOREIGN_KEY_CONSTRAINT: 412,
      PROJECTPOLICYVIOLATION: 412,
      REQUEST_ENTITY_TOO_LARGE: 413,
      UNPROCESSABLE_ENTITY: 422,
      TOO_MANY_REQUEST: 429,
    }
    // Statuses that Harbor never answers itself have no code of their own in its table.
    const borrowed = [405, 408, 414, 416, 431]
    for (const { kind } of Object.values(problems)) {
      if (kind.status >= 500) expect([kind.name, kind.harbor]).toEqual([kind.name, 'UNKNOWN'])
      else if (!borrowed.includes(kind.status))
        expect([kind.name, allowed[kind.harbor]]).toEqual([kind.name, kind.status])
    }
  })

  it.each([
    ['a refused connection', Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:5432'), { code: 'ECONNREFUSED' })],
    ['a socket that went with its server', new Error('connect ENOENT /pg/.s.PGSQL.5432')],
    ['the same as Prisma says it', new Error('\nInvalid invocation:\n\n\nconnect ENOENT /pg/.s.PGSQL.5432')],
    ['a shutdown of Postgres', Object.assign(new Error('terminating connection'), { code: '57P01' })],
    ['a lock held too long', Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' })],
    ['a full disk of Postgres (F17)', Object.assign(new Error('could not extend file'), { code: '53100' })],
    ['a connection that broke', new Error('Client has encountered a connection error and is not queryable')],
    ['what Prisma passes on', { code: 'P2010', meta: { driverAdapterError: { cause: { originalCode: '57P02' } } } }],
    ['a cause further down', new Error('reading the key', { cause: { code: 'ECONNRESET' } })],
  ])('answers 503 with Retry-After, and no detail, to %s', (_, thrown) => {
    const problem = toProblem(thrown, 'r1')
    expect(problem).toMatchObject({ status: 503, headers: { 'Retry-After': '2' }, cause: thrown })
    expect(ociEnvelope(problem)).toEqual({
      errors: [expect.objectContaining({ code: 'UNAVAILABLE', message: 'the service is not available at the moment' })],
    })
  })

  it.each([
    ['an error of ours', new TypeError('x is not a function')],
    ['a wrong statement', Object.assign(new Error('syntax error'), { code: '42601' })],
  ])('answers 500 to %s', (_, thrown) => {
    expect(toProblem(thrown).status).toBe(500)
  })

  it('gives each reason not to start its own exit code', () => {
    const codes = Object.values(problems)
      .map(({ kind }) => kind.exitCode)
      .filter((code) => code !== 1)
    expect(new Set(codes).size).toBe(codes.length)
    expect(problems.settingsInvalid.kind.exitCode).toBe(78)
  })

  it.each([
    [
      problems.methodNotAllowed({ method: 'PATCH', allowed: ['GET', 'HEAD', 'POST'] }),
      'method PATCH is not allowed, but [GET,HEAD,POST] are',
    ],
    [
      problems.unprocessable({ failures: ['from in query is required'] }),
      'validation failure list:\nfrom in query is required',
    ],
    [
      problems.projectNameInvalid({ project: '' }),
      'Project name  is illegal in length. (greater than 255 or less than 1)',
    ],
    [problems.projectNameInvalid({ project: 'A' }), 'project name is not in lower case or contains illegal characters'],
    [problems.notFound({ resource: 'user', id: 7 }), 'user 7 not found'],
    [problems.pathNotFound({ path: '/api/v2.0/nope' }), 'path /api/v2.0/nope was not found'],
    [problems.manifestUnknown({ repository: 'p/app', reference: 'v1' }), 'artifact p/app:v1 not found'],
    [problems.manifestUnknown({ repository: 'p/app', reference: 'sha256:00' }), 'artifact p/app@sha256:00 not found'],
    [
      problems.tagImmutable({ repository: 'p/app/x', tag: 'v1' }),
      "Failed to process request due to 'app/x:v1' configured as immutable.",
    ],
    [problems.readOnly(), 'The system is in read only mode. Any modification is prohibited.'],
    [
      problems.quotaExceeded({ addedBytes: 26_319_258, usedBytes: 41_943_040, limitBytes: 52_428_800 }),
      'Quota exceeded when processing the request of adding 25.1 MiB of storage resource, which when updated to current usage of 40.0 MiB will exceed the configured upper limit of 50.0 MiB.',
    ],
  ])('says what Harbor says (%#)', (problem, text) => expect(problem.message).toBe(text))

  it('adds Retry-After, in whole seconds and never 0', () => {
    expect(problems.tooManyRequests({ retryAfterSeconds: 1.2 }).headers).toEqual({ 'Retry-After': '2' })
    expect(problems.tooManyRequests({ retryAfterSeconds: 0 }).headers).toEqual({ 'Retry-After': '1' })
    expect(problems.serviceUnavailable().headers).toEqual({})
  })
})

describe('envelopes', () => {
  it('render one problem per surface with its own code', () => {
    const problem = problems.forbidden({ message: 'no' })
    expect(ociEnvelope(problem)).toEqual({ errors: [{ code: 'DENIED', message: 'no' }] })
    expect(harborEnvelope(problem)).toEqual({ errors: [{ code: 'FORBIDDEN', message: 'no' }] })
  })

  it('list every missing blob of a manifest with its digest', () => {
    const problem = problems.manifestBlobUnknown({ digests: ['sha256:a', 'sha256:b'] })
    expect(ociEnvelope(problem)).toEqual({
      errors: ['sha256:a', 'sha256:b'].map((digest) => ({
        code: 'MANIFEST_BLOB_UNKNOWN',
        message: `blob unknown to registry: ${digest}`,
        detail: { digest },
      })),
    })
    expect(problem.facts).toEqual({ digests: ['sha256:a', 'sha256:b'] })
  })

  it('show nothing of an unexpected error but the request id', () => {
    const problem = toProblem(new Error('password is hunter2'), 'request-1')
    expect(harborEnvelope(problem)).toEqual({ errors: [{ code: 'UNKNOWN', message: 'internal server error' }] })
    expect(JSON.stringify(ociEnvelope(problem))).not.toContain('hunter2')
    expect(ociEnvelope(problem).errors[0]?.detail).toEqual({ requestId: 'request-1' })
    expect((problem.cause as Error).message).toBe('password is hunter2')
  })

  it('leave a Problem as it is', () => {
    const problem = problems.conflict({ resource: 'label', name: 'x' })
    expect(toProblem(problem)).toBe(problem)
    expect(toProblem('a thrown string')).toBeInstanceOf(Problem)
  })
})

it.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [1536, '1.5 KiB'],
  [1024 ** 4, '1.0 TiB'],
  [1024 ** 5, '1.0 PiB'],
])('formatBytes(%d) is %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text))
