import type { Sql, Statement } from './database.ts'

type Asked = { running: Promise<object[]>; next: Promise<object[]> | null }

/**
 * Reads for many who ask the same at once: whoever asks while the same question is being answered shares the next answer with all
 * others who ask in that time. Each answer is read after it was asked for, so it is as new as one of its own. The rows are shared too:
 * they must not be changed.
 */
export class SharedReads implements Sql {
  readonly #reads: Sql
  readonly #asked = new Map<string, Asked>()

  constructor(reads: Sql) {
    this.#reads = reads
  }

  rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const key = statement.name + JSON.stringify(values)
    const asked = this.#asked.get(key)
    if (!asked) return this.#run(key, statement, values)
    // The running answer may have been read before this question came.
    const again = () => this.#run(key, statement, values)
    asked.next ??= asked.running.then(again, again)
    return asked.next as Promise<Row[]>
  }

  async one<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row | null> {
    return (await this.rows(statement, values))[0] ?? null
  }

  async #run<Row extends object>(key: string, statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const running = this.#reads.rows(statement, values)
    const asked: Asked = { running, next: null }
    this.#asked.set(key, asked)
    try {
      return await running
    } finally {
      if (this.#asked.get(key) === asked && asked.next === null) this.#asked.delete(key)
    }
  }
}
