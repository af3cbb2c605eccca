import { statement, type Database } from '@haven/db'
import { isSettingName, keys, type SettingName, type SettingValues } from './keys.ts'

/** Encrypts what is secret at rest. */
export type Sealer = { seal(plain: string): string; open(sealed: string): string }

/** What every caller gets who asks for a value: all of them, as they were at one moment. */
export type SettingsReader = { read(): Promise<SettingValues> }

type Row = { key: string; value: unknown }

const all = statement<Row>('settings all', 'select key, value from system.settings order by key')

const MAX_AGE_MS = 5_000

/**
 * The settings of the installation, live in every process: an answer is at most five seconds old, and newer than the last change
 * whose announcement arrived. It is one object until something changed, so that a caller may keep what it derived from it.
 */
export class Settings implements SettingsReader, Disposable {
  readonly #db: Database
  readonly #sealer: Sealer
  readonly #clock: () => number
  readonly #stopListening: () => void
  #known: { values: SettingValues; rows: string; readAt: number } | null = null
  #reading: Promise<SettingValues> | null = null
  /** Counts what was forgotten: a read that began before must not be kept after. */
  #generation = 0

  /** @param clock milliseconds that only grow. */
  constructor(db: Database, sealer: Sealer, { clock = () => performance.now() }: { clock?: () => number } = {}) {
    this.#db = db
    this.#sealer = sealer
    this.#clock = clock
    this.#stopListening = db.announcements.on((table) => {
      if (table === 'lost' || table === 'system.settings') this.forget()
    })
  }

  /** @throws what Postgres says, when it is away and nothing young is known. */
  read(): Promise<SettingValues> {
    const known = this.#known
    if (known && this.#clock() - known.readAt < MAX_AGE_MS) return Promise.resolve(known.values)
    return (this.#reading ??= this.#load())
  }

  /** Asks anew at the next read; for callers that have just changed a setting. */
  forget(): void {
    this.#generation++
    this.#reading = null
    if (this.#known) this.#known.readAt = -Infinity
  }

  async #load(): Promise<SettingValues> {
    const generation = this.#generation
    const readAt = this.#clock()
    try {
      const rows = await this.#db.reads.rows(all, [])
      const text = JSON.stringify(rows)
      const values = this.#known?.rows === text ? this.#known.values : this.#valuesOf(rows)
      // What was forgotten meanwhile may be older than the change: it is answered once, and not trusted again.
      this.#known = { values, rows: text, readAt: generation === this.#generation ? readAt : -Infinity }
      return values
    } finally {
      if (generation === this.#generation) this.#reading = null
    }
  }

  #valuesOf(rows: readonly Row[]): SettingValues {
    const values: Record<string, unknown> = Object.fromEntries(
      Object.entries(keys).map(([name, { default: d }]) => [name, d]),
    )
    for (const { key, value } of rows) {
      if (isSettingName(key)) values[key] = keys[key].kind.isSecret ? this.#opened(value) : value
    }
    return Object.freeze(values) as SettingValues
  }

  #opened(value: unknown): string {
    return typeof value === 'string' && value !== '' ? this.#sealer.open(value) : ''
  }

  [Symbol.dispose](): void {
    this.#stopListening()
  }
}

/** A value as it lies in the table. */
export const stored = (name: SettingName, value: unknown, sealer: Sealer): unknown =>
  keys[name].kind.isSecret && typeof value === 'string' && value !== '' ? sealer.seal(value) : value
