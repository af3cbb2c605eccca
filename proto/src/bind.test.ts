import { describe, expect, it } from '@jest/globals'
import { bindRequest, checkResponse, operations, type Operation, type RawRequest } from './index.ts'

const json = { 'content-type': 'application/json' }
const request = (raw: Partial<RawRequest>): RawRequest => ({ path: {}, query: {}, headers: {}, ...raw })
const bind = (operation: Operation, raw: Partial<RawRequest>) => bindRequest(operation, request(raw))
const send = (operation: Operation, body: unknown, raw: Partial<RawRequest> = {}) =>
  bind(operation, { headers: json, body: typeof body === 'string' ? body : JSON.stringify(body), ...raw })
const message = (bound: ReturnType<typeof bind>) => (bound.ok ? 'accepted' : bound.message)
const list = (...lines: string[]) => ['validation failure list:', ...lines].join('\n')

const {
  listProjects,
  createProject,
  createTag,
  getUser,
  getAddition,
  headProject,
  ListWebhookJobs,
  getToken,
  listArtifacts,
} = operations

describe('parameters', () => {
  it('fill in what is absent or empty', () => {
    const expected = { page: 1, page_size: 10, with_detail: true }
    expect(bind(listProjects, {})).toMatchObject({ ok: true, query: expected })
    expect(bind(listProjects, { query: { page: '', page_size: '', with_detail: '', name: '' } })).toEqual({
      ok: true,
      path: {},
      query: expected,
      headers: {},
      body: undefined,
    })
  })

  it.each([
    ['true', true],
    ['TRUE', true],
    ['1', true],
    ['yes', true],
    ['on', true],
    ['t', true],
    ['false', false],
    ['0', false],
    ['no', false],
    ['maybe', false],
    ['2', false],
    ['truee', false],
  ])('take the boolean %s as %s', (given, expected) => {
    expect(bind(listProjects, { query: { public: given } })).toMatchObject({ ok: true, query: { public: expected } })
    expect(
      bind(operations.getProject, { path: { project_name_or_id: '12' }, headers: { 'x-is-resource-name': given } }),
    ).toMatchObject({
      ok: true,
      headers: { 'X-Is-Resource-Name': expected },
    })
  })

  it.each([
    ['0', 0],
    ['-1', -1],
    ['+7', 7],
    ['007', 7],
    ['100', 100],
  ])('take the number %s', (given, expected) => {
    expect(bind(listProjects, { query: { page_size: given } })).toMatchObject({
      ok: true,
      query: { page_size: expected },
    })
  })

  it.each([
    ['page_size', '101', 'page_size in query should be less than or equal to 100'],
    ['page_size', 'abc', 'page_size in query must be of type int64: "abc"'],
    ['page_size', '1.5', 'page_size in query must be of type int64: "1.5"'],
    ['page_size', '0x10', 'page_size in query must be of type int64: "0x10"'],
    ['page', ' 1', 'page in query must be of type int64: " 1"'],
    ['page', '9223372036854775808', 'page in query must be of type int64: "9223372036854775808"'],
  ])('refuse %s=%s', (name, given, expected) => {
    expect(message(bind(listProjects, { query: { [name]: given } }))).toBe(list(expected))
  })

  it('refuse a path that is not what it should be', () => {
    expect(message(bind(getUser, { path: { user_id: 'abc' } }))).toBe(
      list('user_id in path must be of type int64: "abc"'),
    )
    const at = { project_name: 'a', repository_name: 'b', reference: 'c' }
    expect(message(bind(getAddition, { path: { ...at, addition: 'foo' } }))).toBe(
      list('addition in path should be one of [build_history values.yaml readme.md dependencies sbom license files]'),
    )
    expect(bind(getAddition, { path: { ...at, addition: 'sbom' } })).toMatchObject({
      ok: true,
      path: { ...at, addition: 'sbom' },
    })
  })

  it('want what is required, and something in it', () => {
    expect(message(bind(headProject, {}))).toBe(list('project_name in query is required'))
    expect(message(bind(headProject, { query: { project_name: '' } }))).toBe(list('project_name in query is required'))
    expect(message(send(operations.exportScanData, {}))).toBe(list('X-Scan-Data-Type in header is required'))
  })

  it('say everything that is wrong at once', () => {
    expect(message(bind(listProjects, { query: { page: 'x', page_size: '1000' } }))).toBe(
      list('page in query must be of type int64: "x"', 'page_size in query should be less than or equal to 100'),
    )
  })

  it('count the last of a repeated one, unless it is a list', () => {
    expect(bind(listProjects, { query: { page: ['1', '2'] } })).toMatchObject({ ok: true, query: { page: 2 } })
    const scope = ['repository:a/b:pull', 'repository:c/d:push']
    expect(bind(getToken, { query: { service: 's', scope } })).toMatchObject({ ok: true, query: { scope } })
    expect(bind(getToken, { query: { service: 's', scope: scope[0] } })).toMatchObject({
      ok: true,
      query: { scope: [scope[0]] },
    })
    const jobs = { path: { project_name_or_id: '1' }, query: { policy_id: '3', status: 'Success, Error' } }
    expect(bind(ListWebhookJobs, jobs)).toMatchObject({
      ok: true,
      query: { policy_id: 3, status: ['Success', 'Error'] },
    })
  })

  it('drop what the contract does not know', () => {
    const query = JSON.parse('{"__proto__":"x","constructor":"y","zzz":"1"}') as { [name: string]: string }
    expect(bind(listProjects, { query })).toEqual({
      ok: true,
      path: {},
      query: { page: 1, page_size: 10, with_detail: true },
      headers: {},
      body: undefined,
    })
  })

  it('prefer the newest report type unless the client says', () => {
    const at = { path: { project_name: 'a', repository_name: 'b' } }
    const bound = bind(listArtifacts, at)
    expect(bound).toMatchObject({
      ok: true,
      headers: { 'X-Accept-Vulnerabilities': expect.stringContaining('harbor+json; version=1.0') },
    })
  })
})

