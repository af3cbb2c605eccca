import { ConfigProblem, defineConfig, readConfig, secret, secretsOf, type WrongSetting } from '@haven/config'
import { openDatabase, type Database } from '@haven/db'
import { problems } from '@haven/errors'
import { Home, isAlive, type InstallationSecrets, type InstallationState } from '../../home.ts'
import { readLauncherConfig, type LauncherConfig } from '../../settings.ts'

/** What a doctor looks at: an installation below a home of this machine, or one that the environment describes, or both. */
export type Ground = {
  readonly config: LauncherConfig
  /** As the services see it: the environment, and what the home keeps. */
  readonly env: NodeJS.ProcessEnv
  /** Null: there is none. */
  readonly home: Home | null
  /** Of the home; null when it was never started or was stopped in order. */
  readonly state: InstallationState | null
  readonly isRunning: boolean
  readonly databaseUrl: string | null
  /** Null when there is no URL. It may not answer. */
  readonly db: Database | null
  readonly redisUrl: string | null
  readonly encryptionKey: string | null
  /** Settings of the launcher that cannot be read. */
  readonly wrong: readonly WrongSetting[]
  /** Never to be printed. */
  readonly secrets: readonly string[]
}

const sealing = defineConfig('SEALING', {
  key: secret({ env: 'HAVEN_ENCRYPTION_KEY', optional: true, doc: 'Seals secrets at rest.' }),
})

/** Reads everything that can be read, whatever is wrong with the rest. The caller ends the connections. */
export function survey(given: NodeJS.ProcessEnv): Ground & AsyncDisposable {
  const { value: config, wrong } = leniently(readLauncherConfig, given)
  const folder = new Home(config.home)
  const home = folder.exists() && folder.hasSecrets() ? folder : null
  const kept = keptBy(home, wrong)
  const env = { ...given, ...kept }
  const { value: key } = leniently((from) => readConfig(sealing, from), env)
  const state = home?.readState() ?? null
  const isRunning = state !== null && state.phase === 'running' && isAlive(state.pid)
  const servers = isRunning ? state : null
  const databaseUrl = config.databaseUrl ?? servers?.databaseUrl ?? null
  const db = databaseUrl === null ? null : openOrNull(databaseUrl)
  return {
    config,
    env,
    home,
    state,
    isRunning,
    databaseUrl,
    db,
    redisUrl: config.redisUrl ?? servers?.redisUrl ?? null,
    encryptionKey: key.key ?? null,
    wrong,
    secrets: [...secretsOf(config), ...Object.values(kept), ...secretsOf(key), ...passwordsIn(env)],
    async [Symbol.asyncDispose]() {
      await db?.[Symbol.asyncDispose]()
    },
  }
}

function keptBy(home: Home | null, wrong: WrongSetting[]): Partial<InstallationSecrets> {
  try {
    return home?.secrets() ?? {}
  } catch (error) {
    if (!problems.keyUnreadable.is(error)) throw error
    wrong.push({
      name: 'secrets.json of the home',
      given: 'unreadable',
      expected: 'what it was: put it back from a backup',
    })
    return {}
  }
}

/** Reads settings as if those that are wrong were not given. */
export function leniently<T>(
  read: (env: NodeJS.ProcessEnv) => T,
  given: NodeJS.ProcessEnv,
): { value: T; wrong: WrongSetting[] } {
  const env = { ...given }
  const wrong: WrongSetting[] = []
  for (;;) {
    try {
      return { value: read(env), wrong }
    } catch (error) {
      if (!(error instanceof ConfigProblem)) throw error
      const removable = error.wrong.filter(({ name }) => env[name] !== undefined)
      if (removable.length === 0) throw error
      wrong.push(...error.wrong)
      for (const { name } of removable) delete env[name]
    }
  }
}

/** A URL that no client takes is a finding and no end. */
function openOrNull(url: string): Database | null {
  return URL.canParse(url) ? openDatabase({ url, applicationName: 'haven-doctor', poolSize: 2 }) : null
}

const secretName = /(?:SECRET|PASSWORD|KEY|TOKEN)$/

/** Of variables that only other programs read, too, and of URLs. */
const passwordsIn = (env: NodeJS.ProcessEnv) =>
  Object.entries(env).flatMap(([name, value = '']) => {
    if (secretName.test(name)) return value.length < 6 ? [] : [value]
    const { password } = URL.parse(value) ?? { password: '' }
    return password === '' ? [] : [password, decodeURIComponent(password)]
  })
