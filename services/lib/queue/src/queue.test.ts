import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals'
import { GarbageCollectionSchema, type GarbageCollection } from '@haven/proto/jobs'
import { statementsOf, testDatabase, testRedis, type TestDatabase } from '@haven/testkit'
import { Worker as BullWorker } from 'bullmq'
import { Redis } from 'ioredis'
import {
  countTasks,
  defineJob,
  executionLogText,
  getExecution,
  getTaskByJobId,
  LeaseLost,
  listExecutions,
  listQueues,
  listRunningTasks,
  listTasks,
  listWorkerPools,
  putSchedule,
  Queue,
  Reconciler,
  Scheduler,
  ShuttingDown,
  startExecution,
  sweepExecutions,
  StopRequested,
  taskLogText,
  taskOf,
  Workers,
  type JobDefinition,
  type JobRun,
  type NewTask,
  type StartedExecution,
} from './index.ts'
import { checkCron, nextRun } from './cron.ts'
import { Lease } from './lease.ts'

type Run = (job: JobRun<GarbageCollection, null>) => Promise<void>

let database: TestDatabase
let redis: { url: string; prefix: string }
let queue: Queue
let prefixes = 0
let toClose: AsyncDisposable[] = []
let failures: Error[] = []
const onFailure = (failure: Error) => {
  failures.push(failure)
}

beforeAll(async () => {
  database = await testDatabase()
})
afterAll(async () => database[Symbol.asyncDispose]())
beforeEach(async () => {
  const base = testRedis()
  redis = { url: base.url, prefix: `${base.prefix}-${prefixes++}` }
  failures = []
  await database.db.prisma
    .$executeRaw`truncate jobs.executions, jobs.schedules, jobs.queue_states, jobs.workers cascade`
  queue = new Queue({ db: database.db, redisUrl: redis.url, prefix: redis.prefix, onFailure })
  toClose = [queue]
})
afterEach(async () => {
  for (const each of toClose.reverse()) await each[Symbol.asyncDispose]()
})

const define = (
  run: Run,
  options: { attempts?: number; concurrency?: number; type?: string; backoffMs?: number } = {},
) =>
  defineJob<typeof GarbageCollectionSchema, null>(GarbageCollectionSchema, {
    type: 'WORK',
    attempts: 1,
    concurrency: 0,
    backoffMs: 1,
    ...options,
    run,
  })

async function start(job: JobDefinition<null>, count = 1, more: Partial<NewTask> = {}): Promise<StartedExecution> {
  return database.db.transaction((tx) =>
    startExecution(tx, {
      vendorType: job.type,
      trigger: 'MANUAL',
      actor: 'ann',
      tasks: Array.from({ length: count }, (_, n) => ({
        ...taskOf(GarbageCollectionSchema, job, { workers: n + 1 }),
        ...more,
      })),
    }),
  )
}

async function work(job: JobDefinition<null>, options: { leaseMs?: number; beatMs?: number; poolSize?: number } = {}) {
  const workers = new Workers({
    db: database.db,
    redisUrl: redis.url,
    prefix: redis.prefix,
    queue,
    jobs: [job],
    deps: null,
    onFailure,
    poolSize: options.poolSize ?? 10,
    times: { leaseMs: options.leaseMs ?? 60_000, beatMs: options.beatMs ?? 20 },
    random: () => 0,
  })
  toClose.push(workers)
  await workers.start()
  return workers
}

const reconciler = (jobTypes = ['WORK']) => new Reconciler({ db: database.db, queue, jobTypes, onFailure })

async function ended(executionId: number): Promise<NonNullable<Awaited<ReturnType<typeof getExecution>>>> {
  for (;;) {
    const execution = await getExecution(database.db, executionId)
    if (execution?.endedAt) return execution
    await tick()
  }
}

const tick = () => new Promise((resolve) => setTimeout(resolve, 5))

function latch() {
  let open!: () => void
  const opened = new Promise<void>((resolve) => (open = resolve))
  return { open, opened }
}

const untilAborted = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))

/** As time goes by for a worker that gives no sign of life. */
const expireLeases = () =>
  database.db.prisma
    .$executeRaw`update jobs.tasks set lease_until = now() - interval '1 second' where status = 'Running'`

