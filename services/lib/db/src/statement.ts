/** One statement of the pull or push path: prepared once a connection under its name. */
export type Statement<Row extends object> = {
  readonly name: string
  readonly text: string
  readonly row?: Row
  /** Of a statement of rows: the type of each value. */
  readonly types?: readonly ColumnType[]
}

/** Declares a prepared statement. The name must be unique in the process: Postgres keeps it for the life of the connection. */
export const statement = <Row extends object>(name: string, text: string): Statement<Row> => ({ name, text })

/**
 * Declares a prepared statement that does the same for many rows at once: who asks gives the values of one row and gets the rows of its answer,
 * and those who ask in the same turn, of a shared transaction or of `Database.reads`, are one execution.
 * @param by the order of rows, in which it should lock and write; null: it does neither
 * @param text follows `with given as (…)`, which has the columns and `n`, the number of the row. Each row of the answer has the `n` (an int) of
 *   the row it is for; it may be left out where nobody waits for an answer
 */
export const statementOfRows = <Row extends object>(
  name: string,
  columns: Readonly<Record<string, ColumnType>>,
  by: string | null,
  text: string,
): Statement<Row> => {
  const names = Object.keys(columns)
  const types = Object.values(columns)
  // Behind a select, so that the planner does not look how many there are and plan each time for so many.
  const arrays = types.map((type, n) => `(select $${n + 1}::${type}[])`).join(', ')
  // A range of which nothing is known counts as a two-hundredth: the planner expects one row instead of ten, and looks each up by its key where it
  // would read a table that was small when it planned, and has grown by what was deleted from it since.
  const given = `select * from unnest(${arrays}) with ordinality as g (${names.join(', ')}, n) where n between 1 and 1000000000`
  const as = by === null ? `not materialized (${given})` : `materialized (${given} order by ${by})`
  return { name, types, text: `with given as ${as}\n${text}` }
}

/** Among what a statement selects: its commit does not wait for the disk, and a crash of the server may undo the last half second of such. */
export const UNSYNCED = `set_config('synchronous_commit', 'off', true)`

type Encoding = { readonly oid: number; readonly write: (value: never) => Buffer }

const number = (bytes: number, write: (into: Buffer, value: number) => void) => (value: number) => {
  const encoded = Buffer.allocUnsafe(bytes)
  write(encoded, value)
  return encoded
}

/** As the server's `…recv` functions read them. */
const encodings = {
  int4: { oid: 23, write: number(4, (into, value) => into.writeInt32BE(value)) },
  int8: {
    oid: 20,
    write: (value: number | string | bigint) => {
      const encoded = Buffer.allocUnsafe(8)
      encoded.writeBigInt64BE(BigInt(value))
      return encoded
    },
  },
  float8: { oid: 701, write: number(8, (into, value) => into.writeDoubleBE(value)) },
  text: { oid: 25, write: (value: string) => Buffer.from(value) },
  bytea: { oid: 17, write: (value: Buffer) => value },
  jsonb: { oid: 3802, write: (value: string) => Buffer.from(`\x01${value}`) },
} satisfies Record<string, Encoding>

export type ColumnType = keyof typeof encodings

/**
 * A Postgres array in its binary form: the driver sends a buffer as it is, where an array would be written out as text with each element escaped,
 * and read as such.
 */
function arrayOf(type: ColumnType, values: readonly unknown[]): Buffer {
  const { oid, write } = encodings[type] as Encoding
  const parts: Buffer[] = []
  let nulls = 0
  for (const value of values) {
    const length = Buffer.allocUnsafe(4)
    if (value === null || value === undefined) {
      nulls = 1
      length.writeInt32BE(-1)
      parts.push(length)
    } else {
      const encoded = write(value as never)
      length.writeInt32BE(encoded.length)
      parts.push(length, encoded)
    }
  }
  const head = Buffer.allocUnsafe(20)
  // Dimensions, whether there are nulls, type of the elements; of the dimension: length, first index.
  for (const [n, word] of [1, nulls, oid, values.length, 1].entries()) head.writeInt32BE(word, n * 4)
  return Buffer.concat([head, ...parts])
}

/** One execution of a statement of rows for all of these: what to ask, and its values. */
export function ofAll<Row extends object>(
  { name, text, types = [] }: Statement<Row>,
  rows: readonly (readonly unknown[])[],
): [Statement<Row>, unknown[]] {
  const column = (n: number) => rows.map((row) => row[n])
  return [{ name, text }, types.map((type, n) => arrayOf(type, column(n)))]
}

type Asked = {
  readonly values: readonly unknown[]
  readonly resolve: (rows: object[]) => void
  readonly reject: (error: unknown) => void
}

/** Nobody's answer waits for those of more others. */
const MOST_ROWS = 32

/** Statements of rows, of which those that are asked in the same turn are one execution. */
export class RowsOfATurn {
  readonly #run: (statement: Statement<object>, values: readonly unknown[]) => Promise<object[]>
  readonly #ofOneRow: (error: unknown) => boolean
  #asked = new Map<Statement<object>, Asked[]>()

  /** @param ofOneRow whether a failure may be due to a single row, and the others may be asked again. */
  constructor(
    run: (statement: Statement<object>, values: readonly unknown[]) => Promise<object[]>,
    ofOneRow: (error: unknown) => boolean,
  ) {
    this.#run = run
    this.#ofOneRow = ofOneRow
  }

  rows<Row extends object>(statement: Statement<Row>, values: readonly unknown[]): Promise<Row[]> {
    const { promise, resolve, reject } = Promise.withResolvers<object[]>()
    // After everybody who goes on with the same answer has asked.
    if (this.#asked.size === 0) process.nextTick(() => this.askAll())
    const asked = { values, resolve, reject }
    const others = this.#asked.get(statement)
    if (others) others.push(asked)
    else this.#asked.set(statement, [asked])
    return promise as Promise<Row[]>
  }

  /** Now, instead of at the end of the turn. */
  askAll(): void {
    const turn = this.#asked
    // Not `clear`, after which V8 keeps what was in it until its next full collection: each cleared table leads to the next.
    this.#asked = new Map()
    for (const [statement, asked] of turn) {
      for (let n = 0; n < asked.length; n += MOST_ROWS) void this.#askFor(statement, asked.slice(n, n + MOST_ROWS))
    }
  }

  async #askFor(statement: Statement<object>, asked: readonly Asked[]): Promise<void> {
    try {
      const given = asked.map(({ values }) => values)
      const answers: object[][] = asked.map(() => [])
      for (const row of await this.#run(...ofAll(statement, given))) answers[(row as { n: number }).n - 1]!.push(row)
      for (const [n, { resolve }] of asked.entries()) resolve(answers[n]!)
    } catch (error) {
      if (asked.length > 1 && this.#ofOneRow(error)) for (const one of asked) void this.#askFor(statement, [one])
      else for (const { reject } of asked) reject(error)
    }
  }
}
