import { statement, type Database } from '@haven/db'
import type { JobLog } from './define-job.ts'

const FLUSH_MS = 250
const BATCH = 500
/** Lines kept while they cannot be written. */
const KEPT = 5000

type Line = { at: Date; level: string; text: string }

const insertLines = statement(
  'jobs log insert',
  `insert into jobs.task_log (task_id, logged_at, level, line)
   select $1, at, level, line from unnest($2::timestamptz[], $3::text[], $4::text[]) as l(at, level, line)`,
)

/**
 * The log of one task. Lines are written in batches; while the database does not take them they are kept up to a bound, and the log
 * then says how many are missing: a log that cannot be written never changes a job's result.
 */
export class TaskLog implements AsyncDisposable, JobLog {
  readonly #db: Database
  readonly #taskId: string
  #lines: Line[] = []
  #dropped = 0
  #timer: NodeJS.Timeout | undefined
  #flushing: Promise<void> = Promise.resolve()

  constructor(db: Database, taskId: string) {
    this.#db = db
    this.#taskId = taskId
  }

  debug = (line: string) => this.#add('DEBUG', line)
  info = (line: string) => this.#add('INFO', line)
  warn = (line: string) => this.#add('WARNING', line)
  error = (line: string) => this.#add('ERROR', line)

  #add(level: string, line: string) {
    if (this.#lines.length >= KEPT) {
      this.#dropped++
      return
    }
    // Postgres' text holds no NUL.
    this.#lines.push({ at: new Date(), level, text: line.replaceAll('\0', '\u{FFFD}') })
    if (this.#lines.length === BATCH) void this.flush() // never rejects
    this.#timer ??= setTimeout(() => void this.flush(), FLUSH_MS)
  }

  flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#flushing = this.#flushing.then(() => this.#write())
    return this.#flushing
  }

  async #write(): Promise<void> {
    while (this.#lines.length > 0) {
      const batch = this.#lines.slice(0, BATCH)
      try {
        await this.#db.writes.rows(insertLines, [
          this.#taskId,
          batch.map((line) => line.at),
          batch.map((line) => line.level),
          batch.map((line) => line.text),
        ])
      } catch {
        return // kept for the next flush; the bound and the note about the gap are in #add and below
      }
      this.#lines.splice(0, batch.length)
      this.#noteGap()
    }
  }

  #noteGap() {
    if (this.#dropped === 0) return
    const text = `${this.#dropped} lines are missing here: the log could not be written`
    this.#dropped = 0
    this.#lines.push({ at: new Date(), level: 'WARNING', text })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.flush()
    clearTimeout(this.#timer)
  }
}
