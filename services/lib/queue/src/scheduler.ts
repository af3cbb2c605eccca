import { statement, type Database, type Sql } from '@haven/db'
import { checkCron, nextRun, type CronType } from './cron.ts'
import type { Queue } from './queue.ts'
import type { QueuedTask } from './start-execution.ts'
import type { JsonObject } from './status.ts'

export type Schedule = {
  id: number
  vendorType: string
  vendorId: number
  cron: string
  cronType: CronType
  parameters: JsonObject
  actor: string
  nextRunAt: Date | null
  lastRunAt: Date | null
  createdAt: Date
  updatedAt: Date
}

type Row = {
  id: number
  vendor_type: string
  vendor_id: string
  cron: string
  cron_type: CronType
  parameters: JsonObject
  actor: string
  next_run_at: Date | null
  last_run_at: Date | null
  created_at: Date
  updated_at: Date
  now: Date
}

/** What a due schedule starts, in the transaction that sets its next run: rows, by `startExecution`. */
export type ScheduledWork = (tx: Sql, schedule: Schedule) => Promise<readonly QueuedTask[]>

const takeDue = statement<Row>(
  'schedules take due',
  `select *, now() as now from jobs.schedules
    where next_run_at <= now() and vendor_type = any($1::text[])
      and not exists (select 1 from jobs.queue_states where job_type = 'SCHEDULER' and paused)
    order by next_run_at limit 1 for update skip locked`,
)
const markRun = statement(
  'schedules mark run',
  'update jobs.schedules set last_run_at = now(), next_run_at = $2 where id = $1',
)
const now = statement<{ now: Date }>('schedules now', 'select now() as now')
const put = statement<Row>(
  'schedules put',
  `insert into jobs.schedules (vendor_type, vendor_id, cron, cron_type, parameters, actor, next_run_at)
   values ($1, $2, $3, $4, $5::jsonb, $6, $7)
   on conflict (vendor_type, vendor_id) do update
     set cron = excluded.cron, cron_type = excluded.cron_type, parameters = excluded.parameters, actor = excluded.actor,
         next_run_at = excluded.next_run_at, updated_at = now()
   returning *`,
)
const find = statement<Row>('schedules find', 'select * from jobs.schedules where vendor_type = $1 and vendor_id = $2')
const remove = statement<{ id: number }>(
  'schedules remove',
  'delete from jobs.schedules where vendor_type = $1 and vendor_id = $2 returning id',
)
const list = statement<Row & { total: string }>(
  'schedules list',
  'select *, count(*) over () as total from jobs.schedules order by id limit $1 offset $2',
)

/** Sets the one schedule of a vendor (of a policy, with its id). @throws problems.badRequest for a wrong cron expression */
export async function putSchedule(
  tx: Sql,
  schedule: {
    vendorType: string
    vendorId?: number
    cron: string
    cronType: CronType
    parameters?: JsonObject
    actor?: string
  },
): Promise<Schedule> {
  checkCron(schedule.cron)
  const cron = schedule.cron.trim()
  const after = (await tx.one(now, []))!.now
  const row = await tx.one(put, [
    schedule.vendorType,
    schedule.vendorId ?? -1,
    cron,
    schedule.cronType,
    JSON.stringify(schedule.parameters ?? {}),
    schedule.actor ?? '',
    nextRun(cron, after),
  ])
  return toSchedule(row!)
}

export async function getSchedule(sql: Sql, vendorType: string, vendorId = -1): Promise<Schedule | null> {
  const row = await sql.one(find, [vendorType, vendorId])
  return row && toSchedule(row)
}

/** @returns false when there was none */
export async function deleteSchedule(tx: Sql, vendorType: string, vendorId = -1): Promise<boolean> {
  return (await tx.one(remove, [vendorType, vendorId])) !== null
}

export async function listSchedules(
  sql: Sql,
  page: { page: number; pageSize: number },
): Promise<{ items: Schedule[]; total: number }> {
  const rows = await sql.rows(list, [page.pageSize, (page.page - 1) * page.pageSize])
  return { items: rows.map(toSchedule), total: Number(rows[0]?.total ?? 0) }
}

export type SchedulerOptions = {
  db: Database
  queue: Queue
  /** By vendor type. A schedule of another type is left to a process that knows it. */
  work: Readonly<Record<string, ScheduledWork>>
  onFailure: (failure: Error) => void
  /** How often the rows are looked at. Default 1000. */
  intervalMs?: number
}

/**
 * Starts what is due. Any number may run: the row is locked while its execution is written and its next run is set, so there is one
 * execution a tick. Ticks that went by while nobody ran are made up for by one run, not by all of them.
 */
export class Scheduler implements AsyncDisposable {
  readonly #options: Required<SchedulerOptions>
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #closed = false

  constructor(options: SchedulerOptions) {
    this.#options = { intervalMs: 1000, ...options }
  }

  start(): void {
    this.#running = this.#round()
  }

  async #round(): Promise<void> {
    try {
      await this.tick()
    } catch (cause) {
      this.#options.onFailure(new Error('starting scheduled work', { cause }))
    }
    if (this.#closed) return
    this.#timer = setTimeout(() => {
      this.#running = this.#round()
    }, this.#options.intervalMs)
  }

  /** Starts everything that is due now. Returns how many schedules that were. */
  async tick(): Promise<number> {
    const { db, queue, work } = this.#options
    const failed = new Set<string>()
    for (let started = 0; ;) {
      const types = Object.keys(work).filter((type) => !failed.has(type))
      let taken: string | undefined
      try {
        const tasks = await db.transaction(async (tx) => {
          const row = await tx.one(takeDue, [types])
          if (!row) return null
          taken = row.vendor_type
          const tasks = await work[row.vendor_type]!(tx, toSchedule(row))
          await tx.rows(markRun, [row.id, nextRun(row.cron, row.now)])
          return tasks
        })
        if (!tasks) return started
        started++
        await queue.kick(tasks)
      } catch (cause) {
        if (taken === undefined) throw cause
        failed.add(taken) // it stays due; the other types get their turn
        this.#options.onFailure(new Error(`starting the schedule of ${taken}`, { cause }))
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#running
  }
}

const toSchedule = (row: Row): Schedule => ({
  id: row.id,
  vendorType: row.vendor_type,
  vendorId: Number(row.vendor_id),
  cron: row.cron,
  cronType: row.cron_type,
  parameters: row.parameters,
  actor: row.actor,
  nextRunAt: row.next_run_at,
  lastRunAt: row.last_run_at,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})
