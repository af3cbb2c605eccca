import { createServer, type AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { auditWriter, OutboxDispatcher } from '@haven/events'
import { startExecution } from '@haven/queue'
import { startCore, type Credentials, type TestCore } from './harness.ts'

let core: TestCore
beforeAll(async () => {
  core = await startCore({ OUTBOUND_ALLOW: '127.0.0.0/8' })
})
afterAll(async () => core[Symbol.asyncDispose]())

/** Takes over what has happened into the audit log, as the job service does. */
async function settle() {
  const policy = async () => ({ disabled: new Set<string>(), forward: false, skipDatabase: false })
  const onFailure = (error: Error) => {
    throw error
  }
  await new OutboxDispatcher({ db: core.db, handlers: [auditWriter(policy)], onFailure }).drain()
}

type Line = {
  id: number
  username: string
  resource: string
  resource_type: string
  operation: string
  operation_description: string
  operation_result: boolean
}
async function read(path: string, as?: Credentials) {
  const reply = as === undefined ? await core.admin('GET', path) : await core.send('GET', `/api/v2.0${path}`, { as })
  expect([path, reply.status]).toEqual([path, 200])
  const lines = reply.body as Line[]
  return { lines, total: Number(reply.headers.get('x-total-count')), link: reply.headers.get('link') }
}
const told = ({ lines }: { lines: Line[] }) =>
  lines.map((line) => `${line.username} ${line.operation} ${line.resource_type} ${line.resource}`)

describe('the audit log', () => {
  it('tells who did what, newest first, to the administrator', async () => {
    const ann = await core.user('ann')
    await core.project('shop', ann)
    await core.send('POST', '/api/v2.0/projects/shop/members', {
      as: ann,
      body: { role_id: 2, member_user: { username: 'admin' } },
    })
    await settle()
    const seen = await read('/auditlog-exts?page_size=100')
    expect(told(seen).slice(0, 3)).toEqual([
      'ann create member user:admin',
      'ann create project shop',
      'admin create user ann',
    ])
    expect(seen.total).toBe(seen.lines.length)
    expect(seen.lines[1]).toEqual({
      id: expect.any(Number) as unknown,
      username: 'ann',
      resource: 'shop',
      resource_type: 'project',
      operation: 'create',
      operation_description: 'create project shop',
      operation_result: true,
      op_time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as unknown,
    })
  })

  it('A04: tells of changes that were refused, without a word of what was sent', async () => {
    const eve = await core.user('eve')
    await core.project('walled')
    const secret = 'Hunter22Hunter22'
    const tries: [string, string, object, number][] = [
      ['PUT', `/users/${eve.id}/sysadmin`, { sysadmin_flag: true }, 403],
      ['POST', '/users', { username: 'x', email: 'x@example.com', realname: secret, password: secret }, 403],
      ['PUT', `/users/${eve.id}/password`, { old_password: secret, new_password: secret }, 403],
      ['PUT', '/configurations', { oidc_client_secret: secret }, 403],
      ['POST', '/projects/walled/members', { role_id: 1, member_user: { username: 'eve' } }, 403],
      ['DELETE', '/projects/walled', {}, 403],
    ]
    for (const [method, path, body, status] of tries) {
      const reply = await core.send(method, `/api/v2.0${path}`, { as: eve, body })
      expect([path, reply.status]).toEqual([path, status])
    }
    expect((await core.send('DELETE', '/api/v2.0/projects/walled')).status).toBe(401)
    expect((await core.send('GET', '/api/v2.0/users', { as: eve })).status).toBe(403)
    await settle()
    const { lines } = await read('/auditlog-exts?q=operation_result%3Dfalse&sort=id')
    expect(lines.map((line) => `${line.username}: ${line.operation_description}`)).toEqual([
      `eve: update user ${eve.id}: refused with 403`,
      'eve: create user: refused with 403',
      `eve: update user ${eve.id}: refused with 403`,
      'eve: update configuration: refused with 403',
      'eve: create member walled: refused with 403',
      'eve: delete project walled: refused with 403',
    ])
    expect(JSON.stringify(lines)).not.toContain(secret)
    expect((await read('/projects/walled/auditlog-exts?q=operation_result%3Dfalse')).total).toBe(2)
  })

  it('is asked with q, sort and page', async () => {
    for (let n = 0; n < 5; n++) await core.project(`asked-${n}`)
    await settle()
    const q = (text: string) => `/auditlog-exts?q=${encodeURIComponent(text)}`
    expect(told(await read(`${q('resource=~asked-')}&page_size=2&page=2`))).toEqual([
      'admin create project asked-2',
      'admin create project asked-1',
    ])
    const first = await read(`${q('operation=create,resource_type=project,resource=~asked-')}&page_size=2`)
    expect([first.total, first.link]).toEqual([5, expect.stringContaining('rel="next"')])
    expect(told(await read(`${q('resource=~asked-')}&sort=op_time&page_size=1`))).toEqual([
      'admin create project asked-0',
    ])
    const kinds = await read(q('operation=create,resource_type=project'))
    expect(kinds.total).toBeGreaterThanOrEqual(6)
    expect((await read(q('username=nobody'))).total).toBe(0)
    expect((await read(q('op_time=[2020-01-01 00:00:00~2020-12-31 00:00:00]'))).total).toBe(0)
    expect((await read(q('op_time=[2020-01-01 00:00:00~]'))).total).toBeGreaterThan(6)
    for (const wrong of ['op_time=[soon~]', 'abc', 'operation=']) {
      expect((await core.admin('GET', q(wrong))).status).toBe(400)
    }
    expect((await core.admin('GET', '/auditlog-exts?page_size=101')).status).toBe(422)
    expect((await read('/auditlog-exts?page=999999')).lines).toEqual([])
  })

  it('A31: shows and counts for everybody else what happened in projects whose log he may list', async () => {
    const [boss, guest, stranger] = [await core.user('boss'), await core.user('guest'), await core.user('stranger')]
    await core.project('hers', boss)
    await core.project('open', boss, { metadata: { public: 'true' } })
    await core.project('other')
    const member = { role_id: 3, member_user: { username: 'guest' } }
    for (const name of ['hers', 'other']) await core.admin('POST', `/projects/${name}/members`, member)
    await settle()
    const seen = await read('/auditlog-exts', boss)
    expect(told(seen)).toEqual([
      'admin create member user:guest',
      'boss create project open',
      'boss create project hers',
    ])
    expect(seen.total).toBe(3)
    const asked = await read(`/auditlog-exts?q=${encodeURIComponent('username=~a')}`, boss)
    expect([told(asked), asked.total]).toEqual([['admin create member user:guest'], 1])
    for (const who of [guest, stranger])
      expect(await read('/auditlog-exts', who)).toMatchObject({ lines: [], total: 0 })

    expect(told(await read('/projects/hers/auditlog-exts', boss))).toEqual([
      'admin create member user:guest',
      'boss create project hers',
    ])
    expect((await read('/projects/hers/auditlog-exts?q=operation%3Dcreate%2Cresource_type%3Dproject')).total).toBe(1)
    for (const who of [guest, stranger]) {
      const reply = await core.send('GET', '/api/v2.0/projects/hers/auditlog-exts', { as: who })
      expect(reply.status).toBe(403)
    }
    const filteredFor = await read(`/auditlog-exts?q=${encodeURIComponent('resource=other')}`, boss)
    expect(filteredFor).toMatchObject({ lines: [], total: 0 })
  })

  it('A31: shows a robot of all projects what happened in projects, and one of a project what happened there', async () => {
    await core.project('robotic')
    const robot = async (level: string, namespace: string) => {
      const permissions = [{ kind: 'project', namespace, access: [{ resource: 'log', action: 'list' }] }]
      const made = await core.admin('POST', '/robots', { name: `reader-${level}`, level, duration: 30, permissions })
      expect(made.status).toBe(201)
      const { name, secret } = made.body as { name: string; secret: string }
      return { name, password: secret }
    }
    const [everywhere, there] = [await robot('system', '*'), await robot('project', 'robotic')]
    await settle()
    const inProjects = await core.db.prisma.auditEntry.count({ where: { projectId: { not: null } } })
    const ofNone = await core.db.prisma.auditEntry.count({ where: { projectId: null } })
    expect([inProjects > 1, ofNone > 0]).toEqual([true, true])
    expect((await read('/auditlog-exts', everywhere)).total).toBe(inProjects)
    const own = await read('/auditlog-exts?page_size=100', there)
    expect(told(own)).toContain('admin create project robotic')
    expect(own.total).toBe((await read('/projects/robotic/auditlog-exts', there)).total)
    expect((await core.send('GET', '/api/v2.0/projects/library/auditlog-exts', { as: there })).status).toBe(403)
  })

  it('is closed to who did not sign in, in Harbor’s words', async () => {
    for (const [path, message] of [
      ['/auditlog-exts', ''],
      ['/audit-logs', ''],
      ['/auditlog-exts/events', 'unauthorized'],
      ['/projects/library/auditlog-exts', 'unauthorized'],
      ['/projects/library/logs', 'unauthorized'],
    ] as const) {
      const reply = await core.send('GET', `/api/v2.0${path}`)
      expect([reply.status, reply.body]).toEqual([401, { errors: [{ code: 'UNAUTHORIZED', message }] }])
    }
    const ordinary = await core.user('ordinary')
    expect((await core.send('GET', '/api/v2.0/auditlog-exts/events', { as: ordinary })).status).toBe(403)
  })

  it('names the kinds of event that Harbor offers', async () => {
    const kinds = (await core.admin('GET', '/auditlog-exts/events')).body as { event_type: string }[]
    expect(kinds).toHaveLength(18)
    expect(kinds).toContainEqual({ event_type: 'pull_artifact' })
  })

  it('is forwarded only to a receiver that answered when it was set', async () => {
    const receiver = createServer((socket) => socket.destroy())
    await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve))
    const endpoint = `127.0.0.1:${(receiver.address() as AddressInfo).port}`
    const set = async (change: object) => (await core.admin('PUT', '/configurations', change)).status
    const now = async () =>
      ((await core.admin('GET', '/configurations')).body as { audit_log_forward_endpoint: { value: string } })
        .audit_log_forward_endpoint.value
    expect(await set({ audit_log_forward_endpoint: 'http://logs.example.com' })).toBe(400)
    expect(await set({ audit_log_forward_endpoint: endpoint, skip_audit_log_database: true })).toBe(200)
    await new Promise((resolve) => receiver.close(resolve))
    expect(await set({ audit_log_forward_endpoint: endpoint, session_timeout: 61 })).toBe(200) // it is the one that is set
    expect(await set({ audit_log_forward_endpoint: '' })).toBe(400) // the database is skipped
    expect(await set({ audit_log_forward_endpoint: '', skip_audit_log_database: false })).toBe(200)
    expect(await set({ audit_log_forward_endpoint: endpoint })).toBe(400)
    expect(await now()).toBe('')
  })

  it('has nothing in the log of old times', async () => {
    for (const path of ['/audit-logs', '/projects/library/logs']) {
      expect(await read(path)).toMatchObject({ lines: [], total: 0 })
      expect((await core.admin('GET', `${path}?q=abc`)).status).toBe(400)
    }
  })
})