describe('bodies', () => {
  const body = (bound: ReturnType<typeof bind>) => (bound.ok ? bound.body : bound.message)

  it('keep what the contract knows, under its spelling', () => {
    expect(
      body(
        send(createProject, {
          PROJECT_NAME: 'a',
          Metadata: { PUBLIC: 'true', zzz: 'q' },
          owner_id: 1,
          storage_limit: null,
        }),
      ),
    ).toEqual({
      project_name: 'a',
      metadata: { public: 'true' },
      storage_limit: null,
    })
  })

  it('let the last of two spellings win', () => {
    expect(body(send(createProject, '{"project_name":"a","Project_Name":"b"}'))).toEqual({ project_name: 'b' })
  })

  it('treat a null that a field cannot hold as an absent field', () => {
    expect(body(send(createProject, { project_name: null, metadata: null, cve_allowlist: { items: null } }))).toEqual({
      cve_allowlist: { items: null },
    })
  })

  it('let a map keep its keys', () => {
    expect(
      body(send(operations.addProjectMetadatas, { Auto_Scan: 'true' }, { path: { project_name_or_id: 'a' } })),
    ).toEqual({ Auto_Scan: 'true' })
    const schedule = { schedule: { type: 'Manual', cron: '' }, parameters: { workers: 2, nested: { Any: [1] } } }
    expect(body(send(operations.createGCSchedule, schedule))).toEqual(schedule)
  })

  it('do not let a key reach a prototype', () => {
    const bound = send(
      operations.createGCSchedule,
      '{"parameters":{"__proto__":{"polluted":true}},"__proto__":{"schedule":{}}}',
    )
    expect(bound.ok && Object.getPrototypeOf(bound.body)).toBe(Object.prototype)
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  })

  it('forgive an empty string where values are restricted', () => {
    const at = { path: { project_name: 'a', repository_name: 'b', reference: 'c' } }
    expect(body(send(operations.scanArtifact, { scan_type: '' }, at))).toEqual({})
    expect(message(send(operations.scanArtifact, { scan_type: 'foo' }, at))).toBe(
      list('validation failure list:', 'scan_type in body should be one of [vulnerability sbom]'),
    )
  })

  it('ignore what follows the value, and take null for an empty object', () => {
    expect(body(send(createProject, '{"project_name":"a}\\"]"} trailing {'))).toEqual({ project_name: 'a}"]' })
    expect(body(send(createProject, 'null'))).toEqual({})
    expect(body(send(createProject, '\ufeffnull'))).toContain('parsing project body')
  })

  it('A77 refuses NUL in a text or a key, and takes what only looks like it', () => {
    for (const text of [String.raw`{"project_name":"a\u0000"}`, String.raw`{"project_name":"a","\u0000":1}`]) {
      expect(send(createProject, text)).toMatchObject({ ok: false })
    }
    expect(body(send(createProject, String.raw`{"project_name":"a\\u0000"}`))).toEqual({ project_name: 'a\\u0000' })
  })

  it('A77 read half of a surrogate pair as U+FFFD, in a text or a key, and leave whole ones and what only looks like one', () => {
    for (const [given, read] of [
      [String.raw`\ud83d\ude00\uD83D`, '\u{1f600}\ufffd'],
      [String.raw`\udc00a\ud800`, '\ufffda\ufffd'],
      [String.raw`\ud800\ud83d\ude00`, '\ufffd\u{1f600}'],
      [String.raw`\\ud800`, String.raw`\ud800`],
      [String.raw`\ud7ff\ue000`, '\ud7ff\ue000'],
    ]) {
      expect(body(send(createProject, `{"project_name":"${given}"}`))).toEqual({ project_name: read })
    }
    expect(send(createProject, String.raw`{"project_name":"\ud8"}"}`)).toMatchObject({ ok: false })
    const key = String.raw`{"project_name":"a","metadata":{"\ud800":"b"}}`
    expect(JSON.stringify(body(send(createProject, key)))).not.toContain(String.raw`\ud800`)
  })

  it('may be bytes', () => {
    expect(
      body(bind(createProject, { headers: json, body: new TextEncoder().encode('{"project_name":"é"}') })),
    ).toEqual({ project_name: 'é' })
  })

  it('are optional where the contract says so', () => {
    expect(bind(operations.updateProjectMember, { path: { project_name_or_id: 'a', mid: '1' } })).toMatchObject({
      ok: true,
      body: undefined,
    })
  })

  it.each([
    ['no body', undefined, 'project in body is required'],
    ['an empty one', '', 'project in body is required'],
    ['broken JSON', '{bad', 'parsing project body from "" failed, because it is not valid JSON at position 1'],
    ['a list', '[]', 'parsing project body from "" failed, because it is not of type object'],
    ['a string', '"a"', 'parsing project body from "" failed, because it is not of type object'],
    [
      'a number for a string',
      '{"project_name":5}',
      'parsing project body from "" failed, because project_name is not of type string',
    ],
    [
      'a string for a number',
      '{"storage_limit":"5"}',
      'parsing project body from "" failed, because storage_limit is not of type integer or null',
    ],
    [
      'an object in a map of strings',
      '{"metadata":{"public":{}}}',
      'parsing project body from "" failed, because metadata.public is not of type string',
    ],
    [
      'too long a name',
      JSON.stringify({ project_name: 'a'.repeat(256) }),
      'validation failure list:\nproject_name in body should be at most 255 chars long',
    ],
  ])('are refused: %s', (_, text, expected) => {
    expect(message(bind(createProject, { headers: json, body: text }))).toBe(list(expected))
  })

  it.each([['{}'], ['{"name":""}'], ['{"name":null}']])('want a required text that is not empty: %s', (text) => {
    const at = { path: { project_name: 'a', repository_name: 'b', reference: 'c' } }
    expect(message(send(createTag, text, at))).toBe(list('validation failure list:', 'name in body is required'))
  })

  it('do not quote a body that cannot be read', () => {
    expect(message(send(operations.createUser, '{"password":"Secret1word",'))).not.toContain('Secret')
  })

  it('are refused when nested without end', () => {
    const deep = (levels: number) => `{"parameters":${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}}`
    expect(send(operations.createGCSchedule, deep(30)).ok).toBe(true)
    for (const levels of [64, 100_000])
      expect(message(send(operations.createGCSchedule, deep(levels)))).toBe(
        list('parsing schedule body from "" failed, because it is nested too deep'),
      )
  })
})

