import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { OutboundClient } from '@haven/outbound'
import { checkRegistries } from '@haven/registries'
import { encryptionKey, open, seal } from '@haven/runtime'
import { freePort } from '@haven/testkit'
import { findTool, lacking, titled } from '@haven/testkit/tools'
import { PASSWORD, startCore, type Credentials, type TestCore } from './harness.ts'

const SECRET = 'canary-of-a-registry'
const credential = { type: 'basic', access_key: 'robot', access_secret: SECRET }

/** A registry that takes one password by Basic, and remembers who asked for what. */
class Upstream {
  readonly seen: { url: string; authorization: string | undefined }[] = []
  answer: ((req: IncomingMessage, res: ServerResponse) => void) | null = null
  readonly #server: Server = createServer((req, res) => {
    this.seen.push({ url: req.url ?? '', authorization: req.headers.authorization })
    if (this.answer) return this.answer(req, res)
    const known = req.headers.authorization === `Basic ${Buffer.from(`robot:${SECRET}`).toString('base64')}`
    if (known) res.writeHead(200).end('{}')
    else res.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end()
  })

  async start(): Promise<this> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return this
  }

  get url() {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  get secretsSeen() {
    return this.seen.filter(({ authorization }) => authorization !== undefined)
  }

  async stop() {
    this.#server.close()
    this.#server.closeAllConnections()
    if (this.#server.listening) await once(this.#server, 'close')
  }
}

let core: TestCore
let user: Credentials
let upstream: Upstream
let trap: Upstream

beforeAll(async () => {
  core = await startCore({ OUTBOUND_ALLOW: '127.0.0.1' })
  user = await core.user('somebody')
  upstream = await new Upstream().start()
  trap = await new Upstream().start()
})
afterAll(async () => {
  await upstream.stop()
  await trap.stop()
  await core[Symbol.asyncDispose]()
})
beforeEach(() => {
  for (const server of [upstream, trap]) {
    server.answer = null
    server.seen.length = 0
  }
})

let named = 0
const body = (more: object = {}) => ({
  name: `registry ${++named}`,
  type: 'docker-registry',
  url: upstream.url,
  credential,
  ...more,
})
const idOf = (reply: { headers: Headers }) => Number(reply.headers.get('location')?.split('/').at(-1))
async function register(more: object = {}): Promise<number> {
  const made = await core.admin('POST', '/registries', body(more))
  if (made.status !== 201) throw new Error(`not registered: ${made.status} ${made.text}`)
  return idOf(made)
}
const read = async (id: number) => (await core.admin('GET', `/registries/${id}`)).body

describe('a registry', () => {
  it('is registered when it answers and takes the credential', async () => {
    const made = await core.admin(
      'POST',
      '/registries',
      body({ name: 'first', url: `${upstream.url}/?x=1`, description: 'd' }),
    )
    expect([made.status, made.headers.get('location')]).toEqual([
      201,
      expect.stringMatching(/^\/api\/v2\.0\/registries\/\d+$/),
    ])
    expect(upstream.secretsSeen).toHaveLength(1)
    expect(await read(idOf(made))).toEqual({
      id: idOf(made),
      name: 'first',
      type: 'docker-registry',
      url: upstream.url,
      description: 'd',
      credential: { type: 'basic', access_key: 'robot', access_secret: '*****' },
      status: 'healthy',
      creation_time: expect.any(String) as unknown,
      update_time: expect.any(String) as unknown,
    })
    const again = await core.admin('POST', '/registries', body({ name: 'first' }))
    expect([again.status, again.text]).toEqual([409, expect.stringContaining('registry first already exists')])
  })

  it('is refused when it does not take the credential, does not answer or is no registry', async () => {
    const wrong = await core.admin('POST', '/registries', body({ credential: { ...credential, access_secret: 'x' } }))
    expect([wrong.status, wrong.text]).toEqual([400, expect.stringContaining('the registry is unhealthy')])
    const away = await core.admin('POST', '/registries', body({ url: `http://127.0.0.1:${await freePort()}` }))
    expect([away.status, away.text]).toEqual([400, expect.stringContaining('the registry is unhealthy')])
    upstream.answer = (_req, res) => res.writeHead(404).end(`who answers is told ${SECRET}`)
    const other = await core.admin('POST', '/registries', body())
    expect([other.status, other.text]).toEqual([400, expect.not.stringContaining(SECRET)])
  })

  it.each<[string, object]>([
    ['no name', { name: ' ' }],
    ['a name of 65 characters', { name: 'x'.repeat(65) }],
    ['an unknown type', { type: 'helm-hub' }],
    ['a type of every object', { type: 'constructor' }],
    ['no type', { type: '' }],
    ['no url', { url: '' }],
    ['another scheme', { url: 'file:///etc/passwd' }],
    ['a user in the url', { url: 'http://a:b@127.0.0.1' }],
    ['a line break in the url', { url: 'http://127.0.0.1/\r\nX: y' }],
    ['a long url', { url: `http://127.0.0.1/${'x'.repeat(256)}` }],
    ['an unknown type of credential', { credential: { ...credential, type: 'secret' } }],
    ['a long secret', { credential: { ...credential, access_secret: 'x'.repeat(4097) } }],
    ['what is no certificate', { ca_certificate: 'x' }],
    ['an address that is not the one of its type', { type: 'docker-hub' }],
    ['a file that names no account', { type: 'quay', credential: { ...credential, access_key: 'json_file' } }],
  ])('is refused with %s', async (_, wrong) => {
    const reply = await core.admin('POST', '/registries', body(wrong))
    expect(reply.status).toBe(400)
    expect(upstream.seen).toEqual([])
  })

  it('may want no credential, or a token, or a file that names the account', async () => {
    expect(await read(await register({ credential: undefined }))).not.toHaveProperty('credential')
    const file = JSON.stringify({ account_name: 'robot', docker_cli_password: SECRET })
    await register({ type: 'quay', credential: { access_key: 'json_file', access_secret: file } })
    upstream.answer = (req, res) => res.writeHead(req.headers.authorization === 'Bearer t' ? 200 : 401).end()
    await register({ credential: { type: 'oauth', access_secret: 't' } })
  })

  it('is changed field by field, and must answer when how it is reached changes', async () => {
    const id = await register()
    const put = (change: object) => core.admin('PUT', `/registries/${id}`, change)
    expect((await put({ name: 'renamed', description: 'why', url: null })).status).toBe(200)
    expect(await read(id)).toMatchObject({ name: 'renamed', description: 'why', url: upstream.url })
    expect((await put({ access_secret: 'wrong' })).status).toBe(400)
    expect((await put({ access_secret: '*****', access_key: 'robot' })).status).toBe(200)
    upstream.answer = (_req, res) => res.writeHead(503).end()
    expect((await put({ description: 'it is away' })).status).toBe(200)
    expect(await read(id)).toMatchObject({ description: 'it is away', status: 'unhealthy' })
    const taken = await core.admin('POST', '/registries', body({ name: 'taken', url: trap.url }))
    expect(taken.status).toBe(201)
    expect((await put({ name: 'taken' })).status).toBe(409)
    expect((await core.admin('PUT', '/registries/999999', { name: 'x' })).status).toBe(404)
    expect((await core.admin('PUT', '/registries/0', { name: 'x' })).status).toBe(404)
  })

  it('is never a mixture of what two people wrote', async () => {
    const id = await register()
    const holding = Promise.withResolvers<ServerResponse>()
    upstream.answer = (_req, res) => holding.resolve(res)
    const slow = core.admin('PUT', `/registries/${id}`, { access_key: 'other' })
    const held = await holding.promise
    upstream.answer = null
    expect((await core.admin('PUT', `/registries/${id}`, { url: trap.url })).status).toBe(200)
    held.writeHead(200).end()
    expect((await slow).status).toBe(409)
    expect(await read(id)).toMatchObject({ url: trap.url, credential: { access_key: 'robot' } })
  })

  it('is deleted unless a project pulls through it', async () => {
    const id = await register()
    const project = await core.db.prisma.project.create({
      data: { name: 'mirror', nameKey: 'mirror', ownerId: 1, registryId: id },
    })
    const used = await core.admin('DELETE', `/registries/${id}`)
    expect([used.status, used.text]).toEqual([412, expect.stringContaining('project mirror')])
    expect(await read(id)).toMatchObject({ id })
    await core.db.prisma.project.update({ where: { id: project.id }, data: { deletedAt: new Date(), nameKey: null } })
    expect((await core.admin('DELETE', `/registries/${id}`)).status).toBe(200)
    expect((await core.admin('DELETE', `/registries/${id}`)).status).toBe(404)
    expect((await core.admin('DELETE', '/registries/0')).status).toBe(404)
  })

  it('is listed by part of the name, query, order and page', async () => {
    for (const name of ['list-a', 'list-b', 'LIST-c']) await register({ name })
    const names = async (query: string) => {
      const reply = await core.admin('GET', `/registries?${query}`)
      return [reply.headers.get('x-total-count'), ...(reply.body as { name: string }[]).map(({ name }) => name)]
    }
    expect(await names('name=list&sort=-name')).toEqual(['3', 'list-b', 'list-a', 'LIST-c'])
    expect(await names('name=list&page_size=1&page=2')).toEqual(['3', 'list-b'])
    expect(await names('q=name%3D~st-a')).toEqual(['1', 'list-a'])
    expect(await names('q=name%3D~st-,type%3Dharbor')).toEqual(['0'])
    expect(await names('q=access_secret%3D~v1,name%3Dlist-a')).toEqual(['1', 'list-a'])
  })

  it('tells what policies about it may say, and forms about its type', async () => {
    const id = await register()
    expect((await core.admin('GET', `/registries/${id}/info`)).body).toMatchObject({
      type: 'docker-registry',
      supported_triggers: ['manual', 'scheduled'],
    })
    expect((await core.admin('GET', '/registries/0/info')).body).toMatchObject({
      type: 'harbor',
      supported_triggers: ['manual', 'scheduled', 'event_based'],
      supported_copy_by_chunk: true,
    })
    expect((await core.admin('GET', '/registries/0')).body).toMatchObject({ id: 0, name: 'Local', type: 'harbor' })
    expect((await core.admin('GET', '/registries/999999/info')).status).toBe(404)
    expect((await core.admin('GET', '/registries/99999999999')).status).toBe(404)
    const types = (await core.admin('GET', '/replication/adapters')).body as string[]
    expect(types).toEqual(expect.arrayContaining(['docker-registry', 'harbor', 'docker-hub']))
    const infos = (await core.admin('GET', '/replication/adapterinfos')).body as object
    expect(Object.keys(infos).filter((type) => !types.includes(type))).toEqual([])
    expect(infos).toMatchObject({
      'docker-hub': { endpoint_pattern: { endpoint_type: 'EndpointPatternTypeFix' } },
      quay: { credential_pattern: { access_key_data: 'json_file' } },
    })
  })

  it('is told of in the outbox, by the names of what changed', async () => {
    const id = await register({ name: 'told' })
    await core.admin('PUT', `/registries/${id}`, { access_secret: SECRET, insecure: true })
    await core.admin('DELETE', `/registries/${id}`)
    const events = await core.db.prisma.outboxEvent.findMany({
      where: { type: { startsWith: 'haven.events.v1.Registry' } },
      orderBy: { id: 'desc' },
      take: 3,
    })
    const registry = { id: String(id), name: 'told' }
    expect(events.map(({ type, payload }) => [type.split('.').at(-1), payload])).toMatchObject([
      ['RegistryDeleted', { registry }],
      ['RegistryUpdated', { registry, fields: ['insecure', 'access_secret'] }],
      ['RegistryCreated', { registry }],
    ])
  })

  it('is asked after, and keeps its time of change', async () => {
    const id = await register()
    const key = encryptionKey(Buffer.alloc(32, 7).toString('base64'))
    const sealer = { seal: (plain: string) => seal(key, plain), open: (sealed: string) => open(key, sealed) }
    const check = (allow: string[]) =>
      checkRegistries({ db: core.db, sealer, outbound: new OutboundClient({ allow }) }, new AbortController().signal)
    const before = (await read(id)) as { update_time: string }
    await check([]) // where this address may not be reached
    expect(await read(id)).toMatchObject({ status: 'unhealthy', update_time: before.update_time })
    await check(['127.0.0.1'])
    expect(await read(id)).toMatchObject({ status: 'healthy' })
    upstream.answer = (_req, res) => res.writeHead(500).end()
    await check(['127.0.0.1'])
    expect(await read(id)).toMatchObject({ status: 'unhealthy' })
    await expect(
      checkRegistries({ db: core.db, sealer, outbound: new OutboundClient({ allow: [] }) }, AbortSignal.abort()),
    ).rejects.toThrow()
  })
})

describe('who may', () => {
  it.each([
    ['GET', '/registries'],
    ['POST', '/registries'],
    ['POST', '/registries/ping'],
    ['GET', '/registries/1'],
    ['PUT', '/registries/1'],
    ['DELETE', '/registries/1'],
    ['GET', '/registries/1/info'],
    ['GET', '/registries/999999'],
    ['GET', '/replication/adapters'],
    ['GET', '/replication/adapterinfos'],
  ])('A27: %s %s is not for everybody', async (method, path) => {
    const as = (who: Credentials) =>
      core.send(method, `/api/v2.0${path}`, { as: who, ...(method.startsWith('P') && { body: {} }) })
    expect([(await as(user)).status, (await as(null)).status]).toEqual([403, 401])
  })
})

describe('a ping', () => {
  const ping = (sent: object) => core.admin('POST', '/registries/ping', sent)

  it('tries what is not registered yet', async () => {
    const plain = { type: 'docker-registry', url: upstream.url }
    expect((await ping({ ...plain, access_key: 'robot', access_secret: SECRET })).status).toBe(200)
    expect((await ping({ ...plain, access_key: 'robot', access_secret: 'no' })).status).toBe(400)
    expect((await ping(plain)).status).toBe(200)
    expect((await ping({ url: upstream.url })).status).toBe(400)
    expect((await ping({ type: 'docker-registry' })).status).toBe(400)
  })

  it('tries what is registered, with another credential perhaps', async () => {
    const id = await register()
    expect((await ping({ id })).status).toBe(200)
    expect((await ping({ id, access_secret: 'no' })).status).toBe(400)
    expect((await ping({ id: 999999 })).status).toBe(404)
  })
})

describe('a stored secret', () => {
  it('A92: is not tried at an address that a ping names', async () => {
    const id = await register()
    upstream.seen.length = 0
    for (const sent of [
      { id, url: trap.url },
      { id: 0, url: trap.url, type: 'harbor' },
    ]) {
      await core.admin('POST', '/registries/ping', sent)
    }
    expect(trap.seen).toEqual([])
    expect(upstream.secretsSeen).not.toEqual([])
  })

  it('A92: stays behind when the address changes, unless it is sent again', async () => {
    const id = await register()
    trap.answer = (_req, res) => res.writeHead(200).end()
    expect((await core.admin('PUT', `/registries/${id}`, { url: trap.url })).status).toBe(200)
    expect((await core.admin('PUT', `/registries/${id}`, { url: upstream.url })).status).toBe(200)
    expect((await core.admin('POST', '/registries/ping', { id })).status).toBe(200)
    expect([...trap.secretsSeen, ...upstream.secretsSeen.slice(1)]).toEqual([])
    const now = (await read(id)) as { credential: object }
    expect(now.credential).toEqual({ type: 'basic', access_key: 'robot' })
    const sent = { url: `${upstream.url}/below`, access_secret: SECRET }
    expect((await core.admin('PUT', `/registries/${id}`, sent)).status).toBe(200)
    expect((await read(id)) as object).toMatchObject({ credential: { access_secret: '*****' } })
  })

  it.each([{ insecure: true }, { credential_type: 'oauth' }, { ca_certificate: 'pem' }])(
    'A92: must be sent again with %j',
    async (given) => {
      const id = await register()
      upstream.seen.length = 0
      const change = 'ca_certificate' in given ? { ca_certificate: CERTIFICATE } : given
      const refused = await core.admin('PUT', `/registries/${id}`, change)
      expect([refused.status, refused.text]).toEqual([400, expect.stringContaining('access_secret must be sent again')])
      expect(upstream.seen).toEqual([])
    },
  )

  it('A93: is sealed, and in no answer and no event', async () => {
    const id = await register()
    await core.admin('PUT', `/registries/${id}`, { access_secret: SECRET, access_key: 'robot' })
    const answers = [await core.admin('GET', `/registries/${id}`), await core.admin('GET', '/registries?page_size=100')]
    expect(answers.map(({ text }) => text).join('')).not.toContain(SECRET)
    const rows = await core.db.prisma.registryEndpoint.findMany()
    const events = await core.db.prisma.outboxEvent.findMany()
    expect(JSON.stringify([rows, events.map(({ payload }) => payload)])).not.toContain(SECRET)
    expect(rows.filter(({ accessSecret }) => accessSecret !== null).length).toBeGreaterThan(0)
  })

  it('does not follow a redirect to another place', async () => {
    upstream.answer = (_req, res) => res.writeHead(302, { location: `${trap.url}/v2/` }).end()
    await core.admin('POST', '/registries', body({ credential: { ...credential, type: 'oauth' } }))
    expect(upstream.secretsSeen).not.toEqual([])
    expect(trap.secretsSeen).toEqual([])
  })
})

describe('A91: an address inside', () => {
  let closed: TestCore
  beforeAll(async () => {
    closed = await startCore()
  })
  afterAll(async () => {
    await closed[Symbol.asyncDispose]()
  })

  const port = () => new URL(trap.url).port
  it.each([
    () => trap.url,
    () => `http://localhost:${port()}`,
    () => `http://[::1]:${port()}`,
    () => `http://[::ffff:127.0.0.1]:${port()}`,
    () => `http://2130706433:${port()}`,
    () => `http://0177.1:${port()}`,
    () => `http://0:${port()}`,
    () => 'http://169.254.169.254/latest',
    () => 'gopher://127.0.0.1',
    () => 'unix:/var/run/docker.sock',
  ])('is refused when it is registered and when it is pinged', async (url) => {
    const made = await closed.admin('POST', '/registries', body({ url: url() }))
    const pinged = await closed.admin('POST', '/registries/ping', { type: 'harbor', url: url() })
    expect([made.status, pinged.status, trap.seen]).toEqual([400, 400, []])
  })
})

const lack = lacking('registry')
const suite = lack ? describe.skip : describe
suite(titled('Distribution 3', lack), () => {
  let folder: string
  let stop: () => Promise<void>
  let url: string

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'haven-distribution-'))
    const htpasswd = join(folder, 'htpasswd')
    // bcrypt of "secret"
    writeFileSync(htpasswd, 'robot:$2y$04$tz0jByQwvYuX0ufqiHMzOO0nyHBdVgSApsMpRweGSeQKxA.zLJZ.W\n')
    const port = await freePort()
    url = `http://127.0.0.1:${port}`
    const config = join(folder, 'config.yml')
    const settings = {
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: join(folder, 'data') } },
      http: { addr: `127.0.0.1:${port}`, secret: 'test' },
      auth: { htpasswd: { realm: 'test', path: htpasswd } },
    }
    writeFileSync(config, JSON.stringify(settings)) // JSON is YAML
    const child = spawn(findTool('registry')!, ['serve', config], {
      stdio: 'ignore',
      env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
    })
    const gone = once(child, 'exit')
    stop = async () => {
      child.kill('SIGKILL')
      await gone
    }
    const answers = () => fetch(`${url}/v2/`).then(() => true, () => false) // prettier-ignore
    while (child.exitCode === null && !(await answers())) await sleep(50)
  })
  afterAll(async () => {
    await stop?.()
    rmSync(folder, { recursive: true, force: true })
  })

  it('is registered by its password, checked, pinged and lost', async () => {
    const robot = { type: 'basic', access_key: 'robot', access_secret: 'secret' }
    expect(
      (await core.admin('POST', '/registries', body({ url, credential: { ...robot, access_secret: 'x' } }))).status,
    ).toBe(400)
    const id = await register({ url, credential: robot })
    expect(await read(id)).toMatchObject({ status: 'healthy' })
    expect((await core.admin('POST', '/registries/ping', { id })).status).toBe(200)
    expect((await core.admin('POST', '/registries/ping', { id, access_secret: PASSWORD })).status).toBe(400)
    await stop()
    stop = () => Promise.resolve()
    expect((await core.admin('POST', '/registries/ping', { id })).status).toBe(400)
    expect((await core.admin('PUT', `/registries/${id}`, { description: 'gone' })).status).toBe(200)
    expect(await read(id)).toMatchObject({ status: 'unhealthy' })
  })
})

/** Of nobody: made for this test by openssl, for a day. */
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUIpwk8xuSe9VPkvdsoLwp02v0hqIwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbm9ib2R5MB4XDTI2MTEyNTIyNDYwOVoXDTI2MTEyNjIyNDYw
OVowETEPMA0GA1UEAwwGbm9ib2R5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
zlttHL5KPSP0fsFylcDdLR3sgCvDgUXSrDg78NVkbbCsmKibanYoyKVB5q5Rken5
oIkepnXoT/v8LUV4Jd5raqNTMFEwHQYDVR0OBBYEFNO8pOHDWeYokOUFzn++CP1L
7JvHMB8GA1UdIwQYMBaAFNO8pOHDWeYokOUFzn++CP1L7JvHMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAPD5a9s0fyRNLJIZoWta1+/2tonR26uo
K2linUO90tEfAiBZjxjx9WdEHvXPJDS3aSKjs6ZN4ElkBQCPwmvfwyU0gg==
-----END CERTIFICATE-----
`
