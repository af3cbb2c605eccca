import type pg from 'pg'
import { ofAll, type Statement } from './statement.ts'

/** Runs prepared statements: the pipelined read connection, a pool, or one connection inside a transaction. */
export interface Sql {
  rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]>
  one<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row | null>
}

/** Sends one query over a connection. */
export type Run = (query: pg.QueryConfig) => Promise<pg.QueryResult>

export class Queries implements Sql {
  readonly #run: Run

  constructor(run: Run) {
    this.#run = run
  }

  async rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    if (statement.types) return this.rows(...ofAll(statement, [values]))
    const result = await this.#run({ name: statement.name, text: statement.text, values: [...values] })
    return result.rows as Row[]
  }

  async one<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row | null> {
    return (await this.rows(statement, values))[0] ?? null
  }
}
