import { createHash, randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import pg from 'pg'

/** Any number of replicas may migrate at once: one applies, the others wait on this lock and find nothing to do. */
const MIGRATION_LOCK = 0x68_61_76_65

export type Migration = { name: string; sql: string; checksum: string }

/** Thrown when the database was migrated by a newer Haven; running on it could damage it. */
export class NewerSchema extends Error {
  /** The first migration that this build does not know. */
  readonly migration: string

  constructor(migration: string) {
    super(`the database holds the migration ${migration}, which this version does not know: a newer Haven has used it`)
    this.migration = migration
  }
}

/** The migrations of this build, oldest first. */
export function migrations(folder = fileURLToPath(new URL('../prisma/migrations', import.meta.url))): Migration[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort()
    .map((name) => {
      const sql = readFileSync(`${folder}/${name}/migration.sql`, 'utf8')
      return { name, sql, checksum: createHash('sha256').update(sql).digest('hex') }
    })
}

/**
 * Applies what is missing, each migration in a transaction of its own, and writes Prisma's table of applied migrations, so
 * that `prisma migrate` agrees. Creates the database if it does not exist.
 * @returns the names applied now.
 * @throws NewerSchema; an Error naming the migration that failed.
 */
export async function migrate(url: string, wanted = migrations()): Promise<string[]> {
  await createDatabase(url)
  const client = new pg.Client({ connectionString: url, application_name: 'haven-migrate' })
  await client.connect()
  try {
    await client.query('select pg_advisory_lock($1)', [MIGRATION_LOCK])
    await client.query(APPLIED_TABLE)
    const applied = await appliedMigrations(client)
    refuseNewer(applied, wanted)
    const missing = wanted.filter((m) => !applied.has(m.name))
    for (const migration of missing) await apply(client, migration)
    return missing.map((m) => m.name)
  } finally {
    await client.end()
  }
}

/**
 * Proves without changing anything that the schema is the one of this build or a later compatible one waiting to be applied.
 * @returns the migrations still missing.
 * @throws NewerSchema
 */
export async function missingMigrations(url: string, wanted = migrations()): Promise<string[]> {
  const client = new pg.Client({ connectionString: url, application_name: 'haven-migrate' })
  await client.connect()
  try {
    const table = await client.query(`select to_regclass('public._prisma_migrations') as found`)
    const applied = table.rows[0].found === null ? new Set<string>() : await appliedMigrations(client)
    refuseNewer(applied, wanted)
    return wanted.filter((m) => !applied.has(m.name)).map((m) => m.name)
  } finally {
    await client.end()
  }
}

async function apply(client: pg.Client, migration: Migration) {
  const startedAt = new Date()
  await client.query('begin')
  try {
    await client.query(migration.sql)
    await client.query(
      `insert into public._prisma_migrations (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
       values ($1, $2, $3, $4, now(), 1)`,
      [randomUUID(), migration.checksum, migration.name, startedAt],
    )
    await client.query('commit')
  } catch (cause) {
    await client.query('rollback')
    throw new Error(`migration ${migration.name} failed and was rolled back`, { cause })
  }
}

async function appliedMigrations(client: pg.Client): Promise<Set<string>> {
  const { rows } = await client.query<{ migration_name: string }>(
    'select migration_name from public._prisma_migrations where finished_at is not null and rolled_back_at is null',
  )
  return new Set(rows.map((row) => row.migration_name))
}

function refuseNewer(applied: Set<string>, wanted: Migration[]) {
  const known = new Set(wanted.map((m) => m.name))
  const [unknown] = [...applied].filter((name) => !known.has(name)).sort()
  if (unknown !== undefined) throw new NewerSchema(unknown)
}

async function createDatabase(url: string) {
  const target = new URL(url)
  const name = decodeURIComponent(target.pathname.slice(1))
  const probe = new pg.Client({ connectionString: url })
  try {
    await probe.connect()
  } catch (error) {
    if ((error as { code?: string }).code !== UNDEFINED_DATABASE) throw error
    target.pathname = '/postgres'
    const maintenance = new pg.Client({ connectionString: target.href })
    await maintenance.connect()
    try {
      await maintenance.query(`create database ${maintenance.escapeIdentifier(name)}`)
    } catch (cause) {
      if (!CREATED_MEANWHILE.has((cause as { code?: string }).code ?? '')) throw cause
    } finally {
      await maintenance.end()
    }
  } finally {
    await probe.end()
  }
}

const UNDEFINED_DATABASE = '3D000'
/** duplicate_database, or unique_violation when two replicas create it in the same instant. */
const CREATED_MEANWHILE = new Set(['42P04', '23505'])

const APPLIED_TABLE = `
  create table if not exists public._prisma_migrations (
    id varchar(36) primary key not null,
    checksum varchar(64) not null,
    finished_at timestamptz,
    migration_name varchar(255) not null,
    logs text,
    rolled_back_at timestamptz,
    started_at timestamptz not null default now(),
    applied_steps_count integer not null default 0
  )`
