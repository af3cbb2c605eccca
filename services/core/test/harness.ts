import { createHash } from 'node:crypto'
import { Redis } from 'ioredis'
import {
  adminGroupOf,
  Authorities,
  LdapClient,
  OidcClient,
  oidcProviderOf,
  signInDeps,
  signInDirectory,
} from '@haven/identity'
import { OutboundClient, outboundConfig } from '@haven/outbound'
import { ProjectDirectory } from '@haven/projects'
import { Queue } from '@haven/queue'
import { createLogger, createMetrics, encryptionKey, listen, open, seal } from '@haven/runtime'
import { Settings } from '@haven/settings'
import { MemoryStorage } from '@haven/storage'
import { testDatabase, testRedis } from '@haven/testkit'
import { readConfig } from '@haven/config'
import { checkResponse, operations } from '@haven/proto'
import { coreConfig } from '../src/config.ts'
import { RouteTable } from '../src/router.ts'
import { createCore } from '../src/service.ts'

export const ADMIN = { name: 'admin', password: 'Harbor12345' }
export const PASSWORD = 'Passw0rd'
export const PROXY_SECRET = 'p'.repeat(40)
export const SERVICE_SECRET = 'j'.repeat(40)

export type Reply = { status: number; headers: Headers; body: unknown; text: string; cookies: string[] }
export type Credentials = { name: string; password: string } | null
type Sent = { as?: Credentials; body?: unknown; raw?: string; headers?: Record<string, string> }

const routes = new RouteTable(Object.values(operations).filter((operation) => operation.api !== 'oci'))

/** Every answer that a test sees is one that the contract promises. */
function requireContract(method: string, path: string, { status, headers, body, text }: Reply) {
  const match = URL.canParse(path, 'http://core') ? routes.find(method, new URL(path, 'http://core').pathname) : null
  if (!match || !('operation' in match)) return
  const type = headers.get('content-type') ?? undefined
  if (text === '' && type === 'text/plain') return // an empty text: a log that has no line yet
  const wrong = checkResponse(match.operation, status, body ?? (text === '' ? undefined : text), type)
  if (wrong.length > 0) throw new Error(`against the contract: ${wrong.join('; ')}`)
}

