import { openDatabase } from '@haven/db'
import { problems } from '@haven/errors'
import { rotateSigningKey } from '@haven/identity'
import { Settings } from '@haven/settings'
import { Home } from '../home.ts'
import { proveEncryptionKey, sealerOf } from '../installation.ts'
import type { LauncherConfig } from '../settings.ts'

/** In the audit log. */
const byHand = { principal: { kind: 'service', name: 'haven rotate-keys' } } as const

/**
 * Lets a new key sign tokens from now on, of the installation that runs below this home or that DATABASE_URL names. The job service does
 * it by itself when the key is old; this is for whoever does not want to wait.
 * @throws Problem databaseUnreachable, keyUnreadable
 */
export async function rotateKeys(
  config: LauncherConfig & { home: string },
  env: NodeJS.ProcessEnv,
  print: (line: string) => void,
): Promise<void> {
  const home = new Home(config.home)
  const url = config.databaseUrl ?? (home.exists() ? home.readState()?.databaseUrl : undefined)
  if (url === undefined) {
    throw problems.databaseUnreachable({ reason: `nothing runs below ${config.home} and DATABASE_URL is not set` })
  }
  const sealer = sealerOf(env.HAVEN_ENCRYPTION_KEY ?? (home.exists() ? home.secrets().HAVEN_ENCRYPTION_KEY : undefined))
  await using db = openDatabase({ url, applicationName: 'haven-rotate-keys', poolSize: 1 })
  await proveEncryptionKey(db, sealer)
  using settings = new Settings(db, sealer)
  const tokenLifetimeMs = (await settings.read()).token_expiration * 60_000
  const { kid } = await rotateSigningKey(db, sealer, { tokenLifetimeMs, source: byHand })
  print(`key ${kid} signs tokens now`)
}
