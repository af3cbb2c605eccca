import { createHash, randomBytes, randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { ArtifactPolicies } from '@haven/artifacts'
import { readConfig } from '@haven/config'
import {
  Authorities,
  decide,
  ensurePresets,
  ensureSigningKey,
  hashPassword,
  roles,
  signIn,
  signInDeps,
  SigningKeys,
  TokenIssuer,
  TokenVerifier,
  type Principal,
  type TokenPrincipal,
} from '@haven/identity'
import { parseScopes, splitProject, type RepositoryName } from '@haven/oci'
import { createProject, ProjectDirectory } from '@haven/projects'
import {
  createLogger,
  createMetrics,
  listen,
  open,
  seal,
  type Metrics,
  type RequestHandler,
  type Service,
} from '@haven/runtime'
import { Settings } from '@haven/settings'
import { MemoryStorage, type BlobStorage } from '@haven/storage'
import { testDatabase } from '@haven/testkit'
import { registryConfig, type RegistrySettings } from '../src/config.ts'
import { createRegistry } from '../src/service.ts'

export const password = 'Correct-Horse-9'

/** Names of people and what they hold in the project `acme`. */
const people = {
  admin: null,
  dora: 'developer',
  mia: 'maintainer',
  gus: 'guest',
  stranger: null,
} as const
export type Person = keyof typeof people

export type Answer = { status: number; headers: Headers; body: Buffer; json: () => any }
export type Ask = {
  as?: Person | 'anonymous' | 'nobody'
  /** Scopes of the token; by default what the request needs. */
  scope?: string
  basic?: boolean
  headers?: Record<string, string>
  body?: Uint8Array | string | ReadableStream
  signal?: AbortSignal
}

/**
 * The registry over HTTP on a database of its own, with a project `acme` (private), `other` (private) and `open` (public).
 * `copies` replicas share database and store; `urls[i]` is the i-th.
 */
export async function startRegistry(
  options: {
    copies?: number
    storage?: BlobStorage
    settings?: Partial<RegistrySettings>
    /** Of each replica, beside those of all. */
    eachSettings?: readonly Partial<RegistrySettings>[]
    policies?: ArtifactPolicies
  } = {},
) {
  const database = await testDatabase()
  const { db } = database
  await ensurePresets(db)
  const key = randomBytes(32)
  const sealer = { seal: (plain: string) => seal(key, plain), open: (sealed: string) => open(key, sealed) }
  await ensureSigningKey(db, sealer)
  const storage = options.storage ?? new MemoryStorage()
  const log = createLogger({ service: 'registry-test', level: process.env.TEST_LOG === undefined ? 'silent' : 'debug' })
  const config = readConfig(registryConfig, {
    DATABASE_URL: database.url,
    HAVEN_PROXY_SECRET: 'p'.repeat(40),
  })

  const cleanUp: (() => Promise<unknown> | void)[] = []
  const serve = async (handler: RequestHandler, { shortcut }: Service) => {
    const listening = await listen(handler, { host: '127.0.0.1', port: 0, shortcut })
    cleanUp.unshift(() => listening.drain(0))
    return `http://127.0.0.1:${listening.port}`
  }

  const projects = new ProjectDirectory(db)
  const settings = new Settings(db, sealer)
  const authorities = new Authorities(db)
  const signInWith = signInDeps(db)
  const principals: Record<string, TokenPrincipal> = { anonymous: { kind: 'anonymous' } }
  const secret = await hashPassword(password)
  for (const name of Object.keys(people)) {
    const user = await db.prisma.user.create({
      data: { username: name, usernameKey: name, credentials: { create: { kind: 'password', ...secret } } },
    })
    principals[name] = { kind: 'user', id: user.id, name }
  }
  const adminId = (principals.admin as { id: number }).id
  const source = { principal: principals.admin as Principal }
  const ids: Record<string, number> = {}
  for (const name of ['acme', 'other', 'open']) {
    const metadata = { public: String(name === 'open') }
    const project = await createProject({ db, directory: projects }, source, { name, ownerId: adminId, metadata })
    ids[name] = project.id
  }
  await db.prisma.grant.create({
    data: { principalKind: 'user', principalId: adminId, nodeKind: 'system', roleId: roles.systemAdmin.id },
  })
  for (const [name, role] of Object.entries(people)) {
    if (role === null) continue
    const principalId = (principals[name] as { id: number }).id
    await db.prisma.grant.create({
      data: { principalKind: 'user', principalId, nodeKind: 'project', projectId: ids.acme!, roleId: roles[role].id },
    })
  }
  projects.forget()

  const issuer = new TokenIssuer(new SigningKeys(db, sealer))
  const issue = async (principal: TokenPrincipal, scopes: string | string[]) => {
    const authority = await authorities.of(principal)
    const known = new Map<string, number>()
    const access = []
    for (const { type, name, actions } of parseScopes(scopes)) {
      const parts = type === 'repository' ? splitProject(name as RepositoryName) : null
      const project = parts && (await projects.byName(parts.project))
      if (!project || !parts) {
        access.push({ type, name, actions: type === 'registry' ? actions : [] })
        continue
      }
      known.set(parts.project, project.id)
      const allowed = actions.filter(
        (action) =>
          decide(authority, { resource: 'repository', action, on: { project, repository: parts.path } }).allowed,
      )
      access.push({ type, name, actions: allowed })
    }
    return (await issuer.issue(principal, access, { lifetimeMs: 600_000, projects: known })).token
  }

  /** The token service as far as clients of the registry need one. */
  const answerToken = async (req: IncomingMessage) => {
    const query = new URL(req.url ?? '', 'http://token').searchParams
    const basic = /^Basic (.+)$/.exec(req.headers.authorization ?? '')?.[1]
    const [name = '', given = ''] = basic ? Buffer.from(basic, 'base64').toString().split(':') : []
    const principal = basic
      ? await signIn(signInWith, { name, password: given, address: '127.0.0.1' })
      : { kind: 'anonymous' as const }
    return { token: await issue(principal, query.getAll('scope')) }
  }

  const urls: string[] = []
  const services: Awaited<ReturnType<typeof createRegistry>>[] = []
  const metrics: Metrics[] = []
  for (let copy = 0; copy < (options.copies ?? 1); copy++) {
    const counts = createMetrics()
    metrics.push(counts)
    const service = createRegistry({
      config: { ...config, ...options.settings, ...options.eachSettings?.[copy] },
      settings,
      db,
      storage,
      projects,
      authorities,
      tokens: new TokenVerifier(new SigningKeys(db)),
      signIn: signInWith,
      log,
      metrics: counts,
      trust: { proxySecret: config.proxySecret },
      ...(options.policies && { policies: options.policies }),
    })
    services.push(service)
    cleanUp.push(async () => service[Symbol.asyncDispose]())
    urls.push(
      await serve((req, res) => {
        if (!req.url?.startsWith('/service/token')) return service.handler(req, res)
        answerToken(req).then(
          (token) => res.end(JSON.stringify(token)),
          () => res.writeHead(401).end(),
        )
      }, service),
    )
  }

  const tokens = new Map<string, string>()
  const tokenFor = async (who: string, scope: string) => {
    const kept = `${who} ${scope}`
    const token = tokens.get(kept) ?? (await issue(principals[who]!, scope))
    tokens.set(kept, token)
    return token
  }

  /** One request to the registry (`copy` 0 unless said otherwise). */
  async function ask(method: string, path: string, given: Ask = {}, copy = 0): Promise<Answer> {
    const { as = 'mia', body } = given
    const headers: Record<string, string> = { ...given.headers }
    const name = /^\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(path)?.[1]
    if (given.basic) headers.authorization = `Basic ${Buffer.from(`${as}:${password}`).toString('base64')}`
    else if (as !== 'nobody') {
      const scope = given.scope ?? (name ? `repository:${name}:pull,push,delete` : 'registry:catalog:*')
      headers.authorization = `Bearer ${await tokenFor(as, scope)}`
    }
    const response = await fetch(urls[copy] + path, {
      method,
      headers,
      redirect: 'manual',
      ...(body !== undefined && { body: body as string, duplex: 'half' }),
      ...(given.signal && { signal: given.signal }),
    })
    const bytes = Buffer.from(await response.arrayBuffer())
    return { status: response.status, headers: response.headers, body: bytes, json: () => JSON.parse(bytes.toString()) }
  }

  /** Pushes a blob in one POST. */
  async function pushBlob(repository: string, bytes: Uint8Array, given: Ask = {}): Promise<string> {
    const digest = sha256(bytes)
    const pushed = await ask('POST', `/v2/${repository}/blobs/uploads/?digest=${digest}`, { ...given, body: bytes })
    if (pushed.status !== 201) throw new Error(`push of a blob: ${pushed.status} ${pushed.body.toString()}`)
    return digest
  }

  /** Pushes an image with a config and a layer of its own. */
  async function pushImage(repository: string, tag: string, given: Ask & { layer?: Uint8Array; extra?: object } = {}) {
    const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', id: randomUUID() }))
    const layer = given.layer ?? randomBytes(1000)
    const manifest = imageManifest(config, layer, given.extra)
    await pushBlob(repository, config, given)
    const layerDigest = await pushBlob(repository, layer, given)
    const put = await ask('PUT', `/v2/${repository}/manifests/${tag}`, {
      ...given,
      body: manifest,
      headers: { 'content-type': ociManifest, ...given.headers },
    })
    return { put, manifest, digest: sha256(manifest), layer, layerDigest, config, configDigest: sha256(config) }
  }

  return {
    ...database,
    db,
    storage,
    urls,
    ids,
    services,
    projects,
    settings,
    authorities,
    principals,
    ask,
    issue,
    pushBlob,
    pushImage,
    metrics,
    /** What is remembered of rights and projects for some seconds. */
    forget() {
      projects.forget()
      authorities.forget()
    },
    async [Symbol.asyncDispose]() {
      for (const stop of cleanUp) await stop()
      projects[Symbol.dispose]()
      authorities[Symbol.dispose]()
      signInWith[Symbol.dispose]()
      await database[Symbol.asyncDispose]()
    },
  }
}

export type TestRegistry = Awaited<ReturnType<typeof startRegistry>>

export const ociManifest = 'application/vnd.oci.image.manifest.v1+json'
export const ociIndex = 'application/vnd.oci.image.index.v1+json'

export const sha256 = (bytes: Uint8Array | string) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
export const sha512 = (bytes: Uint8Array | string) => `sha512:${createHash('sha512').update(bytes).digest('hex')}`

export function imageManifest(config: Uint8Array, layer: Uint8Array, extra: object = {}): Buffer {
  return Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: ociManifest,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: sha256(config), size: config.length },
      layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: sha256(layer), size: layer.length }],
      ...extra,
    }),
  )
}

export function indexOf(manifests: { digest: string; size: number; mediaType?: string }[], extra: object = {}): Buffer {
  const entries = manifests.map((entry) => ({ mediaType: ociManifest, ...entry }))
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: ociIndex, manifests: entries, ...extra }))
}
