import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { ADMIN_PASSWORD, startHaven, type HavenInstallation } from '@haven/testkit'

// What Harbor's Terraform provider and its command line (harbor-cli) send and demand: neither is built here, so their requests are played.
// The provider takes any other status than these for an error, and ids from Location by cutting `/api` and `/v2.0` out of the string.

type Reply = { status: number; headers: Headers; text: string; body: any }

let haven: HavenInstallation

beforeAll(async () => {
  haven = await startHaven({ env: { OUTBOUND_ALLOW: '127.0.0.1' } })
}, 180_000)
afterAll(async () => {
  await haven?.[Symbol.asyncDispose]()
}, 60_000)

const basic = (name: string, password: string) => ({
  Authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`,
})
const admin = basic('admin', ADMIN_PASSWORD)

async function send(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = admin,
): Promise<Reply> {
  const response = await fetch(`${haven.url}/api/v2.0${path}`, {
    method,
    headers: { ...headers, ...(body !== undefined && { 'Content-Type': 'application/json' }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const text = await response.text()
  const json = (response.headers.get('content-type') ?? '').includes('json') && text !== ''
  return { status: response.status, headers: response.headers, text, body: json ? JSON.parse(text) : null }
}

async function ask(status: number, method: string, path: string, body?: unknown): Promise<Reply> {
  const reply = await send(method, path, body)
  expect([method, path, reply.status, reply.text]).toEqual([method, path, status, expect.anything()])
  return reply
}

/** The resource's id, as the provider keeps and imports it: the path with numbers in it. */
async function create(path: string, body: unknown): Promise<string> {
  const { headers } = await ask(201, 'POST', path, body)
  const location = headers.get('location') ?? ''
  expect(location).toMatch(/^\/api\/v2\.0(?:\/[a-z]+(?:\/[a-z]+)?\/\d+){1,2}$/)
  return location.replace('/api', '').replace('/v2.0', '')
}

const read = async (id: string) => (await ask(200, 'GET', id)).body
const change = (id: string, body: unknown) => ask(200, 'PUT', id, body)

async function destroy(id: string): Promise<void> {
  await ask(200, 'DELETE', id)
  await ask(404, 'GET', id)
}

/** Page after page of the default size until a bare [] comes. */
async function everyPage(path: string): Promise<any[]> {
  const all: any[] = []
  for (let page = 1; ; page++) {
    const { body } = await ask(200, 'GET', `${path}${path.includes('?') ? '&' : '?'}page=${page}`)
    if (body.length === 0) return all
    all.push(...body)
  }
}

const projectBody = (name: string) => ({
  project_name: name,
  registry_id: null,
  metadata: {
    public: 'false',
    auto_scan: 'false',
    auto_sbom_generation: 'false',
    enable_content_trust: 'false',
    enable_content_trust_cosign: 'false',
    prevent_vul: 'false',
    severity: '',
    reuse_sys_cve_allowlist: 'true',
    proxy_speed_kb: '-1',
    proxy_cache_local_on_not_found: 'false',
  },
  cve_allowlist: { items: [] },
  storage_limit: -1,
})

describe('the Terraform provider', () => {
  it('keeps a project: POST, then PUT, read by its number, and away with its repositories listed first', async () => {
    const id = await create('/projects', projectBody('plan'))
    const number = Number(id.split('/').at(-1))
    await change(id, { ...projectBody('plan'), metadata: { ...projectBody('plan').metadata, public: 'true' } })
    const project = await read(id)
    expect(project).toMatchObject({ name: 'plan', project_id: number, metadata: { public: 'true' } })
    expect(project.registry_id ?? null).toBeNull()
    expect(Object.values(project.metadata).every((value) => typeof value === 'string')).toBe(true)
    expect(project.metadata).not.toHaveProperty('proxy_speed_kb')

    // The quota is found by going through all of them, a hundred a page.
    const quotas = (await ask(200, 'GET', '/quotas?page=1&page_size=100')).body
    const quota = quotas.find((each: any) => each.ref.id === number)
    expect(quota.hard.storage).toBe(-1)
    await change(`/quotas/${quota.id}`, { hard: { storage: 5 * 2 ** 30 } })
    expect((await ask(200, 'GET', `/quotas/?page=1&page_size=100&reference_id=${number}`)).body[0].hard.storage).toBe(
      5 * 2 ** 30,
    )

    expect((await ask(200, 'GET', '/projects/plan/repositories?page=1&page_size=100')).body).toEqual([])
    await destroy(id)
    expect((await ask(200, 'GET', '/projects?name=plan')).body).toEqual([])
  })

  it('keeps members that are users or groups', async () => {
    const project = await create('/projects', projectBody('crew'))
    const user = await create('/users', account('crew-member'))
    const group = await create('/usergroups', { group_name: 'crew-group', group_type: 2, ldap_group_dn: '' })
    const one = await create(`${project}/members`, { role_id: 2, member_user: { username: 'crew-member' } })
    const other = await create(`${project}/members`, {
      role_id: 3,
      member_group: { group_type: 2, group_name: 'crew-group' },
    })
    expect(one.startsWith(`${project}/members/`)).toBe(true)
    await change(one, { role_id: 4 })
    expect(await read(one)).toMatchObject({ role_id: 4, entity_name: 'crew-member', entity_type: 'u' })
    expect(await read(other)).toMatchObject({ role_id: 3, entity_name: 'crew-group', entity_type: 'g' })
    for (const id of [one, other, group, user, project]) await destroy(id)
  })

  it('keeps a user, whose whole body comes with every change', async () => {
    const body = account('tf-user')
    const id = await create('/users', body)
    await change(id, { ...body, realname: 'Another', comment: 'by plan' })
    await change(`${id}/sysadmin`, { ...body, sysadmin_flag: true })
    const same = await send('PUT', `${id}/password`, { ...body, new_password: body.password })
    expect([same.status, same.text]).toEqual([
      400,
      expect.stringContaining('New password is identical to old password'),
    ])
    await change(`${id}/password`, { ...body, new_password: 'Changed-1' })
    expect(await read(id)).toMatchObject({ username: 'tf-user', realname: 'Another', sysadmin_flag: true })
    // q as it stands, nothing escaped.
    const found = (await ask(200, 'GET', '/users?q=email=tf-user@example.com')).body
    expect(found.map((user: any) => `/users/${user.user_id}`)).toEqual([id])
    await destroy(id)
  })

  it('keeps robots of the system and of a project', async () => {
    const project = await create('/projects', projectBody('robots'))
    const number = Number(project.split('/').at(-1))
    const prefix = (await read('/configurations')).robot_name_prefix.value as string
    for (const [level, namespace] of [
      ['system', '*'],
      ['project', 'robots'],
    ] as const) {
      const sent = {
        name: 'tf',
        description: 'by plan',
        level,
        duration: -1,
        disable: false,
        permissions: [
          {
            kind: 'project',
            namespace,
            access: [
              { resource: 'repository', action: 'pull' },
              { resource: 'repository', action: 'push', effect: 'deny' },
            ],
          },
        ],
      }
      const made = await ask(201, 'POST', '/robots', sent)
      const id = made.headers.get('location')!.replace('/api/v2.0', '')
      expect(id).toBe(`/robots/${made.body.id}`)
      expect(made.body.secret).toMatch(/.{8}/)
      await ask(200, 'PATCH', id, { secret: 'Changed-1234' })
      const robot = await read(id)
      const [head, short] = robot.name.slice(prefix.length).split(`${namespace}+`)
      expect(level === 'project' ? ['', 'tf'] : ['tf', undefined]).toEqual([head, short])
      const effects = robot.permissions[0].access.map(({ action, effect }: any) => [action, effect]).sort()
      expect(effects).toEqual([
        ['pull', undefined],
        ['push', 'deny'],
      ])
      await change(id, { ...sent, name: robot.name, description: 'changed', id: made.body.id })
      expect((await read(id)).description).toBe('changed')
      const q = level === 'system' ? 'Level=system' : `Level=project,ProjectID=${number}`
      expect((await everyPage(`/robots?q=${q}`)).map((each) => each.id)).toEqual([made.body.id])
      await destroy(id)
    }
    await destroy(project)
  })

  it('keeps registries, labels and groups', async () => {
    const registry = {
      name: 'tf',
      type: 'harbor',
      url: haven.url,
      insecure: true,
      description: '',
      credential: { type: 'basic', access_key: 'admin', access_secret: ADMIN_PASSWORD },
    }
    const endpoint = await create('/registries', registry)
    await change(endpoint, {
      name: 'tf',
      url: haven.url,
      description: 'changed',
      insecure: true,
      access_key: 'admin',
      access_secret: ADMIN_PASSWORD,
      credential_type: 'basic',
    })
    expect(await read(endpoint)).toMatchObject({ name: 'tf', description: 'changed', type: 'harbor' })
    const project = await create('/projects', projectBody('labels'))
    for (const [scope, project_id] of [
      ['g', 0],
      ['p', Number(project.split('/').at(-1))],
    ]) {
      const body = { name: 'tf', description: '', color: '#00AB9A', scope, project_id }
      const label = await create('/labels', body)
      await change(label, { ...body, description: 'changed' })
      expect(await read(label)).toMatchObject({ description: 'changed', scope, color: '#00AB9A' })
      await destroy(label)
    }
    const group = await create('/usergroups', { group_name: 'tf', group_type: 3 })
    await change(group, { group_name: 'tf2', group_type: 3 })
    expect(await read(group)).toMatchObject({ group_name: 'tf2', group_type: 3 })
    for (const id of [group, project, endpoint]) await destroy(id)
  })

  it('keeps a rule of immutability that is made disabled: POST, then PUT with its id in the body', async () => {
    const project = await create('/projects', projectBody('rules'))
    const rule = {
      disabled: true,
      action: 'immutable',
      template: 'immutable_template',
      scope_selectors: { repository: [{ kind: 'doublestar', decoration: 'repoMatches', pattern: '**' }] },
      tag_selectors: [{ kind: 'doublestar', decoration: 'matches', pattern: 'v*', extras: '{"untagged":false}' }],
    }
    const id = await create(`${project}/immutabletagrules`, rule)
    const number = Number(id.split('/').at(-1))
    await change(id, { ...rule, id: number })
    const listed = async () => (await everyPage(`${project}/immutabletagrules`)).filter((each) => each.id === number)
    expect(await listed()).toMatchObject([{ disabled: true, tag_selectors: [{ pattern: 'v*' }] }])
    await ask(200, 'DELETE', id)
    expect(await listed()).toEqual([])
    await destroy(project)
  })

  it('reads and writes the configuration in types', async () => {
    const before = await read('/configurations')
    for (const item of Object.values<any>(before)) {
      if ('editable' in item) expect(typeof item.editable).toBe('boolean')
    }
    expect(before.session_timeout).toEqual({ value: 60, editable: true })
    await change('/configurations', {
      session_timeout: 30,
      project_creation_restriction: 'adminonly',
      read_only: false,
      robot_token_duration: 30,
      robot_name_prefix: 'robot$',
      storage_per_project: -1,
      banner_message: '{"message":"hi","type":"info","closable":false,"fromDate":"01/01/2026","toDate":"01/02/2026"}',
    })
    // config_auth of an installation of local accounts.
    await change('/configurations', {
      ldap_scope: 0,
      oidc_verify_cert: false,
      oidc_auto_onboard: false,
      self_registration: false,
      scan_all_policy: { parameter: {} },
    })
    const after = await read('/configurations')
    expect([
      after.session_timeout.value,
      after.project_creation_restriction.value,
      typeof after.banner_message.value,
    ]).toEqual([30, 'adminonly', 'string'])
    await change('/configurations', {
      session_timeout: 60,
      project_creation_restriction: 'everyone',
      banner_message: '',
    })
    await change('/system/CVEAllowlist', { expires_at: 1798761600, items: [{ cve_id: 'CVE-2026-1' }] })
    expect(await read('/system/CVEAllowlist')).toMatchObject({
      expires_at: 1798761600,
      items: [{ cve_id: 'CVE-2026-1' }],
    })
    await change('/system/CVEAllowlist', { items: [] })
  })

  it.each([
    ['/system/gc/schedule', { delete_untagged: true, workers: 2 }],
    [
      '/system/purgeaudit/schedule',
      { audit_retention_hour: 24, include_event_types: 'create_artifact,delete_artifact' },
    ],
  ])(
    'keeps the schedule of %s: nothing means POST, something PUT, and None that it is gone',
    async (path, parameters) => {
      expect((await ask(200, 'GET', path)).text).toBe('')
      const daily = { schedule: { type: 'Daily', cron: '0 0 0 * * *' }, parameters }
      await ask(201, 'POST', path, daily)
      const stored = await read(path)
      expect(stored.schedule).toMatchObject({ type: 'Daily', cron: '0 0 0 * * *' })
      expect(JSON.parse(stored.job_parameters)).toMatchObject(parameters)
      // The provider's tags are broken: keys come in any case.
      await change(path, { Schedule: { type: 'Custom', Cron: '0 15 3 * * *' }, parameters })
      expect((await read(path)).schedule).toMatchObject({ type: 'Custom', cron: '0 15 3 * * *' })
      await change(path, { schedule: { type: 'None', cron: '' }, parameters })
      expect((await ask(200, 'GET', path)).text).toBe('')
    },
  )

  it('tells what is gone from what is forbidden, and reads what it wrote', async () => {
    const project = await create('/projects', projectBody('private'))
    await create('/users', account('tf-stranger'))
    const stranger = basic('tf-stranger', account('').password)
    expect((await send('GET', project, undefined, stranger)).status).toBe(403)
    expect((await send('GET', '/projects/99999', undefined)).status).toBe(404)
    for (const path of ['/users', '/quotas', '/robots', '/registries', '/labels?scope=g', '/projects', '/usergroups']) {
      const beyond = await ask(200, 'GET', `${path}${path.includes('?') ? '&' : '?'}page=1000`)
      expect([path, beyond.body]).toEqual([path, []])
    }
    for (let n = 0; n < 12; n++) await create('/labels', { name: `many-${n}`, scope: 'g' })
    expect(await everyPage('/labels?scope=g')).toHaveLength(12)
    await destroy(project)
  })

  it('goes on by session when it has a cookie: a refusal for want of the token carries it', async () => {
    const jar = new Map<string, string>()
    const keep = (headers: Headers) => {
      for (const cookie of headers.getSetCookie()) {
        const [name = '', ...value] = cookie.split(';')[0]!.split('=')
        jar.set(name, value.join('='))
      }
    }
    const cookies = () => ({ Cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; ') })
    const visited = await fetch(`${haven.url}/c/log_out`, { redirect: 'manual' })
    keep(visited.headers)
    const login = await fetch(`${haven.url}/c/login`, {
      method: 'POST',
      headers: { ...cookies(), 'X-Harbor-CSRF-Token': visited.headers.get('x-harbor-csrf-token') ?? '' },
      body: new URLSearchParams({ principal: 'admin', password: ADMIN_PASSWORD }),
    })
    expect(login.status).toBe(200)
    keep(login.headers)
    const label = { name: 'by-session', scope: 'g' }
    const refused = await send('POST', '/labels', label, cookies())
    expect(refused.status).toBe(403)
    keep(refused.headers)
    const token = refused.headers.get('x-harbor-csrf-token') ?? ''
    expect((await send('POST', '/labels', label, { ...cookies(), 'X-Harbor-CSRF-Token': token })).status).toBe(201)
  })
})

describe('harbor-cli', () => {
  it('signs in by the current user, and a robot by what it may read', async () => {
    expect((await ask(200, 'GET', '/users/current')).body.username).toBe('admin')
    expect((await send('GET', '/users/current', undefined, basic('admin', 'Wrong-123'))).status).toBe(401)
    const robot = (
      await ask(201, 'POST', '/robots', {
        name: 'cli',
        level: 'system',
        duration: 30,
        permissions: [{ kind: 'project', namespace: '*', access: [{ resource: 'repository', action: 'pull' }] }],
      })
    ).body
    const own = basic(robot.name, robot.secret)
    expect((await send('GET', '/users/current', undefined, own)).status).toBe(412)
    expect((await send('GET', '/projects?page=1&page_size=1', undefined, own)).status).toBe(200)
    expect((await send('GET', '/ping', undefined, own)).status).toBe(200)
  })

  it('looks projects up by a header, and posts public at the top and in the metadata', async () => {
    await create('/projects', { project_name: '123456', public: true, metadata: { public: 'true' } })
    const named = (path: string, method = 'GET', body?: unknown) =>
      send(method, path, body, { ...admin, 'X-Is-Resource-Name': 'true' })
    expect((await named('/projects/123456')).body).toMatchObject({ name: '123456', metadata: { public: 'true' } })
    expect((await named('/projects/123456/members')).status).toBe(200)
    expect((await named('/projects/123456/summary')).status).toBe(200)
    expect((await named('/projects/123456', 'DELETE')).status).toBe(200)
  })

  it('shows what its lists and its info ask for', async () => {
    for (const path of [
      '/systeminfo',
      '/systeminfo/volumes',
      '/statistics',
      '/users/current',
      '/permissions',
      '/health',
    ]) {
      await ask(200, 'GET', path)
    }
    for (const path of [
      '/labels?page=1&page_size=10&project_id=0&scope=g',
      '/quotas?page=1&page_size=10',
      '/projects/library/members?page=1&page_size=10',
      '/projects/library/repositories?page=1&page_size=10',
      '/robots?page=1&page_size=10&q=Level=project,ProjectID=1',
      '/users?page=1&page_size=100&sort=-creation_time',
      '/registries?page=1&page_size=10',
      '/audit-logs?page=1&page_size=10',
      '/auditlog-exts?page=1&page_size=10',
    ]) {
      const reply = await ask(200, 'GET', path)
      expect([path, reply.headers.get('x-total-count')]).toEqual([path, expect.stringMatching(/^\d+$/)])
      expect(Array.isArray(reply.body)).toBe(true)
    }
  })
})

const account = (name: string) => ({
  username: name,
  email: `${name}@example.com`,
  realname: name,
  comment: '',
  password: 'Passw0rd',
  sysadmin_flag: false,
})