/** Core on a port of its own, over a database and Redis keys of its own. */
export async function startCore(env: Record<string, string> = {}) {
  const database = await testDatabase()
  const { url: redisUrl, prefix } = testRedis()
  const redis = new Redis(redisUrl, { maxRetriesPerRequest: 1 })
  const { db } = database
  const config = readConfig(coreConfig, {
    DATABASE_URL: database.url,
    REDIS_URL: redisUrl,
    HAVEN_PROXY_SECRET: PROXY_SECRET,
    CORE_SECRET: 'c'.repeat(40),
    JOBSERVICE_SECRET: SERVICE_SECRET,
    HAVEN_ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
    HAVEN_ADMIN_PASSWORD: ADMIN.password,
    ...env,
  })
  const queue = new Queue({ db, redisUrl, prefix, onFailure: () => undefined })
  const projects = new ProjectDirectory(db)
  const key = encryptionKey(config.encryptionKey)
  const sealer = { seal: (plain: string) => seal(key, plain), open: (sealed: string) => open(key, sealed) }
  const settings = new Settings(db, sealer)
  const authorities = new Authorities(db, { adminGroup: async () => adminGroupOf(await settings.read()) })
  const robotPrefix = async () => (await settings.read()).robot_name_prefix
  const outbound = new OutboundClient(readConfig(outboundConfig, env))
  const ldap = new LdapClient(outbound)
  const directory = async () => signInDirectory(await settings.read())
  const provider = async () => oidcProviderOf(await settings.read())
  const oidc = { client: new OidcClient(outbound), sealer, provider }
  const signIn = signInDeps(db, { redis, redisPrefix: prefix, robotPrefix, ldap: { client: ldap, directory }, oidc })
  const storage = new MemoryStorage()
  const core = createCore({
    config,
    db,
    storage,
    sealer,
    settings,
    redis,
    redisPrefix: prefix,
    projects,
    authorities,
    signIn,
    queue,
    outbound,
    ldap,
    log: createLogger({ service: 'core', level: 'silent' }),
    metrics: createMetrics(),
    trust: { proxySecret: PROXY_SECRET },
  })
  const close = async () => {
    await core[Symbol.asyncDispose]()
    await queue[Symbol.asyncDispose]()
    settings[Symbol.dispose]()
    projects[Symbol.dispose]()
    authorities[Symbol.dispose]()
    await signIn[Symbol.asyncDispose]()
    redis.disconnect()
    await database[Symbol.asyncDispose]()
  }
  await Promise.resolve(core.start?.()).catch(async (error: unknown) => {
    await close()
    throw error
  })
  const server = await listen(core.handler, { host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${server.port}`

  const send = async (
    method: string,
    path: string,
    { as = null, body, raw, headers = {} }: Sent = {},
  ): Promise<Reply> => {
    const response = await fetch(url + path, {
      method,
      redirect: 'manual',
      headers: {
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
        ...(as && { Authorization: `Basic ${Buffer.from(`${as.name}:${as.password}`).toString('base64')}` }),
        ...headers,
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(raw !== undefined && { body: raw }),
    })
    const text = await response.text()
    const json = (response.headers.get('content-type') ?? '').includes('json') && text !== ''
    const reply: Reply = {
      status: response.status,
      headers: response.headers,
      text,
      body: json ? (JSON.parse(text) as unknown) : undefined,
      cookies: response.headers.getSetCookie(),
    }
    requireContract(method, path, reply)
    return reply
  }

  const admin = (method: string, path: string, body?: unknown) =>
    send(method, `/api/v2.0${path}`, { as: ADMIN, ...(body !== undefined && { body }) })

  return {
    url,
    db,
    storage,
    authorities,
    directory: projects,
    signIn,
    settings,
    send,
    admin,
    /** How long a session may still be idle. */
    idleMs: (sid: string) => redis.pttl(`${prefix}:session:${createHash('sha256').update(sid).digest('base64url')}`),
    /** An account, whose credentials are the answer. */
    async user(name: string) {
      const made = await admin('POST', '/users', {
        username: name,
        email: `${name}@example.com`,
        realname: name,
        password: PASSWORD,
      })
      if (made.status !== 201) throw new Error(`no user ${name}: ${made.status} ${made.text}`)
      return { name, password: PASSWORD, id: Number(made.headers.get('location')?.split('/').at(-1)) }
    },
    async project(name: string, as: Credentials = ADMIN, more: object = {}) {
      const made = await send('POST', '/api/v2.0/projects', { as, body: { project_name: name, ...more } })
      if (made.status !== 201) throw new Error(`no project ${name}: ${made.status} ${made.text}`)
      return Number(made.headers.get('location')?.split('/').at(-1))
    },
    async [Symbol.asyncDispose]() {
      await server.drain(1_000)
      await close()
    },
  }
}

export type TestCore = Awaited<ReturnType<typeof startCore>>

/** A browser: keeps cookies, and sends the token of the last answer with what changes something. */
export class Browser {
  readonly cookies = new Map<string, string>()
  token: string | null = null
  readonly #core: TestCore

  constructor(core: TestCore) {
    this.#core = core
  }

  async send(method: string, path: string, sent: Sent & { withToken?: boolean } = {}): Promise<Reply> {
    const { withToken = true, ...rest } = sent
    const reply = await this.#core.send(method, path, {
      ...rest,
      headers: {
        Cookie: [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; '),
        ...(withToken && this.token !== null && method !== 'GET' && { 'X-Harbor-CSRF-Token': this.token }),
        ...rest.headers,
      },
    })
    for (const cookie of reply.cookies) {
      const [name = '', value = ''] = (cookie.split(';', 1)[0] ?? '').split('=', 2)
      if (value === '') this.cookies.delete(name)
      else this.cookies.set(name, value)
    }
    this.token = reply.headers.get('x-harbor-csrf-token') ?? this.token
    return reply
  }

  async login(name: string, password: string): Promise<Reply> {
    if (this.token === null) await this.send('GET', '/c/log_out')
    return this.send('POST', '/c/login', {
      raw: new URLSearchParams({ principal: name, password }).toString(),
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    })
  }
}
