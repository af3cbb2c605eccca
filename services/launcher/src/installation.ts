import { migrate, NewerSchema, statement, type Database } from '@haven/db'
import { isUnavailable, problems } from '@haven/errors'
import type { Foundation } from '@haven/foundation'
import { ensureSigningKey, type Sealer } from '@haven/identity'
import { encryptionKey, open, seal } from '@haven/runtime'

const REFUSED_SKEW_SECONDS = 60

/**
 * Brings the database to this version's schema and proves that this process may work on it: by any replica, at once with others.
 * @throws Problem with an exit code of its own for each thing that is wrong.
 */
export async function prepareInstallation(foundation: Foundation): Promise<void> {
  await migrateDatabase(foundation.config.databaseUrl)
  const db = foundation.db()
  await refuseSkewedClock(db)
  await proveEncryptionKey(db, foundation.sealer())
  await ensureSigningKey(db, foundation.sealer())
}

/** @returns the names of the migrations applied now. @throws Problem databaseTooNew, databaseUnreachable */
export async function migrateDatabase(url: string): Promise<string[]> {
  try {
    return await migrate(url)
  } catch (cause) {
    if (cause instanceof NewerSchema) throw problems.databaseTooNew({ migration: cause.migration }, { cause })
    if (isUnavailable(cause)) throw problems.databaseUnreachable({ reason: (cause as Error).message }, { cause })
    throw cause
  }
}

const databaseClock = statement<{ now: Date }>('clock', 'select clock_timestamp() as now')

/** Seconds that this machine's clock is ahead of the database's. */
export async function clockSkewSeconds(db: Database): Promise<number> {
  const before = Date.now()
  const row = await db.reads.one(databaseClock, [])
  return Math.round(((before + Date.now()) / 2 - row!.now.getTime()) / 1000)
}

async function refuseSkewedClock(db: Database) {
  const skewSeconds = await clockSkewSeconds(db)
  if (Math.abs(skewSeconds) > REFUSED_SKEW_SECONDS) throw problems.clockSkewed({ skewSeconds })
}

/** @throws Problem keyUnreadable when there is no key. */
export function sealerOf(key: string | undefined): Sealer {
  if (key === undefined) throw problems.keyUnreadable({ setting: 'HAVEN_ENCRYPTION_KEY', reason: 'it is not set' })
  const bytes = encryptionKey(key)
  return { seal: (plain) => seal(bytes, plain), open: (sealed) => open(bytes, sealed) }
}

const CANARY = 'haven'

/** A changed key would make every sealed secret unreadable later, one by one; this finds it at the start. @throws Problem keyUnreadable */
export async function proveEncryptionKey(db: Database, sealer: Sealer): Promise<void> {
  const canary = await db.keyCanary(() => sealer.seal(CANARY))
  if (!opensCanary(canary, sealer)) {
    throw problems.keyUnreadable({
      setting: 'HAVEN_ENCRYPTION_KEY',
      reason: 'the secrets in this database were sealed with another key',
    })
  }
}

/** Whether the key is the one that `canary` was sealed with. */
export function opensCanary(canary: string, sealer: Sealer): boolean {
  try {
    return sealer.open(canary) === CANARY
  } catch {
    return false // authentication of the sealed text failed: it was sealed with another key
  }
}
