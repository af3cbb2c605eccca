import { randomBytes } from 'node:crypto'
import { openDatabase, type Database } from '@haven/db'
import pg from 'pg'

export type TestDatabase = AsyncDisposable & {
  readonly url: string
  readonly db: Database
}

/** A migrated, empty database of the caller's own (a clone: about 50 ms). Dispose it at the end of the spec file. */
export async function testDatabase(): Promise<TestDatabase> {
  const name = `haven_${randomBytes(6).toString('hex')}`
  await maintain(`create database ${name} template haven_template`)
  const url = serverUrl(name)
  const db = openDatabase({ url, applicationName: 'haven-test', poolSize: 4 })
  return {
    url,
    db,
    async [Symbol.asyncDispose]() {
      await db[Symbol.asyncDispose]()
      await maintain(`drop database ${name} with (force)`)
    },
  }
}

/** A database that does not exist yet, for what migrates or boots by itself. */
export const freshDatabaseUrl = (): string => serverUrl(`haven_${randomBytes(6).toString('hex')}`)

/** One statement on a connection of its own, for what no API tells. */
export async function queryOnce<Row extends pg.QueryResultRow>(
  url: string,
  sql: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Row>(sql, [...values])).rows
  } finally {
    await client.end()
  }
}

/** What the server says aside while these run on one connection: with auto_explain, the plans inside functions. */
export async function noticesOf(url: string, statements: readonly string[]): Promise<string[]> {
  const client = new pg.Client({ connectionString: url })
  const notices: string[] = []
  client.on('notice', ({ message }) => notices.push(message ?? ''))
  await client.connect()
  try {
    for (const each of statements) await client.query(each)
    return notices
  } finally {
    await client.end()
  }
}

function serverUrl(database: string): string {
  const server = process.env.HAVEN_TEST_POSTGRES
  if (!server)
    throw new Error('HAVEN_TEST_POSTGRES is not set: run the tests with `pnpm test`, whose set-up starts a Postgres')
  const url = new URL(server)
  url.pathname = `/${database}`
  return url.href
}

async function maintain(sql: string) {
  // Cloning a template fails while another session copies it, so clones queue up on one lock.
  const client = new pg.Client({ connectionString: serverUrl('postgres') })
  await client.connect()
  try {
    await client.query('select pg_advisory_lock(1)')
    await client.query(sql)
  } finally {
    await client.end()
  }
}
