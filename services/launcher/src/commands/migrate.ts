import { readConfig } from '@haven/config'
import { foundationConfig } from '@haven/foundation'
import { migrateDatabase } from '../installation.ts'

/** `haven migrate`: only the schema, for those who run it as a step of its own before the services start. */
export async function migrateInstallation(env: NodeJS.ProcessEnv, print: (line: string) => void): Promise<void> {
  const applied = await migrateDatabase(readConfig(foundationConfig, env).databaseUrl)
  for (const name of applied) print(`applied ${name}`)
  if (applied.length === 0) print('the schema is up to date')
}
