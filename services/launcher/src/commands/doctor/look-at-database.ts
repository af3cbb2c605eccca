import { missingMigrations, NewerSchema, type Database } from '@haven/db'
import { problems } from '@haven/errors'
import { clockSkewSeconds, opensCanary, sealerOf } from '../../installation.ts'
import { failure, reasonOf, warning, type Finding, type Look } from './finding.ts'
import type { Ground } from './ground.ts'
import { isOlder, oldest } from './oldest.ts'

const REFUSED_SKEW_SECONDS = 60
const SKEW_SECONDS = 5
/** Connections of one process beside its two pools: announcements, pipelined reads, the watch. */
const OTHER_CONNECTIONS = 4

/** Postgres itself, our schema in it, its clock, and whether our key opens what is sealed in it. */
export async function lookAtDatabase({ db, databaseUrl, shared, env, isRunning }: Ground): Promise<Look[]> {
  if (databaseUrl === null) {
    return [{ at: 'Postgres', said: 'embedded, and not running: make up starts it', findings: [] }]
  }
  if (db === null) {
    const finding = failure(
      'postgres.url',
      'DATABASE_URL is no URL',
      'set it to postgresql://user:password@host:5432/haven',
    )
    return [{ at: 'Postgres', said: 'cannot be asked', findings: [finding] }]
  }
  try {
    await db.check()
  } catch (error) {
    return [{ at: 'Postgres', said: 'does not answer', findings: [unreachable(error)] }]
  }
  const missing = await missingOf(databaseUrl)
  return [
    await server(db, Number(env.DATABASE_POOL) || 8),
    schema(missing, isRunning),
    await clock(db),
    await sealing(db, shared.HAVEN_ENCRYPTION_KEY, missing),
  ]
}

const advice: Readonly<Record<string, string>> = {
  '28P01': 'correct the user and the password in DATABASE_URL',
  '28000': 'let this user and address in (pg_hba.conf), or correct DATABASE_URL',
  '53300': 'raise max_connections, or lower DATABASE_POOL',
  '57P03': 'wait until it has started or recovered',
  ENOTFOUND: 'correct the host in DATABASE_URL, or the name server',
  ECONNREFUSED: 'start Postgres, or correct host and port in DATABASE_URL',
}

function unreachable(error: unknown): Finding {
  const { code = '' } = error as { code?: string }
  if (code === '3D000') {
    return warning(
      'postgres.no-database',
      reasonOf(error),
      'nothing: the first start makes it, if the user may make databases',
    )
  }
  const todo = advice[code] ?? 'see that it runs and that this machine may connect to it'
  return failure('postgres.unreachable', `Postgres does not let us in: ${reasonOf(error)}`, todo)
}

type Server = {
  version: string
  encoding: string
  readOnly: boolean
  mayCreate: boolean
  fsync: string
  fullPageWrites: string
  synchronousCommit: string
  maxConnections: number
  reserved: number
  used: number
  forbidden: number
}

