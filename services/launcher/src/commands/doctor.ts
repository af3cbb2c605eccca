import { statfsSync } from 'node:fs'
import { missingMigrations, openDatabase } from '@haven/db'
import { isUnavailable, problems } from '@haven/errors'
import { openStorage, readStorageConfig } from '@haven/storage'
import { Redis } from 'ioredis'
import { askDoor } from '../ask.ts'
import { Home, isAlive } from '../home.ts'
import { clockSkewSeconds, proveEncryptionKey, sealerOf } from '../installation.ts'
import type { LauncherConfig } from '../settings.ts'

type Finding = { what: string; ok: boolean; said: string }

/**
 * Looks at everything that this installation stands on and says what to do about what is wrong. Changes nothing, but for a probe object in the store
 * that is removed again. Returns whether all is well.
 */
export async function doctor(
  config: LauncherConfig,
  env: NodeJS.ProcessEnv,
  print: (line: string) => void,
): Promise<boolean> {
  const home = new Home(config.home)
  const state = home.exists() ? home.readState() : null
  const running = state !== null && state.phase === 'running' && isAlive(state.pid)
  const databaseUrl = config.databaseUrl ?? state?.databaseUrl
  const redisUrl = config.redisUrl ?? state?.redisUrl
  const secrets = home.exists() ? { ...home.secrets(), ...env } : env

  const findings: Finding[] = [
    await look('installation', async () =>
      running ? `running at ${state.address}` : `not running below ${config.home}`,
    ),
    await look('disk', async () => freeSpace(config.home)),
    ...(databaseUrl === undefined ? [skipped('Postgres')] : await database(databaseUrl, secrets.HAVEN_ENCRYPTION_KEY)),
    redisUrl === undefined ? skipped('Redis') : await look('Redis', () => redis(redisUrl)),
    await look('store', () => store({ STORAGE_PATH: home.blobs, ...env })),
    ...(running ? [await look('clients', () => clients(state.door))] : []),
  ]
  for (const { what, ok, said } of findings) print(`${ok ? 'ok  ' : 'BAD '} ${what.padEnd(14)} ${said}`)
  return findings.every(({ ok }) => ok)
}

async function look(what: string, examine: () => Promise<string>): Promise<Finding> {
  try {
    return { what, ok: true, said: await examine() }
  } catch (error) {
    const { message } = error as Error
    return { what, ok: false, said: message }
  }
}

const skipped = (what: string): Finding => ({
  what,
  ok: true,
  said: 'embedded, and not running: `make up` starts it',
})

function freeSpace(folder: string): string {
  const { bavail, bsize } = statfsSync(folder)
  const freeMiB = Math.floor((bavail * bsize) / 1024 / 1024)
  if (freeMiB < 1024)
    throw problems.diskFull({ reason: `only ${freeMiB} MiB are free below ${folder}; make room or move HAVEN_HOME` })
  return `${freeMiB} MiB free below ${folder}`
}

async function database(url: string, key: string | undefined): Promise<Finding[]> {
  await using db = openDatabase({ url, applicationName: 'haven-doctor', poolSize: 1 })
  const reachable = await look('Postgres', async () => {
    await db.check().catch((cause: unknown) => {
      throw isUnavailable(cause) ? problems.databaseUnreachable({ reason: (cause as Error).message }, { cause }) : cause
    })
    return 'answers'
  })
  if (!reachable.ok) return [reachable]
  return [
    reachable,
    await look('schema', async () => {
      const missing = await missingMigrations(url)
      return missing.length === 0 ? 'up to date' : `${missing.length} migrations are applied at the next start`
    }),
    await look('clock', async () => {
      const skewSeconds = await clockSkewSeconds(db)
      if (Math.abs(skewSeconds) > 5) throw problems.clockSkewed({ skewSeconds })
      return `${skewSeconds} s from the database's`
    }),
    await look('encryption key', async () => {
      await proveEncryptionKey(db, sealerOf(key))
      return 'opens what is sealed in the database'
    }),
  ]
}

async function redis(url: string): Promise<string> {
  const client = new Redis(url, {
    maxRetriesPerRequest: 0,
    connectTimeout: 3_000,
    lazyConnect: true,
    retryStrategy: null,
  })
  // The reason comes with the connect below; the event only repeats it.
  client.on('error', () => undefined)
  try {
    await client.connect()
    const policy = (await client.config('GET', 'maxmemory-policy')) as string[] | Record<string, string>
    const [, value] = Array.isArray(policy) ? policy : Object.entries(policy)[0]!
    if (value !== 'noeviction') {
      throw problems.redisUnreachable({ reason: `maxmemory-policy is ${value}; queues need noeviction` })
    }
    return 'answers, evicts nothing'
  } catch (cause) {
    throw problems.redisUnreachable.is(cause)
      ? cause
      : problems.redisUnreachable({ reason: (cause as Error).message }, { cause })
  } finally {
    client.disconnect()
  }
}

async function store(env: NodeJS.ProcessEnv): Promise<string> {
  const config = readStorageConfig(env)
  await using storage = await openStorage(config)
  await storage.check()
  return `${config.driver}: writes, reads and removes`
}

async function clients(door: string): Promise<string> {
  const { status, headers, certificate } = await askDoor(`${door}/v2/`)
  const realm = /realm="([^"]*)"/.exec(headers['www-authenticate'] ?? '')?.[1]
  if (status !== 401 || realm === undefined) {
    throw problems.serviceUnavailable({ message: `${door}/v2/ answered ${status} without a challenge` })
  }
  const sent = `are sent to ${realm} for their tokens`
  if (!certificate) return sent
  const trusted =
    certificate.distrusted === null ? 'trusted by this machine' : `not trusted here (${certificate.distrusted})`
  return `${sent}; certificate until ${certificate.validTo}, ${trusted}`
}
