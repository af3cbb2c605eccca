import { Queries, type Run, type Sql } from './sql.ts'
import { ofAll, RowsOfATurn, type Statement } from './statement.ts'

/**
 * A transaction. Statements that are asked together, without waiting for each other, run in their order and travel together; where it is shared,
 * those of rows run once for all who ask in the same turn.
 */
export interface Tx extends Sql {
  /**
   * A row for a statement of rows whose result nobody waits for: it runs once, with the rows of all calls
   * in their order, before the commit and travels with it. When it fails the transaction does.
   */
  last(statement: Statement<object>, row: readonly unknown[]): void
  /**
   * Asked behind the commit, with which it travels: it sees what was committed, and everything that others had by then. What becomes of it does not
   * concern the transaction. Answers only once that has committed.
   */
  behind<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]>
  /**
   * Said before work that a lock must keep from everybody else's.
   * @throws in a transaction that is shared (`SharedTransactions`), after which the work is done again in one of its own.
   */
  alone(): void
}

/** Others wait with whoever waits for a lock: each goes on alone then, and has the whole time. */
const BEGIN_SHARED = "begin; set local lock_timeout = '250ms'"

/** One transaction of a connection: begun when it is made, and to be committed or rolled back once. */
export class Transaction extends Queries implements Tx {
  readonly #ask: Run
  /** From then on the connection is somebody else's. */
  #ended = false
  readonly #shared: boolean
  /** Not waited for: the first statement travels with it, and fails as it does. */
  readonly #begun: Promise<unknown>
  readonly #turn = new RowsOfATurn(
    (statement, values) => super.rows(statement, values),
    // The transaction has failed with it.
    () => false,
  )
  readonly #last = new Map<Statement<object>, (readonly unknown[])[]>()
  readonly #behind: (() => Promise<unknown>)[] = []

  constructor(ask: Run, shared: boolean) {
    super(ask)
    this.#ask = ask
    this.#shared = shared
    this.#begun = ask({ text: shared ? BEGIN_SHARED : 'begin' })
    this.#begun.catch(() => undefined)
  }

  override rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    if (this.#ended) return Promise.reject(new Error(`${statement.name} was asked of a transaction that had ended`))
    if (this.#shared && statement.types) return this.#turn.rows(statement, values)
    this.#turn.askAll() // what was asked before is done before
    return super.rows(statement, values)
  }

  last(statement: Statement<object>, row: readonly unknown[]): void {
    const rows = this.#last.get(statement)
    if (rows) rows.push(row)
    else this.#last.set(statement, [row])
  }

  behind<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const { promise, resolve } = Promise.withResolvers<Row[]>()
    promise.catch(() => undefined) // for who does not ask
    this.#behind.push(() => {
      resolve(super.rows(statement, values))
      return promise
    })
    return promise
  }

  alone(): void {
    if (this.#shared) throw new Error('not in a transaction that others share')
  }

  /** @throws what failed, also when `work` did not care: Postgres then rolls back whatever it is asked. */
  async commit(): Promise<void> {
    this.#turn.askAll()
    const lasts = [...this.#last].map(([statement, rows]) => super.rows(...ofAll(statement, rows)))
    const committed = this.#ask({ text: 'commit' })
    this.#ended = true
    const behind = this.#behind.map((ask) => ask())
    await Promise.all([this.#begun, ...lasts, committed])
    const { command } = await committed
    if (command !== 'COMMIT') throw new Error('a statement of the transaction had failed: it was rolled back')
    // Until then the connection is ours.
    await Promise.allSettled(behind)
  }

  async rollback(): Promise<void> {
    this.#turn.askAll()
    this.#ended = true
    await this.#ask({ text: 'rollback' })
  }
}
