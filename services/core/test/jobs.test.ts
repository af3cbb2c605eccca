import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { startExecution } from '@haven/queue'
import { startCore, type TestCore } from './harness.ts'

const folder = mkdtempSync(join(tmpdir(), 'haven-core-'))
const certificate = join(folder, 'tls.crt')
const PEM = '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n'
let core: TestCore
beforeAll(async () => {
  core = await startCore({ CORE_SELF_SIGNED_CERTIFICATE: certificate })
})
afterAll(async () => {
  await core[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true })
})

const manual = { schedule: { type: 'Manual' } }
const startGC = async (parameters: object = {}) => {
  const reply = await core.admin('POST', '/system/gc/schedule', { ...manual, parameters })
  expect(reply.status).toBe(201)
  const location = reply.headers.get('location') ?? ''
  expect(location).toMatch(/^\/api\/v2\.0\/system\/gc\/\d+$/)
  return Number(location.split('/').at(-1))
}

describe('garbage collection', () => {
  it('starts a run with what was asked for, shows it, and stops it', async () => {
    const id = await startGC({ delete_untagged: true, dry_run: true, workers: 3, redis_url_reg: 'redis://x' })
    const run = (await core.admin('GET', `/system/gc/${id}`)).body as { job_parameters: string }
    expect(run).toMatchObject({
      id,
      job_name: 'GARBAGE_COLLECTION',
      job_kind: 'MANUAL',
      job_status: 'Pending',
      deleted: false,
    })
    expect(JSON.parse(run.job_parameters)).toEqual({
      delete_untagged: true,
      delete_tag: false,
      dry_run: true,
      workers: 3,
    })
    expect((await core.db.prisma.task.findFirst({ orderBy: { id: 'desc' } }))?.parameters).toMatchObject({
      deleteUntagged: true,
      dryRun: true,
      workers: 3,
    })

    const log = await core.admin('GET', `/system/gc/${id}/log`)
    expect([log.status, log.headers.get('content-type')]).toEqual([200, 'text/plain'])
    expect((await core.admin('PUT', `/system/gc/${id}`)).status).toBe(200)
    expect((await core.admin('GET', `/system/gc/${id}`)).body).toMatchObject({ job_status: 'Stopped' })
    expect((await core.admin('PUT', `/system/gc/${id}`)).status).toBe(200)
    for (const path of ['/system/gc/99999', '/system/gc/99999/log'])
      expect((await core.admin('GET', path)).status).toBe(404)
  })

  it('lists its runs and no others, newest first', async () => {
    const first = await startGC()
    const second = await startGC()
    await core.db.transaction((tx) => startExecution(tx, { vendorType: 'REPLICATION', trigger: 'MANUAL', tasks: [] }))
    const list = await core.admin('GET', '/system/gc?page_size=2')
    expect((list.body as { id: number }[]).map((run) => run.id)).toEqual([second, first])
    expect(list.headers.get('link')).toBe('</api/v2.0/system/gc?page=2&page_size=2>; rel="next"')
    const pending = await core.admin('GET', '/system/gc?q=job_status%3DPending')
    expect(pending.headers.get('x-total-count')).toBe('2')
  })

  it.each<[string, object, string]>([
    ['nothing', {}, 'schedule.type'],
    ['no worker', { ...manual, parameters: { workers: 0 } }, 'parameters.workers'],
    ['too many workers', { ...manual, parameters: { workers: 11 } }, 'parameters.workers'],
    ['workers as a text', { ...manual, parameters: { workers: '2' } }, 'parameters.workers'],
    ['a flag that is none', { ...manual, parameters: { dry_run: 'yes' } }, 'parameters.dry_run'],
    ['a type that is only shown', { schedule: { type: 'Schedule' } }, 'schedule.type'],
    ['a schedule without a line', { schedule: { type: 'Custom', cron: '' } }, 'cron'],
    ['five fields', { schedule: { type: 'Custom', cron: '0 0 * * *' } }, '6 fields'],
    ['seconds', { schedule: { type: 'Custom', cron: '30 0 0 * * *' } }, 'Seconds'],
  ])('refuses %s with the name of the field', async (_what, body, message) => {
    const before = await core.db.prisma.execution.count()
    for (const method of ['POST', 'PUT']) {
      const reply = await core.admin(method, '/system/gc/schedule', body)
      expect([reply.status, reply.text]).toEqual([400, expect.stringContaining(message)])
    }
    expect(await core.db.prisma.execution.count()).toBe(before)
  })

  it('has one schedule, which is set, replaced, shown and taken away', async () => {
    const get = () => core.admin('GET', '/system/gc/schedule')
    expect((await get()).text).toBe('')
    const set = (schedule: object, method = 'PUT') =>
      core.admin(method, '/system/gc/schedule', { schedule, parameters: { delete_untagged: true } })
    expect((await set({ type: 'Daily', cron: '0 0 0 * * *' }, 'POST')).status).toBe(201)
    expect((await set({ type: 'Custom', cron: '0 30 2 * * 1' })).status).toBe(200)
    expect((await get()).body).toMatchObject({
      schedule: {
        type: 'Custom',
        cron: '0 30 2 * * 1',
        next_scheduled_time: expect.stringContaining('T02:30:00.000Z') as unknown,
      },
      job_parameters: expect.stringContaining('"delete_untagged":true') as unknown,
    })
    expect((await core.admin('GET', '/schedules')).body).toMatchObject([
      { vendor_type: 'GARBAGE_COLLECTION', cron: '0 30 2 * * 1' },
    ])
    expect((await set({ type: 'None' })).status).toBe(200)
    expect((await get()).text).toBe('')
  })
})

