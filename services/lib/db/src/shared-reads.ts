import type pg from 'pg'
import type { Sql } from './sql.ts'
import { saidNo } from './pipelined-reads.ts'
import { RowsOfATurn, type Statement } from './statement.ts'

/**
 * `running` is null once it was answered and is not in the map any more: V8 keeps tables that a map has outgrown until its next full collection,
 * and those should not keep every answer.
 */
type Asked = { begun: boolean; running: Promise<object[]> | null; next: Promise<object[]> | null }

/**
 * Reads for many who ask the same at once: whoever asks while the same question is being answered shares the next answer with all others who ask
 * in that time. Each answer is read after it was asked for, so it is as new as one of its own. The rows are shared too: not to be changed.
 *
 * A read begins when everything that arrived with it has been looked at: requests of the same moment share it from the start, different questions
 * leave in one write, and those of a statement of rows in one execution.
 */
export class SharedReads implements Sql {
  readonly #reads: Sql
  readonly #asked = new Map<string, Asked>()
  readonly #turn: RowsOfATurn
  #arrived: Promise<void> | null = null

  constructor(reads: Sql) {
    this.#reads = reads
    this.#turn = new RowsOfATurn((statement, values) => reads.rows(statement, values), mayBeOfOneRow)
  }

  rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const key = statement.name + JSON.stringify(values)
    const asked = this.#asked.get(key)
    if (!asked) return this.#run(key, statement, values)
    if (!asked.begun) return asked.running as Promise<Row[]>
    // The running answer may have been read before this question came.
    const again = () => this.#run(key, statement, values)
    asked.next ??= asked.running!.then(again, again)
    return asked.next as Promise<Row[]>
  }

  async one<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row | null> {
    return (await this.rows(statement, values))[0] ?? null
  }

  #run<Row extends object>(key: string, statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const read = () => {
      asked.begun = true
      return (statement.types ? this.#turn : this.#reads).rows(statement, values)
    }
    const forget = () => {
      if (this.#asked.get(key) !== asked || asked.next !== null) return
      this.#asked.delete(key)
      asked.running = null
    }
    const running = this.#allArrived().then(read)
    const asked: Asked = { begun: false, running, next: null }
    this.#asked.set(key, asked)
    running.then(forget, forget)
    return running
  }

  /** Resolves when the loop has looked at all sockets that had something to say. */
  #allArrived(): Promise<void> {
    this.#arrived ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#arrived = null
        resolve()
      })
    })
    return this.#arrived
  }
}

/** A value that cannot be computed, or a row that cannot be read. What all waited for in vain is not waited for again. */
const mayBeOfOneRow = (error: unknown) => saidNo(error) && /^(?:22|XX)/.test((error as pg.DatabaseError).code ?? '')