describe('the purge of the audit log', () => {
  const parameters = { audit_retention_hour: 720, include_event_types: 'create_artifact,other', dry_run: true }
  const manual = { schedule: { type: 'Manual' } }

  it('starts a run with what was asked for, shows it, and stops it', async () => {
    const made = await core.admin('POST', '/system/purgeaudit/schedule', { ...manual, parameters })
    expect(made.status).toBe(201)
    const location = made.headers.get('location') ?? ''
    expect(location).toMatch(/^\/api\/v2\.0\/system\/purgeaudit\/\d+$/)
    const id = Number(location.split('/').at(-1))
    const run = (await core.admin('GET', `/system/purgeaudit/${id}`)).body as { job_parameters: string }
    expect(run).toMatchObject({
      id,
      job_name: 'PURGE_AUDIT_LOG',
      job_kind: 'MANUAL',
      job_status: 'Pending',
      schedule: { type: 'Manual' },
    })
    expect(JSON.parse(run.job_parameters)).toEqual(parameters)
    expect((await core.db.prisma.task.findFirst({ orderBy: { id: 'desc' } }))?.parameters).toEqual({
      retentionHours: 720,
      eventTypes: ['create_artifact', 'other'],
      dryRun: true,
    })
    expect((await core.admin('GET', `/system/purgeaudit/${id}/log`)).status).toBe(200)
    expect((await core.admin('PUT', `/system/purgeaudit/${id}`)).status).toBe(200)
    expect((await core.admin('GET', `/system/purgeaudit/${id}`)).body).toMatchObject({ job_status: 'Stopped' })

    const foreign = await core.db.transaction((tx) =>
      startExecution(tx, { vendorType: 'REPLICATION', trigger: 'MANUAL', tasks: [] }),
    )
    for (const unknown of [99999, foreign.id]) {
      for (const path of ['', '/log']) {
        expect((await core.admin('GET', `/system/purgeaudit/${unknown}${path}`)).status).toBe(404)
      }
      expect((await core.admin('PUT', `/system/purgeaudit/${unknown}`)).status).toBe(404)
    }
    const history = await core.admin('GET', '/system/purgeaudit')
    expect((history.body as { id: number }[]).map((one) => one.id)).toEqual([id])
    const stopped = await core.admin('GET', '/system/purgeaudit?q=job_status%3DStopped')
    expect(stopped.headers.get('x-total-count')).toBe('1')
  })

  it.each<[string, object, string]>([
    ['nothing', {}, 'schedule.type'],
    ['no parameters', manual, 'audit_retention_hour'],
    ['no parameters to take the schedule away', { schedule: { type: 'None' } }, 'audit_retention_hour'],
    ['no types', { ...manual, parameters: { audit_retention_hour: 1 } }, 'include_event_types'],
    ['too long', { ...manual, parameters: { ...parameters, audit_retention_hour: 240_001 } }, 'audit_retention_hour'],
    ['half an hour', { ...manual, parameters: { ...parameters, audit_retention_hour: 0.5 } }, 'audit_retention_hour'],
    ['a flag that is none', { ...manual, parameters: { ...parameters, dry_run: 'yes' } }, 'dry_run'],
    ['a type that is only shown', { schedule: { type: 'Schedule' }, parameters }, 'schedule.type'],
    ['five fields', { schedule: { type: 'Custom', cron: '0 0 * * *' }, parameters }, '6 fields'],
  ])('refuses %s with the name of the field', async (_what, body, message) => {
    for (const method of ['POST', 'PUT']) {
      const reply = await core.admin(method, '/system/purgeaudit/schedule', body)
      expect([reply.status, reply.text]).toEqual([400, expect.stringContaining(message)])
    }
  })

  it('has one schedule, which is set, replaced, shown and taken away', async () => {
    const get = () => core.admin('GET', '/system/purgeaudit/schedule')
    const set = (schedule: object, method = 'PUT') =>
      core.admin(method, '/system/purgeaudit/schedule', { schedule, parameters })
    expect((await get()).text).toBe('')
    const made = await set({ type: 'Hourly', cron: '0 0 * * * *' }, 'POST')
    expect([made.status, made.headers.get('location')]).toEqual([201, '/api/v2.0/system/purgeaudit/schedule'])
    expect((await set({ type: 'Weekly' })).status).toBe(200)
    expect((await get()).body).toMatchObject({
      job_name: 'PURGE_AUDIT_LOG',
      job_parameters: JSON.stringify(parameters),
      schedule: { type: 'Weekly', cron: '0 0 0 * * 0' },
    })
    expect((await set({ type: 'None' })).status).toBe(200)
    expect((await get()).text).toBe('')
  })
})
