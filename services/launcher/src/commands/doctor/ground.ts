import {
  ConfigProblem,
  defineConfig,
  readConfig,
  secret,
  secretsOf,
  type ConfigOf,
  type WrongSetting,
} from '@haven/config'
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
  readonly shared: ConfigOf<typeof held>
  /** Settings of the launcher that cannot be read. */
  readonly wrong: readonly WrongSetting[]
  /** Never to be printed. */
  readonly secrets: readonly string[]
}

const optional = (env: string) => secret({ env, optional: true, doc: 'As the services read it.' })
/** What the services of an installation show to each other and keep at rest, from variables or from files. */
const held = defineConfig('HELD', {
  HAVEN_ENCRYPTION_KEY: optional('HAVEN_ENCRYPTION_KEY'),
  HAVEN_PROXY_SECRET: optional('HAVEN_PROXY_SECRET'),
  CORE_SECRET: optional('CORE_SECRET'),
  JOBSERVICE_SECRET: optional('JOBSERVICE_SECRET'),
  REGISTRYCTL_SECRET: optional('REGISTRYCTL_SECRET'),
  LOG_COLLECTOR_SECRET: optional('LOG_COLLECTOR_SECRET'),
})

/** Reads everything that can be read, whatever is wrong with the rest. The caller ends the connections. */
export function survey(given: NodeJS.ProcessEnv): Ground & AsyncDisposable {
  const { value: config, wrong } = leniently(readLauncherConfig, given)
  const folder = new Home(config.home)
  const home = folder.exists() && folder.hasSecrets() ? folder : null
  const kept = keptBy(home, wrong)
  const env = { ...given, ...kept }
  const { value: shared } = leniently((from) => readConfig(held, from), env)
  const state = home?.readState() ?? null
  const isRunning = state !== null && state.phase === 'running' && isAlive(state.pid)
  const servers = isRunning ? state : null
  const databaseUrl = config.databaseUrl ?? servers?.databaseUrl ?? null
  const redisUrl = config.redisUrl ?? servers?.redisUrl ?? null
  const db = databaseUrl === null ? null : openOrNull(databaseUrl)
  return {
    config,
    env,
    home,
    state,
    isRunning,
    databaseUrl,
    db,
    redisUrl,
    shared,
    wrong,
    secrets: [
      ...secretsOf(config),
      ...Object.values(kept),
      ...secretsOf(shared),
      ...passwordsIn(env),
      ...passwordsOf(databaseUrl),
      ...passwordsOf(redisUrl),
    ],
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

/** Of variables that only other programs read, too. A value of a few letters would take them out of every word. */
const passwordsIn = (env: NodeJS.ProcessEnv) =>
  Object.entries(env).flatMap(([name, value = '']) =>
    secretName.test(name) ? (value.length < 6 ? [] : [value]) : passwordsOf(value),
  )

function passwordsOf(url: string | null): string[] {
  const { password } = URL.parse(url ?? '') ?? { password: '' }
  if (password.length < 4) return []
  try {
    return [password, decodeURIComponent(password)]
  } catch {
    return [password] // not in the encoding of URLs
  }
}
