import { createClient } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals'
import { FindingKind, RegistryControl, RepairAction } from '@haven/proto/rpc'
import { createLogger, createMetrics, listen, type Listening, type Service } from '@haven/runtime'
import { MemoryStorage, newObjectKey } from '@haven/storage'
import { testDatabase, type TestDatabase } from '@haven/testkit'
import { createRegistryctl } from '../src/service.ts'

const secret = 's'.repeat(40)
const digest = (n: number) => `sha256:${String(n).padStart(64, '0')}`
let database: TestDatabase
let storage: MemoryStorage
let service: Service
let listening: Listening
let base: string

beforeAll(async () => {
  database = await testDatabase()
  storage = new MemoryStorage()
  service = createRegistryctl({
    settings: { secret, trashMs: 3_600_000 },
    db: database.db,
    storage,
    log: createLogger({ service: 'registryctl', level: 'silent' }),
    metrics: createMetrics(),
    trust: { proxySecret: null },
  })
  listening = await listen(service.handler, { host: '127.0.0.1', port: 0 })
  base = `http://127.0.0.1:${listening.port}`
})
afterAll(async () => {
  await listening.drain(1000)
  await service[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

const client = (shown = secret) =>
  createClient(
    RegistryControl,
    createConnectTransport({
      baseUrl: base,
      httpVersion: '1.1',
      interceptors: [
        (next) => (request) => {
          request.header.set('authorization', `Harbor-Secret ${shown}`)
          return next(request)
        },
      ],
    }),
  )
const call = (method: string, path: string, authorization = `Harbor-Secret ${secret}`) =>
  fetch(base + path, { method, headers: { authorization } })

async function put(bytes = Buffer.from('bytes')): Promise<string> {
  const key = newObjectKey()
  const source = (async function* () {
    yield bytes
  })()
  const { state } = await storage.append(key, null, 0, source)
  await storage.complete(key, state, bytes.length)
  return key
}
const trash = async (n: number, eraseAfter = new Date(0)) => {
  const key = await put()
  await database.db.prisma.trashedObject.create({
    data: { key, store: 'memory', digest: digest(n), sizeBytes: 5n, reason: 'test', eraseAfter },
  })
  return key
}
async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of source) items.push(item)
  return items
}
const later = () => new Date(Date.now() + 3_600_000)

describe('registryctl', () => {
  it('tells anybody that it lives, and nothing else to who does not show the secret', async () => {
    const health = await fetch(`${base}/api/health`)
    expect([health.status, await health.json()]).toEqual([200, 'healthy'])
    for (const wrong of ['', 'Harbor-Secret ', `Harbor-Secret ${secret}x`, `Bearer ${secret}`]) {
      expect((await call('DELETE', `/api/registry/blob/${digest(1)}`, wrong)).status).toBe(401)
    }
    await expect(client('x'.repeat(40)).statistics({})).rejects.toThrow(/unauthorized|401|unauthenticated/i)
    expect((await call('GET', '/api/nonsense')).status).toBe(404)
    for (const check of Object.values(service.checks)) await check()
  })

  it('erases what is due, as a stream of counts, and leaves what is not', async () => {
    for (let n = 0; n < 250; n++) await trash(n)
    const kept = await trash(999, later())
    const [dry] = await all(client().erase({ dryRun: true }))
    expect(dry).toMatchObject({ erased: 0n, remaining: 250n, skipped: 1n })
    const limited = await all(client().erase({ limit: 10 }))
    expect(limited.at(-1)).toMatchObject({ erased: 10n, remaining: 240n })
    const answers = await all(client().erase({ workers: 3, execution: 5n }))
    expect(answers.length).toBeGreaterThan(1)
    expect(answers.at(-1)).toMatchObject({ erased: 240n, erasedBytes: 1200n, failed: 0n, remaining: 0n, skipped: 1n })
    expect(await all(storage.list())).toMatchObject([{ key: kept }])
    await expect(all(client().erase({ workers: 11 }))).rejects.toThrow('workers')
    expect((await client().statistics({})).stores).toMatchObject([
      { store: 'memory', objects: 0n, trash: 1n, trashBytes: 5n },
    ])
    expect((await all(client().erase({ keys: ['other'] }))).at(-1)).toMatchObject({ erased: 0n })
  })

  it('removes what uploads left that have ended, when it is to erase everything', async () => {
    const key = newObjectKey()
    const source = (async function* () {
      yield Buffer.from('bytes')
    })()
    await storage.append(key, null, 0, source)
    const unfinished = async () => (await all(storage.listUnfinished())).map((upload) => upload.key)
    await all(client().erase({}))
    expect(await unfinished()).toEqual([key]) // as young as a probe of the store may be
    const clock = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + 60_000)
    await all(client().erase({ limit: 5 }))
    await all(client().erase({ keys: ['other'] }))
    await all(client().erase({ dryRun: true }))
    expect(await unfinished()).toEqual([key])
    await all(client().erase({}))
    clock.mockRestore()
    expect(await unfinished()).toEqual([])
  })

  it('R11: erases nothing while a backup is being taken, and says so', async () => {
    const key = await trash(11)
    await database.db.prisma.$transaction(async (backup) => {
      await backup.$queryRaw`select pg_advisory_xact_lock(hashtext('haven.backup'))::text`
      expect(await all(client().erase({}))).toMatchObject([{ erased: 0n, remaining: 1n, held: true }])
      const refused = await call('DELETE', `/api/registry/blob/${digest(11)}`)
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '60'])
    })
    expect(await storage.stat(key)).not.toBeNull()
    expect((await call('DELETE', `/api/registry/blob/${digest(11)}`)).status).toBe(200)
    expect(await storage.stat(key)).toBeNull()
  })

  it('verifies and repairs', async () => {
    const key = newObjectKey()
    await database.db.prisma.blob.create({
      data: {
        digest: digest(1),
        sizeBytes: 5n,
        promisedUntil: later(),
        locations: { create: { store: 'memory', key } },
      },
    })
    const answers = await all(client().verify({ deep: true }))
    const findings = answers.flatMap((answer) => answer.finding ?? [])
    expect(findings).toMatchObject([{ kind: FindingKind.MISSING, digest: digest(1), key, expectedBytes: 5n }])
    const { repaired } = await client().repair({ findings })
    expect(repaired).toMatchObject([{ action: RepairAction.LOCATION_DROPPED }])
    expect(await database.db.prisma.blob.findUnique({ where: { digest: digest(1) } })).toMatchObject({
      damagedAt: expect.any(Date),
    })
    await expect(client().repair({ findings: [{ key }] })).rejects.toThrow('kind')
    await expect(all(client().verify({ store: 'tape' }))).rejects.toThrow('tape')
    await database.db.prisma.blob.deleteMany()
  })

  it("answers Harbor's two deletes", async () => {
    const { prisma } = database.db
    const project = await prisma.project.create({ data: { name: 'library', nameKey: 'library', ownerId: 1 } })
    const repository = await prisma.repository.create({ data: { projectId: project.id, path: 'deep/app' } })
    const manifest = {
      repositoryId: repository.id,
      mediaType: 'm',
      kind: 'image',
      payload: Buffer.from('{}'),
      payloadBytes: 2,
      totalBytes: 2n,
    }
    await prisma.manifest.create({ data: { ...manifest, digest: digest(10) } })
    await prisma.manifest.create({
      data: { ...manifest, digest: digest(11), deletedAt: new Date(), purgeAfter: later() },
    })
    const at = (n: number, name = 'library/deep/app') => `/api/registry/${name}/manifests/${digest(n)}`
    const statuses = async (...paths: string[]) =>
      Promise.all(paths.map(async (path) => (await call('DELETE', path)).status))
    expect(await statuses(at(10), at(11), at(12), at(11, 'other/app'))).toEqual([412, 200, 404, 404])
    expect(await prisma.manifest.count()).toBe(1)
    expect(await statuses('/api/registry/library/app/manifests/latest', '/api/registry/blob/nonsense')).toEqual([
      400, 400,
    ])

    const key = await trash(20, later())
    expect(await statuses(`/api/registry/blob/${digest(20)}`, `/api/registry/blob/${digest(21)}`)).toEqual([200, 404])
    expect(await storage.stat(key)).toBeNull()
    expect((await call('GET', `/api/registry/blob/${digest(20)}`)).status).toBe(405)
    expect((await call('POST', at(10))).status).toBe(405)
  })
})
