import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { SERVICE_SECRET, startCore, type TestCore } from './harness.ts'

let core: TestCore
beforeAll(async () => {
  core = await startCore()
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
})

type Items = Record<string, { value: unknown; editable: boolean }>
const configuration = async (at: TestCore = core) => (await at.admin('GET', '/configurations')).body as Items
const change = (body: unknown) => core.admin('PUT', '/configurations', body)

describe('the configuration', () => {
  it('is Harbor’s defaults at first, each with whether it may be changed', async () => {
    const items = await configuration()
    expect(items).toMatchObject({
      auth_mode: { value: 'db_auth', editable: true },
      project_creation_restriction: { value: 'everyone', editable: true },
      robot_name_prefix: { value: 'robot$', editable: true },
      oidc_extra_redirect_parms: { value: '{}', editable: true },
      storage_per_project: { value: -1, editable: true },
      scan_all_policy: {},
    })
    for (const secret of ['ldap_search_password', 'oidc_client_secret', 'uaa_client_secret']) {
      expect(items).not.toHaveProperty(secret)
    }
  })

  it('changes what is named, leaves the rest, and drops what no key is called', async () => {
    expect((await change({ banner_message: '{"message":"hello"}', unheard_of: 1, ldap_timeout: 9 })).status).toBe(200)
    expect(await configuration()).toMatchObject({
      banner_message: { value: '{"message":"hello"}' },
      ldap_timeout: { value: 9 },
      session_timeout: { value: 60 },
    })
    expect((await core.send('GET', '/api/v2.0/systeminfo')).body).toMatchObject({
      banner_message: '{"message":"hello"}',
    })
  })

  it.each([
    [{ token_expiration: 0 }, 400, 'item name token_expiration'],
    [{ robot_name_prefix: ' ' }, 400, 'item name robot_name_prefix'],
    [{ ldap_scope: 3 }, 400, 'item name ldap_scope'],
    [{ skip_audit_log_database: true }, 400, 'audit_log_forward_endpoint'],
    [{ token_expiration: 'soon' }, 422, 'token_expiration'],
    [{ read_only: 'yes' }, 422, 'read_only'],
  ])('refuses %j', async (body, status, message) => {
    const before = await configuration()
    const refused = await change({ ...body, banner_message: 'must not be written' })
    expect([refused.status, refused.text]).toEqual([status, expect.stringContaining(message)])
    expect(await configuration()).toEqual(before)
  })

  it('R12: moves no stored secret to another address', async () => {
    const stored = { ldap_url: 'ldap://one.example.com', ldap_search_password: 'of one' }
    expect((await change(stored)).status).toBe(200)
    const refused = await change({ ldap_url: 'ldap://two.example.com' })
    expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('item name ldap_search_password')])
    expect((await change({ ldap_url: 'ldap://one.example.com', ldap_timeout: 9 })).status).toBe(200)
    expect((await change({ ldap_url: 'ldap://two.example.com', ldap_search_password: '' })).status).toBe(200)
    expect((await change({ ldap_url: 'ldap://three.example.com' })).status).toBe(200)
  })

  it('is for administrators', async () => {
    const mary = await core.user('mary')
    for (const [as, status] of [
      [null, 401],
      [mary, 403],
    ] as const) {
      expect((await core.send('GET', '/api/v2.0/configurations', { as })).status).toBe(status)
      expect((await core.send('PUT', '/api/v2.0/configurations', { as, body: {} })).status).toBe(status)
      expect((await core.send('GET', '/api/v2.0/internalconfig', { as })).status).toBe(401)
    }
    expect((await core.admin('GET', '/internalconfig')).status).toBe(401)
  })

  it('keeps the way of signing in while there are people', async () => {
    await core.user('paul')
    expect((await configuration()).auth_mode).toEqual({ value: 'db_auth', editable: false })
    for (const mode of ['ldap_auth', 'magic']) {
      const refused = await change({ auth_mode: mode })
      expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('auth_mode')])
    }
    expect((await change({ auth_mode: 'db_auth' })).status).toBe(200)
  })

  it('opens secrets for our own services only, and shows them nowhere else', async () => {
    expect((await change({ ldap_search_password: 'hush-hush' })).status).toBe(200)
    const headers = { Authorization: `Harbor-Secret ${SERVICE_SECRET}` }
    const internal = await core.send('GET', '/api/v2.0/internalconfig', { headers })
    expect(internal.body).toMatchObject({ ldap_search_password: { value: 'hush-hush', editable: true } })
    expect((await core.admin('GET', '/configurations')).text).not.toContain('hush')
    const rows = await core.db.prisma.setting.findMany()
    const events = await core.db.prisma.outboxEvent.findMany()
    expect(JSON.stringify([rows, events.map((event) => event.payload)])).not.toContain('hush')
  })

  it('counts at once: who may make projects, and for how much', async () => {
    await change({ project_creation_restriction: 'adminonly', storage_per_project: 1024 })
    const ann = await core.user('ann')
    const refused = await core.send('POST', '/api/v2.0/projects', { as: ann, body: { project_name: 'anns' } })
    expect(refused.status).toBe(403)
    await change({ project_creation_restriction: 'everyone' })
    const id = await core.project('anns', ann)
    expect((await core.admin('GET', `/projects/${id}/summary`)).body).toMatchObject({
      quota: { hard: { storage: 1024 } },
    })
    await change({ storage_per_project: -1 })
  })
})

describe('CONFIG_OVERWRITE_JSON', () => {
  it('is written at start and cannot be changed', async () => {
    const fixed = await startCore({ CONFIG_OVERWRITE_JSON: '{"session_timeout": 5, "pull_audit_log_disable": true}' })
    try {
      const items = await configuration(fixed)
      expect(items.session_timeout).toEqual({ value: 5, editable: false })
      expect(items.banner_message?.editable).toBe(false)
      expect((await fixed.admin('PUT', '/configurations', { session_timeout: 6 })).status).toBe(403)
    } finally {
      await fixed[Symbol.asyncDispose]()
    }
  })

  it.each(['no json', '[]', '{"session_timeout": 0}', '{"sesion_timeout": 5}'])('stops the start: %s', async (json) => {
    await expect(startCore({ CONFIG_OVERWRITE_JSON: json })).rejects.toThrow('CONFIG_OVERWRITE_JSON')
  })
})
