import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import {
  adminId,
  Authorities,
  createUser,
  deleteUser,
  ensureAdmin,
  ensurePresets,
  LdapClient,
  generateSecret,
  hashRobotSecret,
  memberGrants,
  setSysadmin,
  signInDeps,
  SigningKeys,
  TokenVerifier,
  type LdapDirectory,
} from '@haven/identity'
import { OutboundClient } from '@haven/outbound'
import { createProject, deleteProject, ProjectDirectory } from '@haven/projects'
import { createLogger, createMetrics, listen, openLogDestination, type Listening } from '@haven/runtime'
import { Settings } from '@haven/settings'
import { freePort, testDatabase, type TestDatabase } from '@haven/testkit'
import { startSlapd } from '@haven/testkit/slapd'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { createToken } from '../src/service.ts'

const sealer = { seal: (plain: string) => `s${plain}`, open: (sealed: string) => sealed.slice(1) }
const admin = { principal: { kind: 'user', id: adminId, name: 'admin' } } as const

describe('the token service', () => {
  let database: TestDatabase
  let listening: Listening
  let base: string
  let keys: SigningKeys
  let authorities: Authorities
  let projects: ProjectDirectory
  let users: { db: TestDatabase['db']; authorities: Authorities; signIn: ReturnType<typeof signInDeps> }
  let verifier: TokenVerifier
  let directory: LdapDirectory | null = null
  const robot = { name: 'robot$closed+ci', secret: generateSecret() }

  beforeAll(async () => {
    database = await testDatabase()
    const { db } = database
    await ensurePresets(db)
    await ensureAdmin(db, 'Harbor12345')
    keys = new SigningKeys(db, sealer)
    authorities = new Authorities(db)
    projects = new ProjectDirectory(db)
    const ldap = new LdapClient(new OutboundClient({ allow: ['127.0.0.0/8'] }))
    users = { db, authorities, signIn: signInDeps(db, { ldap: { client: ldap, directory: async () => directory } }) }
    verifier = new TokenVerifier(keys)
    const destination = openLogDestination({
      collectorUrl: undefined,
      collectorSecret: undefined,
      alwaysStdout: false,
      secrets: [],
    })
    const service = createToken({
      settings: new Settings(db, sealer),
      db,
      keys,
      sealer,
      authorities,
      signIn: users.signIn,
      projects,
      log: createLogger({ service: 'token', level: 'silent', destination }),
      metrics: createMetrics(),
      trust: { proxySecret: null },
    })
    listening = await listen(service.handler, { host: '127.0.0.1', port: 0 })
    base = `http://localhost:${listening.port}`
    await service.start!()

    for (const name of ['library', 'closed']) {
      const metadata = { public: String(name === 'library') }
      await createProject({ db, directory: projects }, admin, { name, ownerId: adminId, metadata })
    }
    const closed = (await projects.byName('closed'))!.id
    for (const [username, roleId] of [
      ['dev', 2],
      ['guest', 3],
      ['stranger', null],
    ] as const) {
      const user = await createUser(users, admin, {
        username,
        email: `${username}@example.com`,
        realname: username,
        password: 'Secret-1',
      })
      if (roleId) await memberGrants.add(db.writes, { projectId: closed, kind: 'user', memberId: user.id, roleId })
    }
    const { id } = await db.prisma.robot.create({
      data: {
        name: 'closed+ci',
        nameKey: 'closed+ci',
        projectId: closed,
        credentials: { create: { kind: 'robot-secret', ...hashRobotSecret(robot.secret) } },
      },
    })
    await db.prisma.grant.create({
      data: {
        principalKind: 'robot',
        principalId: id,
        resource: 'repository',
        action: 'push',
        nodeKind: 'project',
        projectId: closed,
      },
    })
    authorities.forget()
  })
  afterAll(async () => {
    await listening.drain(100)
    users.signIn[Symbol.dispose]()
    authorities[Symbol.dispose]()
    projects[Symbol.dispose]()
    keys[Symbol.dispose]()
    await database[Symbol.asyncDispose]()
  })

  const basic = (name: string, password: string) => ({
    Authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`,
  })
  const url = (scopes: string[], more: Record<string, string> = {}) => {
    const query = new URLSearchParams({ service: 'harbor-registry', ...more })
    for (const scope of scopes) query.append('scope', scope)
    return `${base}/service/token?${query.toString()}`
  }
  const get = (scopes: string[], headers: Record<string, string> = {}, more: Record<string, string> = {}) =>
    fetch(url(scopes, more), { headers })
  const post = (form: Record<string, string>, type = 'application/x-www-form-urlencoded') =>
    fetch(`${base}/service/token`, {
      method: 'POST',
      headers: { 'Content-Type': type },
      body: new URLSearchParams(form).toString(),
    })
  type Body = Record<'token' | 'access_token' | 'issued_at' | 'scope', string> & { expires_in: number }
  const verified = async (response: Response) => {
    expect([response.status, await response.clone().text()]).toEqual([200, expect.stringContaining('"token"')])
    const body = (await response.json()) as Body
    return { body, token: await verifier.verify(body.token) }
  }
  const listed = async (scopes: string[], headers: Record<string, string> = {}) =>
    (await verified(await get(scopes, headers))).token.access.map((a) => `${a.type}:${a.name}:${a.actions.join(',')}`)
  const granted = async (scopes: string[], headers: Record<string, string> = {}) =>
    (await listed(scopes, headers)).filter((scope) => !scope.endsWith(':'))
  const message = async (response: Response) =>
    ((await response.json()) as { errors: { code: string; message: string }[] }).errors[0]

  it('answers docker login: a token for the right password, a text to show for a wrong one', async () => {
    const more = { account: 'dev', client_id: 'docker', offline_token: 'true' }
    const response = await get([], basic('dev', 'Secret-1'), more)
    expect(response.headers.get('cache-control')).toBe('no-store')
    const { body, token } = await verified(response)
    expect(body.access_token).toBe(body.token)
    expect(body.expires_in).toBe(1800)
    expect(body.issued_at).toBe(token.issuedAt.toISOString().replace('.000Z', 'Z'))
    expect(body).not.toHaveProperty('refresh_token')
    expect(token).toMatchObject({ principal: { kind: 'user', name: 'dev' }, access: [] })

    const refused = await get(['repository:library/app:pull'], basic('dev', 'Wrong-11'))
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([401, 'Basic realm="harbor"'])
    expect(await message(refused)).toEqual({ code: 'UNAUTHORIZED', message: 'incorrect user name or password' })
  })

  it('grants what was asked for as far as the caller may have it (A32)', async () => {
    const app = 'repository:closed/app'
    expect(await granted([`${app}:pull`], basic('dev', 'Secret-1'))).toEqual([`${app}:pull`])
    expect(await granted([`${app}:push,pull`], basic('dev', 'Secret-1'))).toEqual([`${app}:pull,push`])
    expect(await granted([`${app}:*`], basic('dev', 'Secret-1'))).toEqual([`${app}:pull,push`])
    expect(await granted([`${app}:pull,push,delete`], basic('guest', 'Secret-1'))).toEqual([`${app}:pull`])
    expect(await granted([`${app}:pull,push`], basic('stranger', 'Secret-1'))).toEqual([])
    expect(await granted([`${app}:*,scanner-pull`], basic('admin', 'Harbor12345'))).toEqual([`${app}:pull,push,delete`])
    expect(await granted([`${app}:pull,push`], basic(robot.name, robot.secret))).toEqual([`${app}:pull,push`])
    expect(await granted(['repository:library/app:pull,push'], basic(robot.name, robot.secret))).toEqual([
      'repository:library/app:pull',
    ])
  })

  it('takes scopes in every way that clients send them', async () => {
    const both = ['repository:closed/a:pull,push', 'repository:library/b:pull']
    expect(await granted(both, basic('dev', 'Secret-1'))).toEqual(both)
    expect(await granted([both.join(' ')], basic('dev', 'Secret-1'))).toEqual(both)
    expect(await granted(['repository:closed/a:pull repository:closed/a:pull,push'], basic('dev', 'Secret-1'))).toEqual(
      [both[0]],
    )
  })

  it('drops what is unknown, malformed or absent, and refuses more than a hundred (A33)', async () => {
    const odd = [
      'repository:closed/APP:pull',
      'repository:closed/../library/app:pull',
      'repository:closed:pull',
      'repository:no-such/app:pull',
      'registry:everything:*',
      'registry:catalog:*',
      'artifact:closed/app:pull',
      'repository::pull',
      'repository:closed/app',
      ':::',
      'repository:closed/app:tag:pull',
    ]
    expect(await granted(odd, basic('dev', 'Secret-1'))).toEqual([])
    expect(await granted(['repository(plugin):closed/app:pull'], basic('stranger', 'Secret-1'))).toEqual([])
    expect(await granted(['registry:catalog:*'], basic('admin', 'Harbor12345'))).toEqual(['registry:catalog:*'])
    const many = Array.from({ length: 101 }, (_, i) => `repository:library/app${i}:pull`)
    expect((await get([many.join(' ')], basic('dev', 'Secret-1'))).status).toBe(400)
    expect(await granted([many.slice(0, 60).join(' ')])).toHaveLength(60)
    const long = Array.from({ length: 40 }, (_, i) => `repository:library/${'x'.repeat(200)}${i}:pull`)
    const refused = await get([long.join(' ')])
    expect([refused.status, (await message(refused))?.message]).toEqual([400, expect.stringContaining('do not fit')])
  })

  it('names what it does not grant, alike for what is hidden, absent and unknown, so that nobody asks again (A42)', async () => {
    const asked = ['repository:closed/app:pull', 'repository:no-such/app:pull', 'artifact:closed/app:pull']
    expect(await listed(asked, basic('stranger', 'Secret-1'))).toEqual([
      'repository:closed/app:',
      'repository:no-such/app:',
      'artifact:closed/app:',
    ])
  })

  it('lets who is signed in mount from wherever he may pull, and nobody else', async () => {
    expect(await listed(['registry:mount:pull'], basic('guest', 'Secret-1'))).toEqual(['registry:mount:pull'])
    expect(await listed(['registry:mount:pull'])).toEqual(['registry:mount:'])
  })

  it('gives nobody in particular pull on public projects and nothing else (A42)', async () => {
    expect(await granted(['repository:library/app:pull,push,delete', 'repository:closed/app:pull'])).toEqual([
      'repository:library/app:pull',
    ])
    const { token } = await verified(await get(['repository:closed/app:pull']))
    expect(token).toMatchObject({
      principal: { kind: 'anonymous' },
      access: [{ type: 'repository', name: 'closed/app', actions: [] }],
    })
    expect((await get([])).status).toBe(401)
  })

  it('believes the credential, not what stands beside it (A34, A45)', async () => {
    const { token } = await verified(await get([], basic('dev', 'Secret-1'), { account: 'admin', client_id: 'admin' }))
    expect(token.principal).toMatchObject({ name: 'dev' })
    expect((await get([], {}, { username: 'dev', password: 'Secret-1' })).status).toBe(401)
    const inQuery = await verified(
      await get(['repository:closed/app:pull'], {}, { username: 'dev', password: 'Secret-1' }),
    )
    expect(inQuery.token.access).toEqual([{ type: 'repository', name: 'closed/app', actions: [] }])
    for (const header of [
      'Basic',
      'Basic !!!',
      'Basic bm9jb2xvbg==',
      'Bearer x.y.z',
      'Digest a=b',
      `Basic ${Buffer.from(':').toString('base64')}`,
    ]) {
      expect((await get(['repository:library/app:pull'], { Authorization: header })).status).toBe(401)
    }
  })

  it('refuses other services, methods and bodies', async () => {
    for (const query of ['', '?service=', '?service=registry.docker.io', '?service=harbor-registry&service=x']) {
      const response = await fetch(`${base}/service/token${query}`, { headers: basic('dev', 'Secret-1') })
      expect([response.status, (await message(response))?.message]).toEqual([
        400,
        expect.stringMatching(/^Unable to handle service: /),
      ])
    }
    const put = await fetch(url([]), { method: 'PUT' })
    expect([put.status, put.headers.get('allow')]).toEqual([405, 'GET, HEAD, POST'])
    const password = { service: 'harbor-registry', grant_type: 'password', username: 'dev', password: 'Secret-1' }
    expect((await post(password, 'application/json')).status).toBe(400)
    expect((await post({ ...password, pad: 'x'.repeat(70_000) })).status).toBe(413)
    expect((await fetch(`${base}/service/token/`)).status).toBe(404)
  })

  it('answers the OAuth form: password yes, refresh tokens no', async () => {
    const form = {
      service: 'harbor-registry',
      client_id: 'containerd-client',
      grant_type: 'password',
      username: 'dev',
      password: 'Secret-1',
      access_type: 'offline',
      scope: 'repository:closed/app:pull repository:closed/app:pull,push repository:library/x:pull,push',
    }
    const { body, token } = await verified(await post(form))
    expect(body.scope).toBe('repository:closed/app:pull,push repository:library/x:pull')
    expect(body).not.toHaveProperty('refresh_token')
    expect(token).toMatchObject({ principal: { name: 'dev' } })
    expect((await post({ ...form, password: 'Wrong-11' })).status).toBe(401)
    expect((await post({ ...form, username: '', password: '' })).status).toBe(401)
    for (const grant_type of ['refresh_token', 'client_credentials', '']) {
      const refused = await post({ ...form, grant_type, refresh_token: token.principal.kind })
      expect([refused.status, (await message(refused))?.message]).toEqual([
        400,
        expect.stringContaining('unsupported_grant_type'),
      ])
    }
    expect((await post({ ...form, service: 'other' })).status).toBe(400)
  })

  it('holds up who guesses: 429 with Retry-After, by GET and POST alike', async () => {
    const statuses = []
    for (let i = 0; i < 4; i++) statuses.push((await get([], basic('victim', `Guess-${i}`))).status)
    const form = { service: 'harbor-registry', grant_type: 'password', username: 'victim' }
    for (let i = 0; i < 2; i++) statuses.push((await post({ ...form, password: `Guess-p${i}` })).status)
    expect(statuses).toEqual([401, 401, 401, 401, 401, 429])
    expect(Number((await get([], basic('victim', 'x'))).headers.get('retry-after'))).toBeGreaterThan(200)
    expect((await get([], basic('dev', 'Secret-1'))).status).toBe(200)
  })

  it('gives no more tokens to a user that was deleted, though his password was just right (A13)', async () => {
    const user = await createUser(users, admin, {
      username: 'leaver',
      email: 'leaver@example.com',
      realname: 'x',
      password: 'Secret-1',
    })
    expect((await get([], basic('leaver', 'Secret-1'))).status).toBe(200)
    await deleteUser(users, admin, user.id)
    expect((await get([], basic('leaver', 'Secret-1'))).status).toBe(401)
  })

  const noSlapd = lacking('slapd', 'ldapmodify', 'openssl')
  ;(noSlapd ? it.skip : it)(titled('signs in by LDAP, and says so when the directory is away', noSlapd), async () => {
    await using slapd = await startSlapd()
    const person = [
      'dn: uid=lea,ou=people,dc=example,dc=com',
      'objectClass: inetOrgPerson',
      'uid: lea',
      'cn: l',
      'sn: l',
    ]
    await slapd.apply([...person, 'userPassword: lea-secret', ''].join('\n'))
    const { searchDn, password: searchPassword, baseDn } = slapd
    const groups = { baseDn, filter: '', nameAttribute: 'cn', scope: 2, adminDn: '', membershipAttribute: 'memberof' }
    const server = { url: `ldap://${slapd.host}:${slapd.port}`, searchDn, searchPassword, timeoutSeconds: 5 }
    directory = { ...server, verifyCertificate: true, baseDn, filter: '', uid: 'uid', scope: 2, groups }
    try {
      expect((await get([], basic('lea', 'lea-secret'))).status).toBe(200)
      expect((await get([], basic('lea', 'wrong'))).status).toBe(401)
      directory = { ...directory, url: 'ldap://127.0.0.1:1' }
      const refused = await get([], basic('lea', 'another'))
      expect([refused.status, await refused.text()]).toEqual([503, expect.not.stringContaining('127.0.0.1')])
      expect((await get([], basic('admin', 'Harbor12345'))).status).toBe(200)
    } finally {
      directory = null
    }
  })

  it('binds a token to the project and not to its name (A38)', async () => {
    const deps = {
      db: database.db,
      directory: projects,
      holdsRepositories: async () => false,
      forgetProject: async () => undefined,
    }
    const first = await createProject(deps, admin, { name: 'reborn', ownerId: adminId })
    const { token } = await verified(await get(['repository:reborn/app:pull'], basic('admin', 'Harbor12345')))
    expect(token.projects.get('reborn')).toBe(first.id)
    await deleteProject(deps, admin, first)
    const second = await createProject(deps, admin, { name: 'reborn', ownerId: adminId })
    expect(token.projects.get('reborn')).not.toBe(second.id)
  })

  it('follows a change of rights at once', async () => {
    const user = await createUser(users, admin, {
      username: 'riser',
      email: 'riser@example.com',
      realname: 'x',
      password: 'Secret-1',
    })
    const scope = 'repository:closed/app:delete'
    expect(await granted([scope], basic('riser', 'Secret-1'))).toEqual([])
    await setSysadmin(users, admin, user.id, true)
    expect(await granted([scope], basic('riser', 'Secret-1'))).toEqual([scope])
    await setSysadmin(users, admin, user.id, false)
    expect(await granted([scope], basic('riser', 'Secret-1'))).toEqual([])
  })

  it('publishes the keys that verify', async () => {
    const response = await fetch(`${base}/service/token/jwks.json`)
    const { keys: published } = (await response.json()) as { keys: Record<string, string>[] }
    expect(published).toEqual([
      { kty: 'RSA', n: expect.any(String), e: 'AQAB', kid: expect.any(String), alg: 'RS256', use: 'sig' },
    ])
  })

  const lack = lacking('registry', 'crane')
  const proof = lack ? describe.skip : describe

  proof(titled("against Distribution's own verifier", lack), () => {
    let folder: string
    let registry: ChildProcess
    let host: string
    const log: Buffer[] = []

    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'haven-token-'))
      const port = await freePort()
      host = `localhost:${port}`
      writeFileSync(join(folder, 'jwks.json'), await (await fetch(`${base}/service/token/jwks.json`)).text())
      writeFileSync(
        join(folder, 'config.yml'),
        JSON.stringify({
          version: '0.1',
          log: { level: 'warn' },
          storage: { filesystem: { rootdirectory: join(folder, 'blobs') }, delete: { enabled: true } },
          http: { addr: `127.0.0.1:${port}`, secret: 'any' },
          auth: {
            token: {
              realm: `${base}/service/token`,
              service: 'harbor-registry',
              issuer: 'harbor-token-issuer',
              jwks: join(folder, 'jwks.json'),
            },
          },
        }),
      )
      registry = spawn(findTool('registry')!, ['serve', join(folder, 'config.yml')], {
        env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      for (const stream of [registry.stdout!, registry.stderr!]) stream.on('data', (chunk: Buffer) => log.push(chunk))
      const until = Date.now() + 20_000
      while ((await fetch(`http://${host}/v2/`).catch(() => null)) === null) {
        if (registry.exitCode !== null || Date.now() > until)
          throw new Error(`no registry: ${Buffer.concat(log).toString()}`)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    })
    afterAll(async () => {
      const ended = new Promise((resolve) => registry.once('exit', resolve))
      registry.kill('SIGTERM')
      await ended
      rmSync(folder, { recursive: true, force: true })
    })

    const asked = async (path: string, scope: string, headers: Record<string, string>, method = 'GET') => {
      const { body } = await verified(await get([scope], headers))
      return (await fetch(`http://${host}${path}`, { method, headers: { Authorization: `Bearer ${body.token}` } }))
        .status
    }

    it('is believed exactly as far as it goes', async () => {
      const dev = basic('dev', 'Secret-1')
      const uploads = '/v2/closed/app/blobs/uploads/'
      expect(await asked('/v2/', 'repository:closed/app:pull', dev)).toBe(200)
      expect(await asked(uploads, 'repository:closed/app:pull,push', dev, 'POST')).toBe(202)
      expect(await asked(uploads, 'repository:closed/app:pull', dev, 'POST')).toBe(401)
      expect(await asked(uploads, 'repository:closed/app:pull,push', basic('guest', 'Secret-1'), 'POST')).toBe(401)
      expect(await asked('/v2/closed/other/blobs/uploads/', 'repository:closed/app:pull,push', dev, 'POST')).toBe(401)
      expect(await asked('/v2/_catalog', 'registry:catalog:*', basic('admin', 'Harbor12345'))).toBe(200)
      expect(await asked('/v2/_catalog', 'registry:catalog:*', dev)).toBe(401)
      expect(await asked('/v2/library/app/tags/list', 'repository:library/app:pull', {})).toBe(404)
    })

    it('carries a real client through push and pull', async () => {
      const crane = (args: string[]) =>
        promisify(execFile)(findTool('crane')!, args, { env: { ...process.env, DOCKER_CONFIG: folder } })
      await crane(['auth', 'login', host, '-u', 'dev', '-p', 'Secret-1'])
      writeFileSync(join(folder, 'layer.txt'), 'hello')
      await promisify(execFile)('tar', ['-C', folder, '-cf', join(folder, 'layer.tar'), 'layer.txt'])
      await crane(['append', '-f', join(folder, 'layer.tar'), '-t', `${host}/closed/app:1`])
      expect((await crane(['ls', `${host}/closed/app`])).stdout.trim()).toBe('1')
      await expect(crane(['append', '-f', join(folder, 'layer.tar'), '-t', `${host}/library/app:1`])).rejects.toThrow(
        /UNAUTHORIZED/,
      )
    })
  })
})
