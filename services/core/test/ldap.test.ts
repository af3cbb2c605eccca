import { createServer, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startSlapd, type Slapd } from '@haven/testkit/slapd'
import { lacking, titled } from '@haven/testkit/tools'
import { ADMIN, Browser, startCore, type Credentials, type TestCore } from './harness.ts'

const lack = lacking('slapd', 'ldapmodify', 'openssl')
const suite = lack ? describe.skip : describe

const people = 'ou=people,dc=example,dc=com'
const groups = 'ou=groups,dc=example,dc=com'
const person = (uid: string, more = '') => `dn: uid=${uid},${people}
objectClass: inetOrgPerson
uid: ${uid}
cn: ${uid} of Example
sn: Example
userPassword: ${uid}-secret
${more}
`
const group = (cn: string, members: string[], ou = groups) => `dn: cn=${cn},${ou}
objectClass: groupOfNames
cn: ${cn}
${members.map((uid) => `member: uid=${uid},${people}`).join('\n')}
`
const who = (name: string): Credentials => ({ name, password: `${name}-secret` })

suite(titled('LDAP', lack), () => {
  let core: TestCore
  let slapd: Slapd
  let settings: Record<string, unknown>
  beforeAll(async () => {
    slapd = await startSlapd()
    await slapd.apply(
      [
        person('ann', 'mail: ann@example.com'),
        ...['bob', 'cleo', 'dora', 'eve', 'finn', 'gus', 'hal'].map((name) => person(name)),
        person('admin'),
        person('a$b'),
        group('builders', ['ann', 'bob']),
        group('chiefs', ['cleo']),
        group('others', ['bob']),
        group('quiet', ['hal']),
        `dn: ou=more,${groups}\nobjectClass: organizationalUnit\nou: more\n`,
        group('builders', ['dora'], `ou=more,${groups}`),
      ].join('\n'),
    )
    core = await startCore({ OUTBOUND_ALLOW: '127.0.0.0/8' })
    settings = { ...slapd.settings, auth_mode: 'ldap_auth', ldap_group_admin_dn: `CN=Chiefs,${groups}` }
  }, 60_000)
  afterAll(async () => {
    await core?.[Symbol.asyncDispose]()
    await slapd?.[Symbol.asyncDispose]()
  })

  const as = (caller: Credentials, method: string, path: string, body?: unknown) =>
    core.send(method, `/api/v2.0${path}`, { as: caller, ...(body !== undefined && { body }) })
  const configure = async (change: Record<string, unknown>) => {
    const { status, text } = await core.admin('PUT', '/configurations', change)
    if (status !== 200) throw new Error(text)
  }
  const me = async (caller: Credentials) => (await as(caller, 'GET', '/users/current')).body
  /** As a minute later, when the sign-in is not remembered any more. */
  const later = () => core.signIn.remembered.forget()

  it('says that it is not there before it is configured', async () => {
    for (const path of ['/ldap/users/search', '/ldap/groups/search?groupname=a']) {
      expect((await core.admin('GET', path)).status).toBe(412)
    }
    expect((await core.admin('POST', '/ldap/users/import', { ldap_uid_list: ['ann'] })).status).toBe(412)
    expect((await core.admin('POST', '/ldap/ping', {})).status).toBe(400)
    expect((await me(who('ann'))) as object).toHaveProperty('errors')
  })

  it('is tried out before it is stored, and stored for everybody', async () => {
    const given = {
      ldap_url: settings.ldap_url,
      ldap_search_dn: slapd.searchDn,
      ldap_search_password: slapd.password,
      ldap_connection_timeout: 5,
    }
    expect(await core.admin('POST', '/ldap/ping', given)).toMatchObject({ status: 200, body: { success: true } })
    const wrong = await core.admin('POST', '/ldap/ping', { ...given, ldap_search_password: 'nope' })
    expect([wrong.status, wrong.body]).toEqual([
      200,
      { message: 'the LDAP directory cannot be used: it refuses the search DN or its password' },
    ])
    await configure(settings)
    expect((await core.admin('POST', '/ldap/ping')).body).toEqual({ success: true })
  })

  it('A92 R12: gets the stored password at its own address only', async () => {
    const heard: Buffer[] = []
    const trap = createServer(
      (socket) => void socket.on('data', (data) => heard.push(data)).on('error', () => undefined),
    )
    await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve))
    const ldap_url = `ldap://127.0.0.1:${(trap.address() as { port: number }).port}`
    try {
      expect((await core.admin('POST', '/ldap/ping', { ldap_url, ldap_connection_timeout: 1 })).status).toBe(400)
      expect((await core.admin('POST', '/ldap/ping', { ldap_search_dn: 'cn=x,dc=y' })).status).toBe(400)
      expect((await core.admin('PUT', '/configurations', { ldap_url })).status).toBe(400)
      expect(heard).toEqual([])
    } finally {
      trap.close()
    }
    const shown = await core.admin('GET', '/configurations')
    expect(shown.text).not.toContain(slapd.password)
  })

  it('lets people in by Basic and by the portal, and makes their account at the first time', async () => {
    const first = (await me(who('ann'))) as { user_id: number }
    expect(first).toMatchObject({
      username: 'ann',
      email: 'ann@example.com',
      realname: 'ann of Example',
      comment: 'from LDAP.',
      sysadmin_flag: false,
      admin_role_in_auth: false,
    })
    later()
    expect(await me({ name: 'ANN', password: 'ann-secret' })).toMatchObject({ user_id: first.user_id, username: 'ann' })
    const browser = new Browser(core)
    expect((await browser.login('ann', 'ann-secret')).status).toBe(200)
    expect((await browser.send('GET', '/api/v2.0/users/current')).body).toMatchObject({ user_id: first.user_id })
    expect((await new Browser(core).login('ann', 'wrong')).status).toBe(401)
    // Nothing of the secret stays.
    expect(await core.db.prisma.credential.count({ where: { userId: first.user_id } })).toBe(0)
  })

  it('makes one account when somebody signs in many times at once', async () => {
    const many = await Promise.all(Array.from({ length: 8 }, (_, at) => (at % 2 ? later() : null, me(who('gus')))))
    expect(new Set(many.map((user) => (user as { user_id: number }).user_id)).size).toBe(1)
    expect((await core.admin('GET', '/users/search?username=gus')).body).toHaveLength(1)
  })

  it('A66: gives nobody the account of somebody else who is called the same, and no name that nobody may have', async () => {
    expect((await me({ name: 'admin', password: 'admin-secret' })) as object).toHaveProperty('errors')
    expect(await me(ADMIN)).toMatchObject({ username: 'admin' })
    expect((await me(who('a$b'))) as object).toHaveProperty('errors')
    await core.db.prisma.user.create({ data: { username: 'hal', usernameKey: 'hal' } })
    expect((await me(who('hal'))) as object).toHaveProperty('errors')
  })

  it('puts people into their groups, and out of them when the directory does', async () => {
    await core.project('built')
    const dn = `cn=builders,${groups}`
    const added = await core.admin('POST', '/projects/built/members', {
      role_id: 2,
      member_group: { ldap_group_dn: dn },
    })
    expect(added.status).toBe(201)
    later()
    expect((await as(who('bob'), 'GET', '/projects/built')).body).toMatchObject({ current_user_role_id: 2 })
    const listed = await core.admin('GET', `/usergroups?ldap_group_dn=${encodeURIComponent(`CN=Builders, ${groups}`)}`)
    expect(listed.body).toMatchObject([{ group_name: 'builders', group_type: 1, ldap_group_dn: dn }])
    await slapd.apply(`dn: ${dn}\nchangetype: modify\ndelete: member\nmember: uid=bob,${people}\n`)
    later()
    expect((await me(who('bob'))) as object).toHaveProperty('user_id')
    core.authorities.forget()
    expect((await as(who('bob'), 'GET', '/projects/built')).status).toBe(403)
  })

  it('calls the second group of one name by its DN', async () => {
    await me(who('dora'))
    const dn = `cn=builders,ou=more,${groups}`
    const listed = await core.admin('GET', `/usergroups?ldap_group_dn=${encodeURIComponent(dn)}`)
    expect(listed.body).toMatchObject([{ group_name: dn, ldap_group_dn: dn }])
  })

  it('A12: makes administrators of the one group that the setting names, while it does', async () => {
    expect(await me(who('cleo'))).toMatchObject({ sysadmin_flag: false, admin_role_in_auth: true })
    expect((await as(who('cleo'), 'GET', '/users')).status).toBe(200)
    expect((await as(who('ann'), 'GET', '/users')).status).toBe(403)
    // The same words in another provider's mouth.
    const eve = ((await me(who('eve'))) as { user_id: number }).user_id
    const fake = await core.db.prisma.group.create({
      data: { provider: 'oidc', name: 'fake', externalId: `cn=chiefs,${groups}` },
    })
    await core.db.prisma.groupMember.create({ data: { groupId: fake.id, userId: eve } })
    core.authorities.forget()
    expect((await as(who('eve'), 'GET', '/users')).status).toBe(403)
    await configure({ ldap_group_admin_dn: '' })
    core.authorities.forget()
    expect((await as(who('cleo'), 'GET', '/users')).status).toBe(403)
    await configure({ ldap_group_admin_dn: settings.ldap_group_admin_dn })
  })

  it('knows who may become a member before they were ever here', async () => {
    const add = (body: object) => core.admin('POST', '/projects/built/members', { role_id: 3, ...body })
    expect((await add({ member_user: { username: 'finn' } })).status).toBe(201)
    expect((await add({ member_user: { username: 'nobody' } })).status).toBe(404)
    expect((await add({ member_group: { ldap_group_dn: `cn=quiet,${groups}`, group_name: 'called so' } })).status).toBe(
      201,
    )
    expect((await add({ member_group: { ldap_group_dn: `cn=ghosts,${groups}` } })).status).toBe(404)
    expect((await add({ member_group: { ldap_group_dn: 'ghosts' } })).status).toBe(400)
    expect((await add({ member_group: { group_name: 'ghosts', group_type: 1 } })).status).toBe(404)
    expect((await core.admin('GET', '/projects/built/members?entityname=called so')).body).toHaveLength(1)
    expect((await as(who('finn'), 'GET', '/projects/built')).body).toMatchObject({ current_user_role_id: 3 })
  })

  it('has groups made only of what is there', async () => {
    const make = (ldap_group_dn: string) =>
      core.admin('POST', '/usergroups', {
        group_name: `made of ${ldap_group_dn}`.slice(0, 40),
        group_type: 1,
        ldap_group_dn,
      })
    expect((await make(`cn=chiefs,${groups}`)).status).toBe(409) // cleo signed in
    for (const dn of [`cn=ghosts,${groups}`, `uid=ann,${people}`, 'nonsense', ''])
      expect((await make(dn)).status).toBe(400)
  })

  it('is searched, and imported from', async () => {
    expect((await core.admin('GET', '/ldap/users/search?username=ann')).body).toEqual([
      { username: 'ann', realname: 'ann of Example', email: 'ann@example.com' },
    ])
    expect((await core.admin('GET', '/ldap/users/search?username=*')).body).toEqual([])
    expect(((await core.admin('GET', '/ldap/users/search')).body as unknown[]).length).toBeGreaterThan(7)
    expect((await core.admin('GET', '/ldap/groups/search?groupname=other')).body).toEqual([
      { group_name: 'others', group_type: 1, ldap_group_dn: `cn=others,${groups}` },
    ])
    expect((await core.admin('GET', `/ldap/groups/search?groupdn=cn=chiefs,${groups}`)).status).toBe(200)
    expect((await core.admin('GET', '/ldap/groups/search?groupname=zzz')).status).toBe(404)
    expect((await core.admin('GET', '/ldap/groups/search?groupdn=zzz')).status).toBe(400)
    const imported = await core.admin('POST', '/ldap/users/import', { ldap_uid_list: ['eve', 'nobody', 'admin'] })
    expect([imported.status, imported.body]).toEqual([
      404,
      [
        { uid: 'nobody', error: expect.stringContaining('nobody') },
        { uid: 'admin', error: expect.stringContaining('already exists') },
      ],
    ])
    expect((await core.admin('POST', '/ldap/users/import', { ldap_uid_list: ['eve'] })).status).toBe(200)
    for (const [method, path, body] of [
      ['GET', '/ldap/users/search'],
      ['GET', '/ldap/groups/search?groupname=a'],
      ['POST', '/ldap/users/import', { ldap_uid_list: ['ann'] }],
      ['POST', '/ldap/ping', {}],
    ] as const)
      expect((await as(who('ann'), method, path, body)).status).toBe(403)
  })

  it('keeps profiles and passwords to itself', async () => {
    const { user_id: id } = (await me(who('ann'))) as { user_id: number }
    const change = { email: 'x@example.com', realname: 'x', comment: '' }
    const password = { old_password: 'ann-secret', new_password: 'Passw0rd' }
    for (const caller of [who('ann'), ADMIN]) {
      expect((await as(caller, 'PUT', `/users/${id}`, change)).status).toBe(403)
      expect((await as(caller, 'PUT', `/users/${id}/password`, password)).status).toBe(403)
    }
    const made = { username: 'local', email: 'l@example.com', realname: 'l', password: 'Passw0rd' }
    expect((await core.admin('POST', '/users', made)).status).toBe(403)
    expect((await core.admin('PUT', '/configurations', { auth_mode: 'db_auth' })).status).toBe(400)
    expect((await core.admin('PUT', '/users/1', { ...change, email: 'root@example.com' })).status).toBe(200)
  })

  it('lets a deleted user come back as somebody new', async () => {
    const { user_id: id } = (await me(who('gus'))) as { user_id: number }
    expect((await core.admin('DELETE', `/users/${id}`)).status).toBe(200)
    later()
    expect(((await me(who('gus'))) as { user_id: number }).user_id).not.toBe(id)
  })

  it('says that it cannot be asked, not why, while the local administrator gets in', async () => {
    const before = settings.ldap_url
    await configure({ ldap_url: 'ldap://127.0.0.1:1', ldap_search_password: slapd.password })
    try {
      for (const reply of [await as(who('bob'), 'GET', '/users/current'), await new Browser(core).login('bob', 'x')]) {
        expect(reply.status).toBe(503)
        expect(reply.text).not.toMatch(/127\.0\.0\.1|ECONN|example/)
      }
      expect(await me(ADMIN)).toMatchObject({ username: 'admin' })
      expect((await core.admin('POST', '/ldap/ping')).body).toEqual({
        message: 'the LDAP directory cannot be used: it cannot be reached',
      })
      expect((await core.admin('GET', '/ldap/users/search?username=ann')).status).toBe(503)
    } finally {
      await configure({ ldap_url: before, ldap_search_password: slapd.password })
    }
    expect(await me(who('bob'))).toMatchObject({ username: 'bob' })
  })

  it('is spared once it did not answer five sign-ins, while the local administrator gets in', async () => {
    const before = settings.ldap_url
    let connections = 0
    const open: Socket[] = []
    const silent = createServer((socket) => {
      connections++
      open.push(socket.on('error', () => undefined))
    })
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const { port } = silent.address() as { port: number }
    const stored = { ldap_search_password: slapd.password }
    await configure({ ldap_url: `ldap://127.0.0.1:${port}`, ldap_timeout: 1, ...stored })
    try {
      const waited = await Promise.all(
        ['ann', 'bob', 'dora', 'eve', 'finn'].map((name) => as({ name, password: 'x' }, 'GET', '/users/current')),
      )
      expect(waited.map(({ status }) => status)).toEqual([503, 503, 503, 503, 503])
      expect((await as({ name: 'hal', password: 'x' }, 'GET', '/users/current')).status).toBe(503)
      expect(connections).toBe(5)
      expect(await me(ADMIN)).toMatchObject({ username: 'admin' })
      // Whoever looks for the fault is told what is true now.
      expect((await core.admin('POST', '/ldap/ping')).body).toEqual({
        message: 'the LDAP directory cannot be used: no answer within 1 s',
      })
      expect(connections).toBe(6)
    } finally {
      for (const socket of open) socket.destroy()
      silent.close()
      await configure({ ldap_url: before, ldap_timeout: 5, ...stored })
    }
    expect(await me(who('bob'))).toMatchObject({ username: 'bob' })
  })

  it('A65: is never asked about an empty password', async () => {
    expect((await as({ name: 'ann', password: '' }, 'GET', '/users/current')).status).toBe(401)
    expect((await new Browser(core).login('ann', '')).status).toBe(401)
    expect((await new Browser(core).login('*)(uid=*', 'ann-secret')).status).toBe(401)
  })
})
