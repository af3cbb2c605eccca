import { readdirSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { eraseTrash } from '@haven/artifacts/gc'
import { emit } from '@haven/events'
import { Authorities, ensureSigningKey } from '@haven/identity'
import { ProjectCreatedSchema } from '@haven/proto/events'
import { OutboundClient } from '@haven/outbound'
import { RegistryControl } from '@haven/proto/rpc'
import { getExecution, listExecutions, putSchedule } from '@haven/queue'
import { createLogger, createMetrics, listen, type Listening, type Service } from '@haven/runtime'
import { Settings } from '@haven/settings'
import { MemoryStorage, newObjectKey } from '@haven/storage'
import { testDatabase, testRedis, type TestDatabase } from '@haven/testkit'
import { jobs } from '../src/gen/jobs.ts'
import type { Job } from '../src/job-deps.ts'
import { createJobservice } from '../src/service.ts'

const coreSecret = 'c'.repeat(40)
const registryctlSecret = 'r'.repeat(40)
const sealer = { seal: (plain: string) => `sealed ${plain}`, open: (sealed: string) => sealed.slice('sealed '.length) }
const digest = (n: number) => `sha256:${String(n).padStart(64, '0')}`

let database: TestDatabase
let storage: MemoryStorage
let registryctl: Server
let service: Service
let listening: Listening
let base: string
let seen: (string | null)[] = []
let away = false

/** Registryctl as the contract has it; services do not import each other. */
async function startRegistryctl(): Promise<Server> {
  const handler = connectNodeAdapter({
    routes: (router) =>
      router.service(RegistryControl, {
        statistics(_request, { requestHeader }) {
          seen.push(requestHeader.get('authorization'))
          if (away) throw new Error('away')
          return {}
        },
        async *erase() {
          const { erased, erasedBytes } = await eraseTrash(database.db, storage)
          yield {
            erased: BigInt(erased),
            erasedBytes: BigInt(erasedBytes),
            skipped: 1n,
            failed: 1n,
            failures: [{ key: 'k', reason: 'AccessDenied' }],
          }
        },
      }),
  })
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

beforeAll(async () => {
  database = await testDatabase()
  storage = new MemoryStorage()
  registryctl = await startRegistryctl()
  const { url: redisUrl, prefix: redisPrefix } = testRedis()
  const away = { name: 'away', type: 'docker-registry', url: 'http://127.0.0.1:9', health: 'healthy' }
  await database.db.prisma.registryEndpoint.create({ data: away })
  service = createJobservice({
    config: {
      coreSecret,
      registryctlUrl: `http://127.0.0.1:${(registryctl.address() as AddressInfo).port}`,
      registryctlSecret,
      storageName: 'memory',
      workers: 4,
      leaseMs: 5000,
      reconcileMs: 1000,
      blobGraceMs: 3_600_000,
      trashMs: 0,
      uploadExpiryMs: 3_600_000,
      signingKeyAgeMs: 3_600_000,
      executionsKept: 50,
    },
    settings: new Settings(database.db, sealer),
    db: database.db,
    authorities: new Authorities(database.db),
    sealer,
    outbound: new OutboundClient({ allow: [] }),
    redisUrl,
    redisPrefix,
    log: createLogger({ service: 'jobservice', level: 'silent' }),
    metrics: createMetrics(),
    trust: { proxySecret: null },
  })
  listening = await listen(service.handler, { host: '127.0.0.1', port: 0 })
  base = `http://127.0.0.1:${listening.port}/api/v1`
  // Prisma loads its compiler at its first query; Jest refuses an import that falls between two tests.
  await database.db.prisma.task.count()
  await ensureSigningKey(database.db, sealer)
  await database.db.prisma.$executeRaw`update identity.signing_keys set created_at = now() - interval '2 hours'`
  await service.start?.()
})
afterAll(async () => {
  await listening.drain(1000)
  await service[Symbol.asyncDispose]()
  registryctl.closeAllConnections()
  registryctl.close()
  await database[Symbol.asyncDispose]()
})
beforeEach(() => {
  seen = []
  away = false
})

const call = (method: string, path: string, body?: unknown, secret = coreSecret) =>
  fetch(base + path, {
    method,
    headers: { authorization: `Harbor-Secret ${secret}` },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
const submit = (parameters: object = {}, metadata: object = { kind: 'Generic' }) =>
  call('POST', '/jobs', { job: { name: 'GARBAGE_COLLECTION', parameters, metadata } })
type Stats = { job: { id: string; status: string; kind: string; name: string; parameters: object } }

async function until<T>(ask: () => Promise<T | null | false>): Promise<T> {
  for (;;) {
    const answer = await ask()
    if (answer) return answer
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
const ended = (id: string) =>
  until(async () => {
    const task = await database.db.prisma.task.findUniqueOrThrow({ where: { jobId: id }, include: { execution: true } })
    return task.execution.endedAt && getExecution(database.db, Number(task.executionId))
  })
const logOf = async (id: string) => (await call('GET', `/jobs/${id}/log`)).text()

/** A blob that nothing needs, with its bytes. */
async function garbage(n: number) {
  const key = newObjectKey()
  const source = (async function* () {
    yield Buffer.from('bytes')
  })()
  const { state } = await storage.append(key, null, 0, source)
  await storage.complete(key, state, 5)
  const place = { create: { store: 'memory', key } }
  await database.db.prisma.blob.create({
    data: { digest: digest(n), sizeBytes: 5n, promisedUntil: new Date(0), locations: place },
  })
}

describe('jobs', () => {
  it('are all in the index', async () => {
    const folder = new URL('../src/jobs/', import.meta.url)
    const files = readdirSync(folder).filter((name) => !name.includes('.test.'))
    const modules = await Promise.all(
      files.map((name) => import(new URL(name, folder).href) as Promise<{ default: Job }>),
    )
    expect(new Set(jobs)).toEqual(new Set(modules.map((module) => module.default)))
    expect(new Set(jobs.map((job) => job.type)).size).toBe(files.length)
    for (const job of jobs)
      expect(job).toMatchObject({ type: expect.stringMatching(/^[A-Z_]+$/), attempts: expect.any(Number) })
  })
})

describe('the REST API', () => {
  it('asks for the secret everywhere but at stats', async () => {
    expect((await call('GET', '/stats', undefined, 'wrong')).status).toBe(200)
    for (const [method, path] of [
      ['GET', '/jobs'],
      ['POST', '/jobs'],
      ['GET', '/config'],
      ['GET', '/stats/'],
    ] as const) {
      expect((await call(method, path, undefined, 'wrong')).status).toBe(401)
    }
    expect((await call('GET', '/config')).status).toBe(200)
    const { worker_pools: pools } = (await (await call('GET', '/stats')).json()) as { worker_pools: object[] }
    expect(pools).toMatchObject([{ concurrency: 4, job_names: jobs.map((job) => job.type), status: 'Healthy' }])
    for (const check of Object.values(service.checks)) await check()
  })

  it.each([
    [{}, 'job is required'],
    [{ job: { name: 'NOPE' } }, 'unknown'],
    [{ job: { name: 'GARBAGE_COLLECTION', metadata: { kind: 'Sometimes' } } }, 'metadata.kind'],
    [{ job: { name: 'GARBAGE_COLLECTION', metadata: { kind: 'Scheduled' } } }, 'schedule_delay'],
    [{ job: { name: 'GARBAGE_COLLECTION', metadata: { kind: 'Periodic', cron_spec: '* *' } } }, '6 fields'],
    [
      { job: { name: 'GARBAGE_COLLECTION', metadata: { kind: 'Generic' }, parameters: { workers: 'many' } } },
      'do not fit',
    ],
    [
      { job: { name: 'GARBAGE_COLLECTION', metadata: { kind: 'Generic' }, status_hook: 'http://core' } },
      'status hooks',
    ],
  ])('refuses %j', async (body, text) => {
    const answer = await call('POST', '/jobs', body)
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({ code: 400, message: expect.stringContaining(text) })
  })

  it('answers for unknown jobs and actions as Harbor does', async () => {
    expect((await call('GET', '/jobs/88888888')).status).toBe(404)
    expect((await call('GET', '/jobs/..%2Fsecret/log')).status).toBe(400)
    expect((await call('POST', '/jobs/88888888', { action: 'explode' })).status).toBe(501)
    expect((await call('GET', '/jobs?page=0')).status).toBe(400)
  })

  it('holds a delayed job, refuses a second that is to be unique, lists and stops it', async () => {
    const answer = await submit({ workers: 3 }, { kind: 'Scheduled', schedule_delay: 600 })
    expect(answer.status).toBe(202)
    const { job } = (await answer.json()) as Stats
    expect(job).toMatchObject({
      name: 'GARBAGE_COLLECTION',
      status: 'Scheduled',
      kind: 'Scheduled',
      parameters: { workers: 3 },
    })
    expect((await submit({ workers: 3 }, { kind: 'Generic', unique: true })).status).toBe(409)
    const list = await call('GET', '/jobs?kind=Scheduled')
    expect([list.headers.get('total-count'), ((await list.json()) as Stats[])[0]?.job.id]).toEqual(['1', job.id])
    expect((await call('GET', `/jobs/${job.id}/executions`)).headers.get('total-count')).toBe('1')
    expect((await call('POST', `/jobs/${job.id}`, { action: 'stop' })).status).toBe(204)
    expect(((await (await call('GET', `/jobs/${job.id}`)).json()) as Stats).job.status).toBe('Stopped')
  })
})

describe('garbage collection', () => {
  it('estimates in a dry run, then removes, logs, counts and tells of it', async () => {
    for (const n of [1, 2, 3]) await garbage(n)
    const dry = ((await (await submit({ dryRun: true, workers: 2 })).json()) as Stats).job.id
    expect(await ended(dry)).toMatchObject({
      status: 'Success',
      extraAttrs: { freed_space: 15, purged_blobs: 3, purged_manifests: 0, time_window: 1 },
    })
    expect(await database.db.prisma.blob.count()).toBe(3)

    const id = ((await (await submit({ workers: 2, deleteUntagged: true })).json()) as Stats).job.id
    expect(await ended(id)).toMatchObject({
      status: 'Success',
      extraAttrs: {
        freed_space: 15,
        purged_blobs: 3,
        purged_manifests: 0,
        erased_objects: 3,
        erased_space: 15,
        erase_failed: 1,
      },
    })
    const log = await logOf(id)
    expect(log).toContain('workers: 2')
    for (const n of [1, 2, 3]) expect(log).toContain(`delete blob from storage: ${digest(n)}`)
    expect(log).toContain('object k was not erased and is tried again: AccessDenied')
    expect(seen).toContain(`Harbor-Secret ${registryctlSecret}`)
    expect(await database.db.prisma.blob.count()).toBe(0)
    const task = await database.db.prisma.task.findUniqueOrThrow({ where: { jobId: id } })
    expect(task.progress).toMatchObject({ phase: 'erase', blobs: 3, freed_bytes: 15 })
    expect(await database.db.prisma.outboxEvent.count({ where: { type: 'haven.events.v1.GarbageCollected' } })).toBe(1)

    const nothing = ((await (await submit()).json()) as Stats).job.id
    expect(await ended(nothing)).toMatchObject({ extraAttrs: { freed_space: 0, purged_blobs: 0, purged_manifests: 0 } })
  })

  it('removes nothing while registryctl is away, and says so', async () => {
    away = true
    await garbage(10)
    const id = ((await (await submit()).json()) as Stats).job.id
    await until(async () => (await logOf(id)).includes('[ERROR]'))
    expect(await database.db.prisma.blob.count()).toBe(1)
    away = false
    expect(await ended(id)).toMatchObject({ status: 'Success', extraAttrs: { purged_blobs: 1 } })
  })

  it('runs by its schedule, with the parameters of the schedule', async () => {
    const parameters = { delete_untagged: true, workers: 4, dry_run: true, time_window: 3 }
    await putSchedule(database.db.writes, {
      vendorType: 'GARBAGE_COLLECTION',
      cron: '0 0 0 * * 0',
      cronType: 'Weekly',
      parameters,
      actor: 'ann',
    })
    await database.db.prisma.$executeRaw`update jobs.schedules set next_run_at = now()`
    const execution = await until(async () => {
      const { items } = await listExecutions(
        database.db,
        { trigger: 'SCHEDULE', status: 'Success' },
        { page: 1, pageSize: 1 },
      )
      return items[0] ?? null
    })
    expect(execution).toMatchObject({ actor: 'ann', parameters, extraAttrs: { time_window: 3 } })
    const { parameters: ofTask } = await database.db.prisma.task.findFirstOrThrow({
      where: { executionId: execution.id },
    })
    expect(ofTask).toEqual({ deleteUntagged: true, dryRun: true, workers: 4, timeWindowSeconds: 10_800 })
  })
})

describe('the background', () => {
  it('asks after other registries', async () => {
    const { registryEndpoint } = database.db.prisma
    await until(() => registryEndpoint.findFirst({ where: { name: 'away', health: 'unhealthy' } }))
  })

  it('lets a new key sign tokens when the newest is old', async () => {
    const keys = await until(async () => {
      const rows = await database.db.prisma.signingKey.findMany({ orderBy: { createdAt: 'asc' } })
      return rows.length === 2 ? rows : null
    })
    expect(keys).toMatchObject([
      { retiredAt: expect.any(Date), expiresAt: expect.any(Date) },
      { retiredAt: null, privatePem: expect.stringMatching(/^sealed -----BEGIN PRIVATE KEY/) },
    ])
    const entry = await until(() =>
      database.db.prisma.auditEntry.findFirst({ where: { resource: 'token_signing_key' } }),
    )
    expect(entry).toMatchObject({
      operation: 'update',
      resourceType: 'configuration',
      actor: 'jobservice',
      description: expect.stringContaining(keys[1]!.kid),
    })
  })

  it('turns events into audit entries and makes partitions for them', async () => {
    await emit(
      database.db.writes,
      ProjectCreatedSchema,
      { principal: { kind: 'user', id: 1, name: 'ann' } },
      { project: { id: 1n, name: 'new' } },
    )
    const entry = await until(() => database.db.prisma.auditEntry.findFirst({ where: { resource: 'new' } }))
    expect(entry).toMatchObject({ operation: 'create', resourceType: 'project', actor: 'ann' })
  })
})