describe('types', () => {
  it('follow the operation', () => {
    const project = bindRequest(createProject, request({ headers: json, body: '{"project_name":"a","public":true}' }))
    const name: string | undefined = project.ok ? project.body.project_name : undefined
    const size = bindRequest(listProjects, request({}))
    const pageSize: number | undefined = size.ok ? size.query.page_size : undefined
    const user = bindRequest(getUser, request({ path: { user_id: '7' } }))
    const id: number | undefined = user.ok ? user.path.user_id : undefined
    const member = bindRequest(operations.updateProjectMember, request({ path: { project_name_or_id: 'a', mid: '1' } }))
    const role: number | undefined = member.ok ? member.body?.role_id : undefined
    expect([name, pageSize, id]).toEqual(['a', 10, 7])
    expect(role).toBeUndefined()
  })
})

describe('media types', () => {
  it.each([
    [{ 'content-type': 'text/plain' }, 'unsupported media type "text/plain", only [application/json] are allowed'],
    [{}, 'unsupported media type "application/octet-stream", only [application/json] are allowed'],
  ])('of a body must be JSON: %j', (headers, expected) => {
    expect(message(bind(createProject, { headers: headers, body: '{}' }))).toBe(list(expected))
  })

  it('may carry parameters and capitals', () => {
    expect(
      bind(createProject, {
        headers: { 'content-type': 'Application/JSON; charset=utf-8' },
        body: '{"project_name":"a"}',
      }).ok,
    ).toBe(true)
  })

  it.each([['application/json'], ['*/*'], ['application/*'], ['text/html, application/json;q=0.9'], ['']])(
    'that a client accepts may be %s',
    (accept) => {
      expect(bind(listProjects, { headers: { accept } }).ok).toBe(true)
    },
  )

  it.each([['text/xml'], ['application/json;q=0'], ['image/*']])(
    'that a client accepts may not be only %s',
    (accept) => {
      expect(message(bind(listProjects, { headers: { accept } }))).toBe(
        list('unsupported media type requested, only [application/json] are available'),
      )
    },
  )

  it.each([
    ['text/plain', true],
    ['application/json', true],
    ['text/html', false],
  ])('of a log is text; asked for %s', (accept, ok) => {
    expect(bind(operations.getGCLog, { path: { gc_id: '1' }, headers: { accept } }).ok).toBe(ok)
  })
})

