import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { changeSettings, parseSettings } from './change-settings.ts'
import { Settings } from './settings.ts'

const sealer = {
  seal: (plain: string) => `sealed:${Buffer.from(plain).toString('hex')}`,
  open: (sealed: string) => Buffer.from(sealed.slice('sealed:'.length), 'hex').toString(),
}
const admin = { principal: { kind: 'user' as const, id: 1, name: 'admin' } }

let database: TestDatabase
beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => {
  await database[Symbol.asyncDispose]()
})

/** Two processes of one installation. */
let here: Settings
let elsewhere: Settings
let now = 0
beforeEach(() => {
  here = new Settings(database.db, sealer, { clock: () => now })
  elsewhere = new Settings(database.db, sealer, { clock: () => now })
})
afterEach(async () => {
  here[Symbol.dispose]()
  elsewhere[Symbol.dispose]()
  await database.db.prisma.setting.deleteMany()
})

const change = async (given: Record<string, unknown>) =>
  changeSettings({ db: database.db, settings: here, sealer }, admin, parseSettings(given, await here.read()))

describe('settings', () => {
  it('are the defaults until somebody changes them', async () => {
    expect(await here.read()).toMatchObject({ auth_mode: 'db_auth', session_timeout: 60, robot_name_prefix: 'robot$' })
  })

  it('are new at once where they were changed, and elsewhere after the announcement or five seconds', async () => {
    await here.read()
    await elsewhere.read()
    await change({ read_only: true, banner_message: 'x' })
    expect(await here.read()).toMatchObject({ read_only: true, banner_message: 'x' })
    now += 5_001
    expect(await elsewhere.read()).toMatchObject({ read_only: true, banner_message: 'x' })
  })

  it('are one object while nothing changes', async () => {
    const first = await here.read()
    now += 5_001
    expect(await here.read()).toBe(first)
    await change({ read_only: true })
    expect(await here.read()).not.toBe(first)
  })

  it('keep secrets sealed in the table', async () => {
    await change({ ldap_search_password: 'hush' })
    const row = await database.db.prisma.setting.findUniqueOrThrow({ where: { key: 'ldap_search_password' } })
    expect(JSON.stringify(row.value)).not.toContain('hush')
    expect((await here.read()).ldap_search_password).toBe('hush')
  })

  it('say which keys changed, never to what', async () => {
    await change({ ldap_search_password: 'hush', ldap_timeout: 7 })
    const event = await database.db.prisma.outboxEvent.findFirstOrThrow({ orderBy: { id: 'desc' } })
    expect(event).toMatchObject({
      type: 'haven.events.v1.ConfigurationChanged',
      payload: { keys: ['ldap_search_password', 'ldap_timeout'] },
    })
    expect(JSON.stringify(event.payload)).not.toContain('hush')
  })
})

describe('parseSettings', () => {
  it.each([
    ['token_expiration', 0],
    ['session_timeout', 10_000_000_000],
    ['robot_name_prefix', '  '],
    ['auth_mode', 'magic'],
    ['ldap_scope', 3],
    ['storage_per_project', 0],
    ['storage_per_project', 1024 ** 5 + 1],
    ['project_creation_restriction', 'nobody'],
    ['oidc_extra_redirect_parms', '{"a":1}'],
    ['oidc_extra_redirect_parms', 'no json'],
  ])('refuses %s = %j by its name', async (name, value) => {
    const values = await here.read()
    expect(() => parseSettings({ [name]: value }, values)).toThrow(`item name ${name}`)
  })

  it('trims, reads maps from their text, and leaves out what no setting is called', async () => {
    const given = { robot_name_prefix: ' bot- ', oidc_extra_redirect_parms: '{"a":"b"}', constructor: 1, nothing: 2 }
    expect(parseSettings(given, await here.read())).toEqual({
      robot_name_prefix: 'bot-',
      oidc_extra_redirect_parms: { a: 'b' },
    })
  })

  it('looks at values together with those that stay', async () => {
    const values = await here.read()
    expect(() => parseSettings({ skip_audit_log_database: true }, values)).toThrow('audit_log_forward_endpoint')
    expect(() => parseSettings({ ldap_group_search_filter: 'objectclass=group' }, values)).toThrow(
      'ldap_group_attribute_name',
    )
  })
})
