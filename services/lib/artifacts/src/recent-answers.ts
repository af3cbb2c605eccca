import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { TwoGenerations, type Database, type Tx } from '@haven/db'
import type { LinkedBlob } from './store/blobs.ts'
import { announceReader, changesBehind, changesSince, CHANGES_KEPT_MS, type Changes } from './store/changes.ts'
import type { ManifestFacts } from './store/manifests.ts'

/** While answers are used, Postgres is asked this often what was taken away. */
const ASK_EVERY_MS = 10
/** An answer counts when everything that was committed this long ago is known. */
const LEASE_MS = 40
/** A process says for so long that it remembers answers, and again when half of it has passed. */
const ANNOUNCED_MS = 10_000
/** Uses that are further apart do not pay for asking. */
const OFTEN_MS = 50
/** Nobody used an answer for so long: then nothing is asked either. */
const IDLE_MS = 250
/** Postgres does not answer. */
const PAUSE_MS = 250
const MAX_ANSWERS = 20_000
const MAX_REPOSITORIES = 10_000

/**
 * Answers of pulls that need not be read again, although a deletion is seen at once by everybody (decision 0007): triggers write down what was taken
 * away (`artifacts.changes`), a process uses what it remembers only while it knows all changes but those of the last `LEASE_MS`, and one that took
 * something away tells its client only when that time has passed for all others that remember (`settled`). Nothing absent is remembered, so what
 * was added is seen at once as well.
 */
export class RecentAnswers implements AsyncDisposable {
  readonly manifests = new Answers<ManifestFacts>(this)
  readonly blobs = new Answers<LinkedBlob>(this)
  readonly #db: Database
  readonly #reader = randomUUID()
  /** Grows with each look at the changes. */
  #looks = 0
  /** By repository: the look at which it had changed. */
  readonly #changed = new Map<number, number>()
  #allChanged = 0
  #horizon: string | null = null
  /** Those of the last look, which the next one may tell of again. */
  #told = new Set<string>()
  /** Until when answers count, and since and until when others wait for us, by `performance.now()`. */
  #confirmedAt = -Infinity
  #announcedFrom = Infinity
  #announcedUntil = -Infinity
  #usedAt = -Infinity
  #asking: Promise<void> | null = null
  #closed = false

  constructor(db: Database) {
    this.#db = db
  }

  get looks(): number {
    return this.#looks
  }

  /** Whether answers count at this moment. Who asks often keeps the process informed. */
  isCurrent(): boolean {
    const now = performance.now()
    if (now - this.#usedAt < OFTEN_MS) this.#asking ??= this.#keepAsking()
    this.#usedAt = now
    return (
      now - this.#confirmedAt <= LEASE_MS && this.#confirmedAt >= this.#announcedFrom && now <= this.#announcedUntil
    )
  }

  /** Whether a repository has not changed since a look. */
  unchanged(repositoryId: number, look: number): boolean {
    return look >= this.#allChanged && look >= (this.#changed.get(repositoryId) ?? 0)
  }

  /** After something was taken away and committed: resolves when no process shows it any more. */
  async settled(): Promise<void> {
    if (await this.#look()) await pause(LEASE_MS + 1)
  }

  /** As `settled`, for what a transaction takes away: Postgres is asked with its commit. What it returns is called after that. */
  settledWith(tx: Tx): () => Promise<void> {
    const others = this.#look((horizon, reader) => changesBehind(tx, horizon, reader))
    others.catch(() => undefined) // for a transaction that ends otherwise
    return async () => {
      // Its connection may have broken when it had committed.
      if (await others.catch(() => this.#look())) await pause(LEASE_MS + 1)
    }
  }

  /** As long as answers are used. */
  async #keepAsking(): Promise<void> {
    while (!this.#closed && performance.now() - this.#usedAt < IDLE_MS) {
      const began = performance.now()
      try {
        if (began > this.#announcedUntil - ANNOUNCED_MS / 2) {
          await announceReader(this.#db, this.#reader, ANNOUNCED_MS)
          // Who looked for readers before did not wait for this one: answers count from the next look on.
          if (performance.now() > this.#announcedUntil) this.#announcedFrom = performance.now()
          this.#announcedUntil = began + ANNOUNCED_MS
        }
        await this.#look()
        await pause(Math.max(1, ASK_EVERY_MS - (performance.now() - began)), undefined, { ref: false })
      } catch {
        // Without it each answer is read, and whoever reads learns what is wrong.
        await pause(PAUSE_MS, undefined, { ref: false })
      }
    }
    this.#asking = null
  }

  /** @returns whether other processes remember answers. */
  async #look(
    ask = (horizon: string, reader: string): Promise<Changes> => changesSince(this.#db.reads, horizon, reader),
  ): Promise<boolean> {
    const began = performance.now()
    const from = this.#horizon
    const { horizon, changes, others } = await ask(from ?? MAX_XID, this.#reader)
    const look = ++this.#looks
    const missed =
      from === null ||
      began - this.#confirmedAt > CHANGES_KEPT_MS / 2 ||
      // Another database than before: one that was restored.
      BigInt(horizon) < BigInt(from)
    if (missed) this.#allChanged = look
    const told = new Set<string>()
    for (const { transaction, repositoryId } of changes) {
      const change = `${transaction}/${repositoryId}`
      told.add(change)
      if (this.#told.has(change)) continue
      if (repositoryId === 0 || this.#changed.size >= MAX_REPOSITORIES) this.#allChanged = look
      else this.#changed.set(repositoryId, look)
    }
    if (this.#allChanged === look) this.#changed.clear()
    // Answers of two connections may come in another order than they were given.
    if (missed || BigInt(horizon) >= BigInt(this.#horizon!)) {
      this.#told = told
      this.#horizon = horizon
    }
    this.#confirmedAt = Math.max(this.#confirmedAt, began)
    return others
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    await this.#asking
  }
}

type Kept<Value> = { readonly value: Value; readonly look: number }

/** Of one kind, by key. They are shared: none is to be changed. */
class Answers<Value extends { readonly repositoryId: number }> {
  readonly #of: RecentAnswers
  readonly #kept = new TwoGenerations<Kept<Value>>(MAX_ANSWERS, Infinity, undefined, 'answers')

  constructor(of: RecentAnswers) {
    this.#of = of
  }

  /** What was read under this key, when that is what would be read now. */
  get(key: string): Value | null {
    if (!this.#of.isCurrent()) return null
    const kept = this.#kept.get(key)
    return kept !== undefined && this.#of.unchanged(kept.value.repositoryId, kept.look) ? kept.value : null
  }

  /** Reads, and remembers what is there. */
  async read<Read extends Value>(key: string, read: () => Promise<Read | null>): Promise<Read | null> {
    const look = this.#of.looks
    const value = await read()
    if (value !== null) this.#kept.set(key, { value, look })
    return value
  }

  forget(key: string): void {
    this.#kept.delete(key)
  }
}

/** As `settled`, for a process that remembers nothing itself. */
export async function readersHaveHeard({ reads }: Database): Promise<void> {
  const { others } = await changesSince(reads, MAX_XID, randomUUID())
  if (others) await pause(LEASE_MS + 1)
}

/** No transaction has it: of a first look only the horizon counts. */
const MAX_XID = '9223372036854775807'