describe('checkResponse', () => {
  const statistic = {
    private_project_count: 0,
    private_repo_count: 0,
    public_project_count: 1,
    public_repo_count: 0,
    total_project_count: 1,
    total_repo_count: 0,
    total_storage_consumption: 0,
  }
  const errors = { errors: [{ code: 'NOT_FOUND', message: 'no' }] }

  it.each<[string, Operation, number, unknown, string | undefined, string[]]>([
    ['an answer that fits', operations.getStatistic, 200, statistic, 'application/json', []],
    ['an error nobody declared', operations.getPing, 501, errors, 'application/json; charset=utf-8', []],
    [
      'a success nobody declared',
      operations.getPing,
      204,
      undefined,
      undefined,
      ['getPing 204 is not in the contract'],
    ],
    ['no schedule', operations.getGCSchedule, 200, undefined, undefined, []],
    ['no statistics', operations.getStatistic, 200, undefined, undefined, ['getStatistic 200 has no body']],
    ['a body too many', createProject, 201, {}, undefined, ['createProject 201 has a body and should have none']],
    [
      'a field too few',
      operations.getStatistic,
      200,
      { ...statistic, total_repo_count: undefined },
      undefined,
      ["getStatistic 200 / must have required property 'total_repo_count'"],
    ],
    [
      'a field too many',
      operations.getUser,
      200,
      { sysadmin_flag: false, admin_role_in_auth: false, password: 'x' },
      undefined,
      ['getUser 200 /password is not in the contract'],
    ],
    [
      'another type',
      operations.getStatistic,
      200,
      statistic,
      'text/html',
      ['getStatistic 200 is text/html, not application/json'],
    ],
    [
      'a broken error',
      operations.getProject,
      404,
      { errors: [{ code: 5 }] },
      undefined,
      ['getProject 404 /errors/0/code must be string'],
    ],
  ])('judges %s', (_, operation, status, body, contentType, expected) => {
    expect(checkResponse(operation, status, body, contentType)).toEqual(expected)
  })
})
