import { spawnSync } from 'node:child_process'
import { accessSync, constants, mkdirSync } from 'node:fs'
import { basename, delimiter, join } from 'node:path'
import { startServer, type ServerProcess } from './child.ts'

export type RedisOptions = {
  folder: string
  port: number
  /** true: append-only file, synced every second. false only for tests. */
  durable: boolean
  onOutput?: (text: string) => void
}

export type EmbeddedRedis = ServerProcess & { readonly url: string }

/** Thrown when this machine has no Redis and we may not install one; the message holds the line to type. */
export class NoRedis extends Error {}

/**
 * Starts a redis-server (or valkey-server) of this machine on loopback. After a power cut its file may end with what is no command: zeros, where its
 * length reached the disk and the last second's bytes did not. Redis goes on by itself only after a file that is too short, so the end is cut off here.
 * @throws NoRedis
 */
export async function startRedis(options: RedisOptions): Promise<EmbeddedRedis> {
  mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  const durability = options.durable ? ['--appendonly', 'yes', '--appendfsync', 'everysec'] : ['--appendonly', 'no']
  const file = await redisBinary(options.onOutput)
  const start = {
    file,
    args: [
      ...['--port', String(options.port), '--bind', '127.0.0.1', '--dir', options.folder, '--save', ''],
      ...['--pidfile', join(options.folder, 'redis.pid')],
      ...['--maxmemory-policy', 'noeviction', '--daemonize', 'no'],
      ...(options.durable ? [] : ['--enable-debug-command', 'yes']),
      ...durability,
    ],
    ready: /Ready to accept connections/,
    readyMs: 30_000,
    ...(options.onOutput ? { onOutput: options.onOutput } : {}),
  }
  const server = await startServer(start).catch((error: Error) => {
    if (!/Bad file format reading the append only file/.test(error.message)) throw error
    cutOff(file, options)
    return startServer(start)
  })
  return { ...server, url: `redis://127.0.0.1:${options.port}` }
}

/** As `redis-check-aof --fix`, which is the same program under another name. */
function cutOff(server: string, { folder, onOutput }: RedisOptions): void {
  const { status, stdout, stderr } = spawnSync(
    server,
    ['--fix', join(folder, 'appendonlydir', 'appendonly.aof.manifest')],
    { argv0: basename(server).replace('-server', '-check-aof'), input: 'y\n', encoding: 'utf8' },
  )
  onOutput?.(`${stdout}${stderr}\n`)
  if (status !== 0)
    throw new Error(`Redis cannot read its files in ${folder}, and could not cut off their end:\n${stdout}${stderr}`)
}

/** Where the server's program is; installs Debian's package when we are root and apt-get is there. @throws NoRedis */
export async function redisBinary(onOutput?: (text: string) => void): Promise<string> {
  const found = onPath('redis-server') ?? onPath('valkey-server')
  if (found) return found
  if (process.getuid?.() === 0 && onPath('apt-get')) {
    onOutput?.('installing redis-server with apt-get\n')
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    spawnSync('apt-get', ['update', '-qq'], { env })
    spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'redis-server'], { env })
    const installed = onPath('redis-server')
    if (installed) return installed
  }
  throw new NoRedis(
    'no Redis on this machine. Install it (Debian, Ubuntu: sudo apt-get install redis-server) or name one: REDIS_URL=redis://host:6379',
  )
}

function onPath(program: string): string | null {
  for (const folder of [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']) {
    const file = join(folder, program)
    try {
      accessSync(file, constants.X_OK)
      return file
    } catch {
      continue
    }
  }
  return null
}
