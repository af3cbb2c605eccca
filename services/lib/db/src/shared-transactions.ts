import { AsyncLocalStorage } from 'node:async_hooks'
import type { Sql } from './sql.ts'
import { saidNo } from './pipelined-reads.ts'
import { ServerSilent } from './silence.ts'
import type { Statement } from './statement.ts'
import type { Tx } from './transaction.ts'

/** So many share a transaction at most: what they lock is locked until all of them are done. */
const MOST = 16
/** Nobody waits longer for a transaction to end before the next begins beside it: one that waits for a lock keeps nobody. */
const PATIENCE_MS = 50

type Work<T> = (tx: Tx) => Promise<T>
type Waiting = {
  readonly keys: readonly string[]
  readonly work: Work<unknown>
  readonly alone: () => Promise<unknown>
  /** Runs something as a part of the request that asked for it. */
  readonly inContext: ReturnType<typeof AsyncLocalStorage.snapshot>
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

/** Nothing was committed; each of the works may be done alone. */
class NotTogether extends Error {}

/**
 * Short changes that arrive while another is under way share the next transaction: their statements travel together, and one commit makes all of
 * them durable. If one fails nothing is committed, and each is done again in a transaction of its own.
 *
 * Works that share see what the others did, and their locks do not keep out each other: `keys` name what no two of them may touch, and
 * `Tx.alone` is for whoever relies on a lock otherwise.
 */
export class SharedTransactions implements Sql {
  readonly #transaction: <T>(work: Work<T>) => Promise<T>
  readonly #once: <T>(work: Work<T>) => Promise<T>
  readonly #writes: Sql
  #waiting: Waiting[] = []
  readonly #taken = new Set<string>()
  #busy = false

  /**
   * @param transaction for works that are alone
   * @param once for those that are not, which it does not repeat
   * @param writes for single statements that are alone
   */
  constructor(transaction: <T>(work: Work<T>) => Promise<T>, once: <T>(work: Work<T>) => Promise<T>, writes: Sql) {
    this.#transaction = transaction
    this.#once = once
    this.#writes = writes
  }

  /** As `Database.transaction`: `work` must have no effect outside of the database. It goes alone when one with the same key is under way. */
  transaction<T>(keys: readonly string[], work: Work<T>): Promise<T> {
    if (keys.some((key) => this.#taken.has(key))) return this.#transaction(work)
    return this.#share(keys, work, () => this.#transaction(work))
  }

  rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    return this.#share(
      [],
      (tx) => tx.rows(statement, values),
      () => this.#writes.rows(statement, values),
    )
  }

  async one<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row | null> {
    return (await this.rows(statement, values))[0] ?? null
  }

  #share<T>(keys: readonly string[], work: Work<T>, alone: () => Promise<T>): Promise<T> {
    for (const key of keys) this.#taken.add(key)
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    this.#waiting.push({ keys, work, alone, inContext: AsyncLocalStorage.snapshot(), resolve, reject })
    if (!this.#busy) this.#begin()
    return promise as Promise<T>
  }

  #begin(): void {
    this.#busy = true
    // Everybody whose request is in this turn of the loop comes along.
    setImmediate(() => {
      const batch = this.#waiting.splice(0, MOST)
      const next = () => {
        clearTimeout(patience)
        if (ended) return
        ended = true
        this.#busy = false
        if (this.#waiting.length > 0) this.#begin()
      }
      let ended = false
      const patience = setTimeout(next, PATIENCE_MS)
      void batch[0]!.inContext(() => this.#run(batch)).finally(next)
    })
  }

  async #run(batch: readonly Waiting[]): Promise<void> {
    const outcomes = batch.length === 1 ? null : await this.#together(batch)
    await Promise.all(
      batch.map(async ({ keys, alone, inContext, resolve, reject }, n) => {
        try {
          resolve(outcomes === null ? await inContext(alone) : await outcomes[n])
        } catch (error) {
          reject(error)
        } finally {
          for (const key of keys) this.#taken.delete(key)
        }
      }),
    )
  }

  /** @returns how it ended for each; null when they must be done alone. */
  async #together(batch: readonly Waiting[]): Promise<Promise<unknown>[] | null> {
    // In one order, so that two processes do not wait for each other.
    const ordered = batch.map((_, n) => n).sort((a, b) => compare(batch[a]!.keys[0], batch[b]!.keys[0]))
    const works = Array<Promise<unknown>>(batch.length)
    try {
      await this.#once(async (tx) => {
        for (const n of ordered) works[n] = batch[n]!.inContext(batch[n]!.work, tx)
        // All of them, also when one fails: until then the connection is theirs.
        const ended = await Promise.allSettled(works)
        const silent = ended.find((each) => each.status === 'rejected' && each.reason instanceof ServerSilent)
        if (silent?.status === 'rejected') throw silent.reason
        if (ended.some(({ status }) => status === 'rejected')) throw new NotTogether()
      })
      return works
    } catch (error) {
      if (error instanceof NotTogether || saidNo(error)) return null
      // There was no connection, or nobody knows whether it was committed.
      return batch.map(() => Promise.reject(error))
    }
  }
}

const compare = (a = '', b = '') => (a < b ? -1 : a > b ? 1 : 0)