describe('the monitor of jobs', () => {
  it('shows queues, holds them and lets them go, whatever the case of their name', async () => {
    await startGC()
    const queue = async () => {
      const queues = (await core.admin('GET', '/jobservice/queues')).body as {
        job_type: string
        count?: number
        paused: boolean
      }[]
      return queues.find((one) => one.job_type === 'GARBAGE_COLLECTION')
    }
    const act = (type: string, action: string) => core.admin('PUT', `/jobservice/queues/${type}`, { action })
    expect((await act('garbage_collection', 'pause')).status).toBe(200)
    expect(await queue()).toMatchObject({ paused: true, count: expect.any(Number) as unknown })
    expect((await act('all', 'resume')).status).toBe(200)
    expect((await act('all', 'stop')).status).toBe(200)
    expect(await queue()).toEqual({ job_type: 'GARBAGE_COLLECTION', paused: false })
    expect((await act('no_such_type', 'pause')).status).toBe(200)
    expect((await act('all', 'explode')).status).toBe(422)
  })

  it('holds all schedules with the queue of the scheduler', async () => {
    const paused = () => core.admin('GET', '/schedules/all/paused')
    expect((await paused()).body).toEqual({ paused: false })
    await core.admin('PUT', '/jobservice/queues/scheduler', { action: 'pause' })
    expect((await paused()).body).toEqual({ paused: true })
    const other = await core.admin('GET', '/schedules/replication/paused')
    expect(other.body).toEqual({ errors: [{ code: 'BAD_REQUEST', message: "job_type can only be 'all'" }] })
  })

  it('shows processes with what each of their slots does', async () => {
    expect((await core.admin('GET', '/jobservice/pools')).body).toEqual([])
    await core.db.prisma.worker.create({ data: { id: 'pool-1', host: 'h', pid: 7, concurrency: 2 } })
    const id = await startGC()
    const task = await core.db.prisma.task.updateManyAndReturn({
      where: { executionId: BigInt(id) },
      data: { status: 'Running', leaseOwner: 'pool-1', startedAt: new Date() },
    })
    expect((await core.admin('GET', '/jobservice/pools')).body).toMatchObject([
      { worker_pool_id: 'pool-1', host: 'h', pid: 7, concurrency: 2 },
    ])
    const busy = { id: 'pool-1-0', pool_id: 'pool-1', job_name: 'GARBAGE_COLLECTION', job_id: task[0]?.jobId }
    for (const pool of ['all', 'pool-1']) {
      expect((await core.admin('GET', `/jobservice/pools/${pool}/workers`)).body).toMatchObject([
        busy,
        { id: 'pool-1-1', pool_id: 'pool-1' },
      ])
    }
    expect((await core.admin('GET', '/jobservice/pools/other/workers')).body).toEqual([])

    expect((await core.admin('GET', `/jobservice/jobs/${task[0]?.jobId}/log`)).status).toBe(200)
    for (const unknown of ['88888888', '00000000-0000-4000-8000-000000000000', 'x']) {
      expect((await core.admin('GET', `/jobservice/jobs/${unknown}/log`)).status).toBe(404)
      expect((await core.admin('PUT', `/jobservice/jobs/${unknown}`)).status).toBe(200)
    }
    expect((await core.admin('PUT', '/jobservice/jobs/all')).status).toBe(200)
    expect((await core.admin('GET', `/system/gc/${id}`)).body).toMatchObject({ job_status: 'Stopping' })
  })
})

describe('the health page', () => {
  it('names what is well, to anybody', async () => {
    const reply = await core.send('GET', '/api/v2.0/health')
    expect(reply.body).toEqual({
      status: 'healthy',
      components: ['core', 'database', 'redis'].map((name) => ({ name, status: 'healthy' })),
    })
  })

  it('names what is not, without its address', async () => {
    const ill = await startCore({ REGISTRY_URL: 'http://127.0.0.1:1' })
    try {
      const reply = await ill.send('GET', '/api/v2.0/health')
      expect([reply.status, reply.body]).toEqual([200, expect.objectContaining({ status: 'unhealthy' })])
      expect(reply.body).toMatchObject({
        components: expect.arrayContaining([
          { name: 'registry', status: 'unhealthy', error: 'not reachable' },
        ]) as unknown,
      })
      expect(reply.text).not.toContain('127.0.0.1')
    } finally {
      await ill[Symbol.asyncDispose]()
    }
  })
})

describe('the facts of the system', () => {
  it('are few for a visitor and more for who signed in', async () => {
    expect((await core.send('GET', '/api/v2.0/systeminfo')).body).toEqual({
      auth_mode: 'db_auth',
      primary_auth_mode: false,
      self_registration: false,
      banner_message: '',
      oidc_provider_name: '',
    })
    expect((await core.admin('GET', '/systeminfo')).body).toMatchObject({
      harbor_version: expect.stringMatching(/^v2\.16\.0/) as unknown,
      external_url: core.url,
      read_only: false,
      has_ca_root: false,
    })
    expect((await core.admin('GET', '/systeminfo/volumes')).body).toEqual({ storage: [] })
    expect((await core.send('GET', '/api/v2.0/systeminfo/getcert')).status).toBe(404) // nothing was made yet
    writeFileSync(certificate, PEM)
    expect((await core.admin('GET', '/systeminfo')).body).toMatchObject({ has_ca_root: true })
    const downloaded = await core.send('GET', '/api/v2.0/systeminfo/getcert')
    expect([downloaded.status, downloaded.text]).toEqual([200, PEM])
    expect(downloaded.headers.get('content-disposition')).toBe('attachment; filename=ca.crt')
    expect((await core.send('GET', '/api/v2.0/ping')).text).toBe('Pong')
    expect((await core.send('GET', '/api/version')).text).toBe('{"version":"v2.0"}')
  })
})