describe('an execution', () => {
  it('runs its tasks with their parameters and ends with them', async () => {
    const seen: number[] = []
    const job = define(async ({ params, log, progress, attributes }) => {
      log.info(`working on ${params.workers}`)
      progress({ done: params.workers })
      await attributes({ [`task${params.workers}`]: true })
      seen.push(params.workers)
    })
    await work(job)
    const started = await start(job, 3)
    await queue.kick(started.tasks)
    expect(await ended(started.id)).toMatchObject({
      status: 'Success',
      trigger: 'MANUAL',
      actor: 'ann',
      extraAttrs: { task1: true, task2: true, task3: true },
    })
    expect(seen.sort((a, b) => a - b)).toEqual([1, 2, 3])
    const { items, total } = await listTasks(database.db, started.id, { page: 1, pageSize: 2 })
    expect(total).toBe(3)
    expect(items[0]).toMatchObject({ status: 'Success', attempt: 1, progress: { done: 1 } })
    expect(await taskLogText(database.db, items[0]!.jobId)).toMatch(/^\d{4}-.*Z \[INFO\] working on 1\n$/)
    expect((await executionLogText(database.db, started.id))?.split('\n')).toHaveLength(4)
    expect((await countTasks(database.db, [started.id])).get(started.id)).toMatchObject({ Success: 3, total: 3 })
    expect(
      await listExecutions(database.db, { vendorType: 'WORK', status: 'Success' }, { page: 1, pageSize: 5 }),
    ).toMatchObject({ total: 1 })
    expect(await getTaskByJobId(database.db, 'no-uuid')).toBeNull()
    expect(failures).toEqual([])
  })

  it('does not start when its transaction is rolled back, and is over at once without tasks', async () => {
    const job = define(() => Promise.resolve())
    await expect(
      database.db.transaction(async (tx) => {
        await startExecution(tx, {
          vendorType: 'WORK',
          trigger: 'EVENT',
          tasks: [taskOf(GarbageCollectionSchema, job, {})],
        })
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    expect(await database.db.prisma.task.count()).toBe(0)
    expect(await ended((await start(job, 0)).id)).toMatchObject({ status: 'Success' })
  })

  it('is an error when one task fails, and says why', async () => {
    const job = define(async ({ params }) => {
      if (params.workers === 2) throw new Error('could not copy', { cause: new Error('disk gone') })
    })
    await work(job)
    const started = await start(job, 3)
    await queue.kick(started.tasks)
    expect(await ended(started.id)).toMatchObject({ status: 'Error', statusMessage: 'could not copy: disk gone' })
    expect((await countTasks(database.db, [started.id])).get(started.id)).toMatchObject({ Success: 2, Error: 1 })
    expect(await executionLogText(database.db, started.id)).toContain('[ERROR] could not copy: disk gone')
  })

  it('has one status, whichever of its last tasks ends last', async () => {
    const job = define(() => Promise.resolve())
    await work(job)
    const started = await Promise.all(Array.from({ length: 20 }, () => start(job, 2)))
    await queue.kick(started.flatMap((each) => each.tasks))
    for (const { id } of started) expect(await ended(id)).toMatchObject({ status: 'Success' })
  })
})

describe('a failing task', () => {
  it('is tried again from where its cursor is, as often as it may', async () => {
    const cursors: unknown[] = []
    const job = define(
      async ({ cursor, saveCursor, attempt }) => {
        cursors.push(cursor)
        await saveCursor({ page: attempt })
        if (attempt < 3) throw new Error('try again')
      },
      { attempts: 3 },
    )
    await work(job)
    const started = await start(job)
    await queue.kick(started.tasks)
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
    expect(cursors).toEqual([null, { page: 1 }, { page: 2 }])
    const attempts = await database.db.prisma.taskAttempt.findMany({ orderBy: { attempt: 'asc' } })
    expect(attempts.map((each) => each.outcome)).toEqual(['error', 'error', 'success'])
  })

  it('ends after its last attempt', async () => {
    const job = define(() => Promise.reject(new Error('always')), { attempts: 2 })
    await work(job)
    const started = await start(job)
    await queue.kick(started.tasks)
    expect(await ended(started.id)).toMatchObject({ status: 'Error', statusMessage: 'always' })
    expect((await listTasks(database.db, started.id, { page: 1, pageSize: 1 })).items[0]?.attempt).toBe(2)
  })

  it('with parameters that do not fit the message is an error and runs nothing', async () => {
    let ran = false
    const job = define(async () => {
      ran = true
    })
    await work(job)
    const started = await start(job, 1, { parameters: { workers: 'many' } })
    await queue.kick(started.tasks)
    expect(await ended(started.id)).toMatchObject({ status: 'Error' })
    expect(ran).toBe(false)
  })
})

describe('stopping', () => {
  it('ends waiting tasks at once and running ones at their next sign of life', async () => {
    const running = latch()
    let reason: unknown
    const job = define(async ({ signal }) => {
      running.open()
      await untilAborted(signal).catch((error: unknown) => {
        reason = error
        throw error
      })
    })
    await work(job, { poolSize: 1 })
    const started = await start(job, 4)
    await queue.kick(started.tasks)
    await running.opened
    expect(await queue.stopExecution(started.id)).toBe(true)
    expect(await ended(started.id)).toMatchObject({ status: 'Stopped' })
    expect(reason).toBeInstanceOf(StopRequested)
    expect((await countTasks(database.db, [started.id])).get(started.id)).toMatchObject({ Stopped: 4 })
    expect(await queue.stopExecution(started.id)).toBe(false)
    expect(await queue.stopExecution(4711)).toBe(false)
  })

  it('stops ten thousand waiting tasks in as many statements as one, and does not wait for a Redis that is away (F25)', async () => {
    const job = define(() => Promise.resolve())
    const asked: number[] = []
    for (const count of [1, 10_000]) {
      const started = await start(job, count)
      await queue.kick(started.tasks)
      asked.push((await statementsOf(() => queue.stopExecution(started.id))).length)
      expect(await getExecution(database.db, started.id)).toMatchObject({ status: 'Stopped' })
    }
    expect(asked[1]).toBe(asked[0])
    const away = new Queue({ db: database.db, redisUrl: 'redis://127.0.0.1:1', prefix: 'x', onFailure })
    toClose.push(away)
    const started = await start(job, 10_000)
    await away.stopExecution(started.id)
    expect(failures.map((failure) => failure.message)).toContain('taking stopped tasks out of Redis')
    expect(await getExecution(database.db, started.id)).toMatchObject({ status: 'Stopped' })
  })

  it('leaves a task that no worker knows of to nobody: a late claim is refused', async () => {
    const job = define(() => Promise.reject(new Error('must not run')))
    const started = await start(job)
    await queue.stopExecution(started.id)
    await queue.add(started.tasks)
    await work(job)
    while ((await (await queue.bull('WORK')).getJobCountByTypes('wait', 'active')) > 0) await tick()
    expect(await getExecution(database.db, started.id)).toMatchObject({ status: 'Stopped' })
  })
})

describe('when Redis forgets', () => {
  it('everything in the middle, all work is done once by what the rows say', async () => {
    const runs = new Map<number, number>()
    const half = latch()
    const job = define(
      async ({ params }) => {
        runs.set(params.workers, (runs.get(params.workers) ?? 0) + 1)
        if (runs.size === 20) half.open()
      },
      { concurrency: 2 },
    )
    await work(job)
    const started = await start(job, 40)
    await queue.kick(started.tasks)
    await half.opened
    const client = new Redis(redis.url)
    const keys = await client.keys(`${redis.prefix}:*`)
    await client.del(...keys) // FLUSHALL of what is ours: other spec files share the server
    await queue.pause('OTHER')
    const reconciling = reconciler()
    await reconciling.reconcile()
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
    expect([...runs.values()].every((n) => n === 1)).toBe(true)
    expect(runs.size).toBe(40)
    client.disconnect()
  })

  it('a kick, the reconciler adds what was committed; what no row knows is removed', async () => {
    const job = define(() => Promise.resolve())
    const started = await start(job)
    await (await queue.bull('WORK')).add('WORK', {}, { jobId: '00000000-0000-4000-8000-000000000000.0', delay: 60_000 })
    await (await queue.bull('WORK')).add('WORK', {}, { jobId: 'nonsense', delay: 60_000 })
    const first = await reconciler().reconcile()
    expect(first).toMatchObject({ added: 1, removed: 2 })
    expect(await reconciler().reconcile()).toMatchObject({ added: 0, removed: 0 })
    await work(job)
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
  })

  it('to answer at all, a kick ends soon and the execution is kept', async () => {
    const away = new Queue({ db: database.db, redisUrl: 'redis://127.0.0.1:1', prefix: 'x', onFailure })
    toClose.push(away)
    const job = define(() => Promise.resolve())
    const started = await start(job)
    await away.kick(started.tasks)
    expect(failures.map((failure) => failure.message)).toContain('handing 1 tasks to Redis')
    expect(await getExecution(database.db, started.id)).toMatchObject({ status: 'Pending' })
  })
})

describe('a worker that died', () => {
  it('gives its task to another one, and the attempts are counted over its deaths', async () => {
    const job = define(() => Promise.resolve(), { attempts: 2 })
    const started = await start(job)
    const { jobId } = started.tasks[0]!
    const claim = () =>
      Lease.claim(database.db, jobId, {
        owner: 'dying',
        jobType: 'WORK',
        concurrency: 0,
        times: { leaseMs: 60_000, beatMs: 60_000 },
      })
    const first = (await claim()) as Lease
    expect(await claim()).toBe('gone')
    await expireLeases()
    expect(await reconciler().reconcile()).toMatchObject({ requeued: 1, failed: 0, added: 1 })
    const second = (await claim()) as Lease
    await expireLeases()
    expect(await reconciler().reconcile()).toMatchObject({ requeued: 0, failed: 1 })
    expect(await getExecution(database.db, started.id)).toMatchObject({
      status: 'Error',
      statusMessage: 'the worker died in attempt 2 of 2',
    })
    for (const dead of [first, second]) await expect(dead.leave({ kind: 'success' })).rejects.toThrow(LeaseLost)
  })

  it('before it had claimed what it took from Redis gives it to another one as well', async () => {
    const job = define(() => Promise.resolve())
    const started = await start(job)
    await queue.kick(started.tasks)
    const connection = { url: redis.url }
    const dying = new BullWorker('WORK', null, { connection, prefix: redis.prefix, lockDuration: 100 })
    expect(await dying.getNextJob('dying')).toBeDefined()
    await dying.close(true)
    expect(await reconciler().reconcile()).toMatchObject({ requeued: 0, added: 0 })
    await work(job, { leaseMs: 200 })
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
  }, 10_000)

  it('and comes back fails its first write, and so undoes what it did', async () => {
    const job = define(() => Promise.resolve(), { attempts: 2 })
    const started = await start(job)
    const options = { owner: 'zombie', jobType: 'WORK', concurrency: 0, times: { leaseMs: 60_000, beatMs: 60_000 } }
    const zombie = (await Lease.claim(database.db, started.tasks[0]!.jobId, options)) as Lease
    await expireLeases()
    await reconciler().reconcile()
    const heir = (await Lease.claim(database.db, started.tasks[0]!.jobId, { ...options, owner: 'heir' })) as Lease
    await expect(zombie.saveCursor(1)).rejects.toThrow(LeaseLost)
    await expect(zombie.beat()).rejects.toThrow(LeaseLost)
    await expect(zombie.attributes({ a: 1 })).rejects.toThrow(LeaseLost)
    await expect(
      database.db.transaction(async (tx) => {
        await startExecution(tx, { vendorType: 'EFFECT', trigger: 'EVENT', tasks: [] })
        await zombie.hold(tx)
      }),
    ).rejects.toThrow(LeaseLost)
    expect(await listExecutions(database.db, { vendorType: 'EFFECT' }, { page: 1, pageSize: 1 })).toMatchObject({
      total: 0,
    })
    await expect(zombie.leave({ kind: 'error', message: 'mine', retryInMs: null })).rejects.toThrow(LeaseLost)
    await heir.leave({ kind: 'success' })
    expect(await ended(started.id)).toMatchObject({ status: 'Success', statusMessage: '' })
  })

  it('frozen in its job hears by its signal that the task is lost, and its result is dropped', async () => {
    const running = latch()
    const heard = latch()
    let reason: unknown
    const job = define(
      async ({ signal, attempt }) => {
        if (attempt === 2) return
        running.open()
        await untilAborted(signal).catch((error: unknown) => {
          reason = error
          heard.open()
        })
      },
      { attempts: 2 },
    )
    await work(job, { beatMs: 200 })
    const started = await start(job)
    await queue.kick(started.tasks)
    await running.opened
    await expireLeases()
    await reconciler().reconcile()
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
    expect((await listTasks(database.db, started.id, { page: 1, pageSize: 1 })).items[0]?.attempt).toBe(2)
    await heard.opened
    expect(reason).toBeInstanceOf(LeaseLost)
  })

  it('is no longer listed; a living one is, with what it runs', async () => {
    const running = latch()
    const done = latch()
    const job = define(async () => {
      running.open()
      await done.opened
    })
    const workers = await work(job)
    await database.db.prisma.worker.create({
      data: { id: 'old', host: 'h', pid: 1, concurrency: 1, heartbeatAt: new Date(0) },
    })
    const started = await start(job)
    await queue.kick(started.tasks)
    await running.opened
    await reconciler().reconcile()
    expect(await listWorkerPools(database.db)).toMatchObject([{ id: workers.id, pid: process.pid, concurrency: 10 }])
    expect(await database.db.prisma.worker.count()).toBe(1)
    expect(await listRunningTasks(database.db, workers.id)).toMatchObject([{ jobId: started.tasks[0]!.jobId }])
    done.open()
    await ended(started.id)
  })
})

describe('a job that has worked for a while', () => {
  it('lets others go first and goes on from its cursor, which is no failed attempt', async () => {
    const turns: string[] = []
    const job = define(
      async ({ params, cursor, saveCursor, attempt, yieldTurn }) => {
        const turn = Number(cursor ?? 0) + 1
        turns.push(`${params.workers}: turn ${turn}, attempt ${attempt}`)
        await saveCursor(turn)
        if (turn < 3) yieldTurn()
      },
      { concurrency: 1 },
    )
    const started = await start(job, 2)
    await queue.add(started.tasks)
    await work(job, { poolSize: 1 })
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
    expect(turns).toEqual([1, 2, 3].flatMap((n) => [1, 2].map((task) => `${task}: turn ${n}, attempt 1`)))
  })
})

describe('going down', () => {
  it('gives unfinished work back without counting the attempt', async () => {
    const running = latch()
    let reason: unknown
    const job = define(async ({ signal }) => {
      running.open()
      if (reason) return
      await untilAborted(signal).catch((error: unknown) => {
        reason = error
        throw error
      })
    })
    const workers = await work(job)
    const started = await start(job)
    await queue.kick(started.tasks)
    await running.opened
    await workers.drain(10)
    expect(reason).toBeInstanceOf(ShuttingDown)
    expect(await getTaskByJobId(database.db, started.tasks[0]!.jobId)).toMatchObject({ status: 'Pending', attempt: 0 })
    await work(job)
    await reconciler().reconcile()
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
  })
})

describe('a queue', () => {
  it('runs no more tasks at a time than the job allows, over all processes', async () => {
    let now = 0
    let most = 0
    const job = define(
      async () => {
        most = Math.max(most, ++now)
        await new Promise((resolve) => setTimeout(resolve, 20))
        now--
      },
      { concurrency: 1 },
    )
    await work(job)
    await work(job)
    const started = await start(job, 4)
    await queue.kick(started.tasks)
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
    expect(most).toBe(1)
  })

  it('that is paused keeps its tasks, also when Redis forgot that it is', async () => {
    const job = define(() => Promise.resolve())
    await queue.pause('WORK')
    const started = await start(job)
    await (await queue.bull('WORK')).resume()
    await queue.kick(started.tasks)
    await work(job)
    expect(await listQueues(database.db.reads, ['IDLE', 'WORK'])).toMatchObject([
      { jobType: 'IDLE', count: 0, latencySeconds: 0, paused: false },
      { jobType: 'WORK', count: 1, paused: true },
    ])
    await reconciler().reconcile()
    expect(await (await queue.bull('WORK')).isPaused()).toBe(true)
    expect(await getExecution(database.db, started.id)).toMatchObject({ status: 'Pending' })
    await queue.resume('WORK')
    expect(await ended(started.id)).toMatchObject({ status: 'Success' })
  })

  it('holds a task back until its time', async () => {
    const job = define(() => Promise.resolve())
    await work(job)
    const started = await start(job, 1, { delayMs: 300 })
    const from = performance.now()
    await queue.kick(started.tasks.map((task) => ({ ...task, delayMs: 0 })))
    await ended(started.id)
    expect(performance.now() - from).toBeGreaterThanOrEqual(240)
  })
})

describe('sweepExecutions', () => {
  it('keeps the newest of each vendor and everything that is not over', async () => {
    const job = define(() => Promise.resolve())
    const open = await start(job)
    for (let n = 0; n < 5; n++) await start(job, 0)
    const other = defineJob<typeof GarbageCollectionSchema, null>(GarbageCollectionSchema, {
      type: 'OTHER',
      attempts: 1,
      concurrency: 0,
      run: async () => {},
    })
    for (let n = 0; n < 3; n++) await start(other, 0)
    expect(await sweepExecutions(database.db, { keep: { OTHER: 1 }, defaultKeep: 2 })).toBe(5)
    const left = await listExecutions(database.db, {}, { page: 1, pageSize: 10 })
    expect(left.items.map((execution) => execution.vendorType)).toEqual(['OTHER', 'WORK', 'WORK', 'WORK'])
    expect(left.items.at(-1)?.id).toBe(open.id)
  })
})

describe('a schedule', () => {
  const scheduler = (starts: string[], more: { fail?: boolean } = {}) => {
    const made = new Scheduler({
      db: database.db,
      queue,
      onFailure,
      work: {
        WORK: async (tx, schedule) => {
          if (more.fail) throw new Error('no scanner')
          const started = await startExecution(tx, {
            vendorType: 'WORK',
            trigger: 'SCHEDULE',
            actor: schedule.actor,
            tasks: [],
          })
          starts.push(String(started.id))
          return started.tasks
        },
        LATER: async () => [],
      },
    })
    toClose.push(made)
    return made
  }
  const makeDue = () =>
    database.db.prisma.$executeRaw`update jobs.schedules set next_run_at = now() - interval '3 days'`

  it('that is due starts one execution, however many schedulers look and however many ticks went by', async () => {
    const schedule = await putSchedule(database.db.writes, {
      vendorType: 'WORK',
      cron: '0 0 * * * *',
      cronType: 'Hourly',
      actor: 'ann',
    })
    expect(schedule.nextRunAt!.getTime()).toBeGreaterThan(Date.now())
    await makeDue()
    const starts: string[] = []
    await Promise.all([scheduler(starts).tick(), scheduler(starts).tick(), scheduler(starts).tick()])
    expect(starts).toHaveLength(1)
    expect(await scheduler(starts).tick()).toBe(0)
    const after = await putSchedule(database.db.writes, {
      vendorType: 'WORK',
      cron: '0 30 0 * * *',
      cronType: 'Custom',
    })
    expect(after).toMatchObject({ id: schedule.id, cron: '0 30 0 * * *', cronType: 'Custom' })
    expect(after.lastRunAt).not.toBeNull()
  })

  it('waits while the SCHEDULER queue is paused', async () => {
    await putSchedule(database.db.writes, { vendorType: 'WORK', cron: '0 0 * * * *', cronType: 'Hourly' })
    await makeDue()
    await queue.pause('SCHEDULER')
    const starts: string[] = []
    expect(await scheduler(starts).tick()).toBe(0)
    await queue.resume('SCHEDULER')
    expect(await scheduler(starts).tick()).toBe(1)
  })

  it('whose work cannot start stays due and does not hold up the others', async () => {
    await putSchedule(database.db.writes, { vendorType: 'WORK', cron: '0 0 * * * *', cronType: 'Hourly' })
    await putSchedule(database.db.writes, { vendorType: 'LATER', cron: '0 0 * * * *', cronType: 'Hourly' })
    await makeDue()
    expect(await scheduler([], { fail: true }).tick()).toBe(1)
    expect(failures.map((failure) => failure.message)).toEqual(['starting the schedule of WORK'])
    expect(await scheduler([]).tick()).toBe(1)
  })

  it.each([
    ['', 'empty cron string'],
    ['0 0 * * *', 'expected 6 fields'],
    ['@daily', 'expected 6 fields'],
    ['0 61 * * * *', 'invalid cron string'],
    ['5 0 * * * *', 'Seconds'],
  ])('with the expression %j is refused', (cron, text) => {
    expect(() => checkCron(cron)).toThrow(text)
  })

  it.each([
    ['0 0 * * * *', '2026-11-25T10:00:00Z', '2026-11-25T11:00:00Z'],
    ['0 0 0 * * 0', '2026-11-25T10:00:00Z', '2026-11-29T00:00:00Z'],
    ['0 30 2 29 2 *', '2026-11-25T10:00:00Z', '2028-02-29T02:30:00Z'],
  ])('%s after %s runs at %s', (cron, after, next) => {
    expect(nextRun(cron, new Date(after)).toISOString()).toBe(new Date(next).toISOString())
  })
})
