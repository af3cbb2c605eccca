import { createServer, type Server, type Socket } from 'node:net'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { problems } from '@haven/errors'
import { OutboundClient } from '@haven/outbound'
import { startSlapd, type Slapd } from '@haven/testkit/slapd'
import { lacking, titled } from '@haven/testkit/tools'
import {
  findLdapGroup,
  findLdapGroups,
  findLdapUsers,
  listLdapUsers,
  pingLdap,
  proveLdapUser,
  type LdapDirectory,
} from './ldap.ts'
import { LdapClient } from './ldap-connection.ts'

const lack = lacking('slapd', 'ldapmodify', 'openssl')
const suite = lack ? describe.skip : describe

const ldap = new LdapClient(new OutboundClient({ allow: ['127.0.0.0/8'] }))

const person = (uid: string, more = '') => `dn: uid=${uid},ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: ${uid}
cn: ${uid} of Example
sn: Example
userPassword: ${uid}-secret
${more}
`
const group = (cn: string, members: string[], ou = 'groups') => `dn: cn=${cn},ou=${ou},dc=example,dc=com
objectClass: groupOfNames
cn: ${cn}
${members.map((uid) => `member: uid=${uid},ou=people,dc=example,dc=com`).join('\n')}
`

suite(titled('an LDAP directory', lack), () => {
  let slapd: Slapd
  let directory: LdapDirectory
  beforeAll(async () => {
    slapd = await startSlapd()
    await slapd.apply(
      [
        person('ann', 'mail: ann@example.com'),
        person('bob', 'mail: not an address\nemployeeType: left'),
        person('a\\2Astar'.replace('\\2A', '*')),
        group('Builders', ['ann', 'bob']),
        group('Admins', ['ann']),
      ].join('\n'),
    )
    directory = {
      url: `ldap://${slapd.host}:${slapd.port}`,
      searchDn: slapd.searchDn,
      searchPassword: slapd.password,
      timeoutSeconds: 5,
      verifyCertificate: true,
      baseDn: `ou=people,${slapd.baseDn}`,
      filter: '',
      uid: 'uid',
      scope: 2,
      groups: {
        baseDn: `ou=groups,${slapd.baseDn}`,
        filter: 'objectClass=groupOfNames',
        nameAttribute: 'cn',
        scope: 2,
        adminDn: '',
        membershipAttribute: 'memberof',
      },
    }
  }, 60_000)
  afterAll(async () => {
    await slapd?.[Symbol.asyncDispose]()
  })

  it('proves who has a password, with the groups that the filter and the base DN leave', async () => {
    const builders = { dn: 'cn=builders,ou=groups,dc=example,dc=com', name: 'Builders' }
    const admins = { dn: 'cn=admins,ou=groups,dc=example,dc=com', name: 'Admins' }
    const ann = await proveLdapUser(ldap, directory, 'ann', 'ann-secret')
    expect(ann?.person).toEqual({ username: 'ann', realname: 'ann of Example', email: 'ann@example.com' })
    expect(ann?.groups).toHaveLength(2)
    expect(ann?.groups).toEqual(expect.arrayContaining([builders, admins]))
    const filtered = { ...directory, groups: { ...directory.groups, filter: '(cn=b*)' } }
    expect((await proveLdapUser(ldap, filtered, 'ann', 'ann-secret'))?.groups).toEqual([builders])
    const elsewhere = { ...directory, groups: { ...directory.groups, baseDn: `ou=people,${slapd.baseDn}` } }
    expect((await proveLdapUser(ldap, elsewhere, 'ann', 'ann-secret'))?.groups).toEqual([])
    const unread = { ...directory, groups: { ...directory.groups, filter: '', adminDn: admins.dn } }
    expect((await proveLdapUser(ldap, unread, 'ann', 'ann-secret'))?.groups).toEqual([])
    const administered = {
      ...filtered,
      groups: { ...filtered.groups, adminDn: 'CN=Admins, OU=Groups,DC=example,DC=com' },
    }
    const both = (await proveLdapUser(ldap, administered, 'ann', 'ann-secret'))?.groups.map(({ dn }) => dn)
    expect(both?.sort()).toEqual([admins.dn, builders.dn])
  })

  it.each([
    ['a wrong password', 'ann', 'bob-secret'],
    ['nobody', 'zoe', 'zoe-secret'],
    ['A65: no password', 'ann', ''],
    ['A65: a pattern', '*', 'ann-secret'],
    ['A65: the end of the filter', 'ann)(uid=*', 'ann-secret'],
    ['A65: another filter', 'ann)(|(uid=*', 'ann-secret'],
    ['A65: an escape', String.raw`a\6en`, 'ann-secret'],
    ['A65: a DN', 'ann,ou=people', 'ann-secret'],
  ])('refuses %s', async (_what, name, password) => {
    expect(await proveLdapUser(ldap, directory, name, password)).toBeNull()
  })

  it('A65: takes special characters of a name for themselves', async () => {
    expect((await proveLdapUser(ldap, directory, 'a*star', 'a*star-secret'))?.person.username).toBe('a*star')
    expect((await findLdapUsers(ldap, directory, ['a*', 'a*star'])).get('a*')).toBeNull()
    expect(await findLdapGroups(ldap, directory, '*')).toEqual([])
  })

  it('leaves out whom the filter leaves out, with or without its parentheses', async () => {
    for (const filter of ['(!(employeeType=left))', '!(employeeType=left)']) {
      const current = { ...directory, filter }
      expect(await proveLdapUser(ldap, current, 'bob', 'bob-secret')).toBeNull()
      expect(await proveLdapUser(ldap, current, 'ann', 'ann-secret')).not.toBeNull()
    }
    expect((await listLdapUsers(ldap, { ...directory, filter: '(employeeType=left)' })).map((p) => p.username)).toEqual(
      ['bob'],
    )
  })

  it('refuses a name that two entries have', async () => {
    const byClass = { ...directory, uid: 'sn' }
    expect(await proveLdapUser(ldap, byClass, 'Example', 'ann-secret')).toBeNull()
  })

  it('finds people and groups', async () => {
    const people = await listLdapUsers(ldap, directory)
    expect(people.map((p) => p.username).sort()).toEqual(['a*star', 'ann', 'bob'])
    expect(people.find((p) => p.username === 'bob')?.email).toBeNull()
    expect((await findLdapGroups(ldap, directory, 'uild')).map((g) => g.name)).toEqual(['Builders'])
    expect(await findLdapGroups(ldap, directory, '')).toHaveLength(2)
    expect(await findLdapGroup(ldap, directory, 'cn=BUILDERS, ou=groups,dc=example,dc=com')).toMatchObject({
      name: 'Builders',
    })
    expect(await findLdapGroup(ldap, directory, 'cn=ghosts,ou=groups,dc=example,dc=com')).toBeNull()
    expect(await findLdapGroup(ldap, directory, 'uid=ann,ou=people,dc=example,dc=com')).toBeNull()
  })

  const reason = (changed: Partial<LdapDirectory>) =>
    proveLdapUser(ldap, { ...directory, ...changed }, 'ann', 'ann-secret').then(
      () => 'no failure',
      (error: unknown) => (problems.directoryFailed.is(error) ? error.message : String(error)),
    )

  it('says what is wrong with the directory, and nothing that it said', async () => {
    expect(await reason({ searchPassword: 'wrong' })).toMatch('it refuses the search DN or its password')
    expect(await reason({ baseDn: 'dc=gone,dc=org' })).toMatch('it has no entry with the base DN')
    expect(await reason({ filter: '(&(uid=' })).toMatch('ldap_filter is no filter')
    expect(await reason({ url: 'http://127.0.0.1' })).toMatch('ldap_url is no address of a server')
    expect(await reason({ url: '' })).toMatch('ldap_url is no address of a server')
    expect(await reason({ url: 'ldap://127.0.0.1:1' })).toMatch('it cannot be reached')
    expect(await reason({ url: 'ldap://no-such-host.invalid' })).toMatch('it cannot be reached')
  })

  it('A91: is not looked for where none can be', async () => {
    for (const url of [
      'ldap://169.254.169.254',
      'ldap://[fe80::1]:389',
      'ldap://[::ffff:169.254.169.254]',
      'ldap://0.0.0.0:3890',
      'ldap://127.0.0.1:6379',
      'ldap://127.0.0.1:5432',
    ]) {
      expect(await reason({ url })).toMatch('an address that may not be reached')
    }
  })

  it('A91 R11: is looked for by what its name resolves to, and on this machine only where that is allowed', async () => {
    const ask = (resolved: string, allow: string[] = []) =>
      pingLdap(new LdapClient(new OutboundClient({ allow, resolve: async () => [resolved] })), {
        ...directory,
        url: `ldap://directory.test:${slapd.port}`,
        timeoutSeconds: 1,
      }).then(
        () => 'in',
        (error: Error) => error.message,
      )
    expect(await ask('127.0.0.1', ['127.0.0.1'])).toBe('in')
    for (const refused of ['127.0.0.1', '::1', '169.254.169.254', 'fd00:ec2::254', '64:ff9b::7f00:1']) {
      expect(await ask(refused)).toMatch('an address that may not be reached')
    }
  })

  it('is not asked for ten seconds once it did not answer five times, then once, then as ever', async () => {
    let now = 0
    let up = false
    const at = new OutboundClient({ allow: ['127.0.0.1'] })
    let dialled = 0
    const client = new LdapClient(
      Object.assign(Object.create(at) as OutboundClient, {
        dial(target: Parameters<OutboundClient['dial']>[0]) {
          dialled++
          return at.dial(up ? target : { ...target, port: 1 })
        },
      }),
      () => now,
    )
    const tried = () =>
      proveLdapUser(client, directory, 'ann', 'ann-secret').then(
        () => 'in',
        (error: Error) => error.message,
      )
    for (let failure = 1; failure <= 5; failure++) expect(await tried()).toMatch('it cannot be reached')
    expect(await tried()).toMatch('it did not answer the last requests')
    expect(dialled).toBe(5)
    now = 10_000
    expect(await tried()).toMatch('it cannot be reached')
    expect(await tried()).toMatch('it did not answer the last requests')
    expect(dialled).toBe(6)
    up = true
    now = 20_000
    expect([await tried(), await tried()]).toEqual(['in', 'in'])
    expect(dialled).toBe(8)
  })

  it('is asked on when what it says is no: a wrong search password is an answer', async () => {
    const client = new LdapClient(new OutboundClient({ allow: ['127.0.0.1'] }), () => 0)
    for (let refusal = 1; refusal <= 6; refusal++) {
      await expect(
        proveLdapUser(client, { ...directory, searchPassword: 'wrong' }, 'ann', 'ann-secret'),
      ).rejects.toThrow('it refuses the search DN')
    }
  })

  it('is spoken to in TLS, by its own port or by StartTLS, and shown no password under a certificate that is not trusted', async () => {
    const secure = [`ldaps://localhost:${slapd.securePort}`, `ldap+starttls://localhost:${slapd.port}`]
    for (const url of secure) expect(await reason({ url })).toMatch('its certificate is not trusted')
    for (const url of secure) expect(await reason({ url, verifyCertificate: false })).toBe('no failure')
    const before = getCACertificates('default')
    setDefaultCACertificates([...before, slapd.certificate])
    try {
      for (const url of secure) expect(await reason({ url })).toBe('no failure')
      // The certificate is for localhost.
      for (const url of secure) {
        expect(await reason({ url: url.replace('localhost', '127.0.0.1') })).toMatch('its certificate is not trusted')
      }
    } finally {
      setDefaultCACertificates(before)
    }
  })

  it('is given up when it does not answer, whatever it is at', async () => {
    const sockets = new Set<Socket>()
    const silent: Server = createServer((socket) => void sockets.add(socket.on('error', () => undefined)))
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const { port } = silent.address() as { port: number }
    try {
      for (const scheme of ['ldap', 'ldaps', 'ldap+starttls']) {
        expect(await reason({ url: `${scheme}://127.0.0.1:${port}`, timeoutSeconds: 1 })).toMatch(
          'no answer within 1 s',
        )
      }
    } finally {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => silent.close(resolve))
    }
  })

  it('lets the search DN in, or not', async () => {
    await pingLdap(ldap, directory)
    await expect(pingLdap(ldap, { ...directory, searchPassword: 'x' })).rejects.toThrow('refuses the search DN')
  })
})
