import { defineConfig, duration, readConfig } from '@haven/config'
import { openDatabase } from '@haven/db'
import { problems } from '@haven/errors'
import { rotateSigningKey } from '@haven/identity'
import { Home } from '../home.ts'
import { proveEncryptionKey, sealerOf } from '../installation.ts'
import type { LauncherConfig } from '../settings.ts'

const rotationConfig = defineConfig('TOKEN', {
  lifetimeMs: duration({ default: '30m', doc: 'How long a bearer token is valid: as at the token service.' }),
})

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
  const { lifetimeMs } = readConfig(rotationConfig, env)
  const { kid } = await rotateSigningKey(db, sealer, { tokenLifetimeMs: lifetimeMs })
  print(`key ${kid} signs tokens now`)
}