async function server(db: Database, poolSize: number): Promise<Look> {
  const [row] = await db.prisma.$queryRaw<Server[]>`
    select current_setting('server_version') as version,
           current_setting('server_encoding') as encoding,
           pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as "readOnly",
           has_database_privilege(current_database(), 'CREATE') as "mayCreate",
           current_setting('fsync') as fsync,
           current_setting('full_page_writes') as "fullPageWrites",
           current_setting('synchronous_commit') as "synchronousCommit",
           current_setting('max_connections')::int as "maxConnections",
           current_setting('superuser_reserved_connections')::int as reserved,
           (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as used,
           (select count(*)::int from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname !~ '^(pg_|information_schema$)' and c.relkind in ('r', 'p')
               and not (has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
                        and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete'))) as forbidden`
  const it = row!
  const free = it.maxConnections - it.reserved - it.used
  const processNeeds = 2 * poolSize + OTHER_CONNECTIONS
  const findings: Finding[] = []
  const find = (when: boolean, finding: Finding) => when && findings.push(finding)
  find(
    isOlder(it.version, oldest.postgres),
    failure('postgres.old', `Postgres is ${it.version}`, `upgrade to PostgreSQL ${oldest.postgres} or a newer one`),
  )
  find(
    it.readOnly,
    failure(
      'postgres.read-only',
      'Postgres takes no changes: it is a replica, or was made read-only',
      'name the primary in DATABASE_URL',
    ),
  )
  find(
    it.encoding !== 'UTF8',
    failure('postgres.encoding', `the database is encoded as ${it.encoding}`, 'make it anew with the encoding UTF8'),
  )
  find(
    it.fsync !== 'on' || it.fullPageWrites !== 'on',
    failure(
      'postgres.not-durable',
      `Postgres runs with fsync=${it.fsync} and full_page_writes=${it.fullPageWrites}: a crash of its machine may lose or damage everything`,
      'switch both on and restart it',
    ),
  )
  find(
    it.synchronousCommit === 'off',
    failure(
      'postgres.late-commit',
      'Postgres runs with synchronous_commit=off: a crash loses pushes that were acknowledged',
      'switch it on, for the server or for this user',
    ),
  )
  find(
    !it.mayCreate || it.forbidden > 0,
    failure(
      'postgres.rights',
      it.mayCreate
        ? `the user may not write ${it.forbidden} of the tables`
        : 'the user may not create schemas in this database',
      'make the user of DATABASE_URL the owner of the database and of what is in it',
    ),
  )
  find(
    free < processNeeds,
    warning(
      'postgres.connections',
      `${Math.max(0, free)} of ${it.maxConnections} connections are free, and one process may take ${processNeeds}`,
      'raise max_connections, or lower DATABASE_POOL',
    ),
  )
  return { at: 'Postgres', said: `${it.version}, ${it.used} of ${it.maxConnections} connections in use`, findings }
}

async function missingOf(url: string): Promise<readonly string[] | NewerSchema> {
  try {
    return await missingMigrations(url)
  } catch (error) {
    if (error instanceof NewerSchema) return error
    throw error
  }
}

function schema(missing: readonly string[] | NewerSchema, isRunning: boolean): Look {
  const at = 'schema'
  if (missing instanceof NewerSchema) {
    const todo = 'run the version of Haven that made it, or a newer one; going back needs a backup from before'
    return { at, said: 'newer than this version', findings: [failure('schema.newer', missing.message, todo)] }
  }
  if (missing.length === 0) return { at, said: 'up to date', findings: [] }
  const waiting = `${missing.length} migrations are applied at the next start`
  // Before a start that is as it should be; of what runs it says that an older Haven does.
  const finding = warning('schema.behind', waiting, 'restart Haven, or run haven migrate')
  return { at, said: waiting, findings: isRunning ? [finding] : [] }
}

async function clock(db: Database): Promise<Look> {
  const skew = await clockSkewSeconds(db)
  const what = `this machine's clock is ${Math.abs(skew)} s ${skew < 0 ? 'behind' : 'ahead of'} that of Postgres`
  const make = Math.abs(skew) > REFUSED_SKEW_SECONDS ? failure : warning
  const findings =
    Math.abs(skew) > SKEW_SECONDS ? [make('clock.database', what, 'let both machines follow a time server (NTP)')] : []
  return { at: 'clock', said: `${skew} s from that of Postgres`, findings }
}

async function sealing(db: Database, key: string | undefined, missing: readonly string[] | NewerSchema): Promise<Look> {
  const at = 'encryption key'
  let sealer
  try {
    sealer = sealerOf(key)
  } catch (error) {
    if (!problems.keyUnreadable.is(error)) throw error
    const todo = 'set HAVEN_ENCRYPTION_KEY to the one that this installation has had from the start'
    return { at, said: 'cannot be used', findings: [failure('key.unreadable', error.message, todo)] }
  }
  const canary = Array.isArray(missing) && missing.length > 0 ? null : await db.readKeyCanary()
  if (canary === null) return { at, said: 'nothing is sealed with it yet', findings: [] }
  if (opensCanary(canary, sealer)) return { at, said: 'opens what is sealed in the database', findings: [] }
  const finding = failure(
    'key.other',
    'what is sealed in the database was sealed with another key than HAVEN_ENCRYPTION_KEY',
    'put back the key of this installation, from your backup or from the secrets.json of its home',
  )
  return { at, said: 'is another', findings: [finding] }
}
