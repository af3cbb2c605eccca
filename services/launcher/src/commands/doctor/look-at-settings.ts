import { ConfigProblem, readConfig } from '@haven/config'
import { certificateSource, proxyConfig } from '@haven/proxy/config'
import { readStorageConfig, storageConfig } from '@haven/storage'
import { targetOf, tracingConfig } from '@haven/telemetry'
import { definitions } from '../../definitions.ts'
import { serviceNames } from '../../targets.ts'
import { failure, warning, type Finding, type Look } from './finding.ts'
import { leniently, type Ground } from './ground.ts'

const all = Object.values(definitions)

/** Without these nothing starts; where a home keeps an installation it has them by itself. */
const needed = ['DATABASE_URL', 'REDIS_URL', 'HAVEN_ENCRYPTION_KEY']

/** Whether the services could read what is set, and whether anybody reads it. */
export async function lookAtSettings(ground: Ground): Promise<Look[]> {
  const { env, home, wrong, config, shared } = ground
  const readers = [
    ...all.filter((each) => each !== storageConfig).map((each) => () => void readConfig(each, env)),
    () => void readStorageConfig({ STORAGE_PATH: home?.blobs, ...env }),
    () => void targetOf(readConfig(tracingConfig, env)),
  ]
  const found = [...wrong, ...readers.flatMap(wrongIn)]
  // What else a service must have and is not set, is another container's.
  const told = new Map(
    [
      ...found.filter(({ name, given }) => given !== null || (home === null && needed.includes(name))),
      ...wrongIn(() => void certificateSource(leniently(doorOf, { PROXY_TLS: config.tls, ...env }).value)),
    ].map((one) => [one.name, one]),
  )
  const findings: Finding[] = [
    ...[...told.values()].map(({ name, given, expected }) =>
      failure('settings.invalid', `${name} is ${given ?? 'not set'}`, `set it to ${expected}`),
    ),
    ...unknownNames(env)
      .filter((name) => !told.has(name))
      .map((name) =>
        warning('settings.unknown', `nothing reads ${name}`, 'correct its name, or take it out of the environment'),
      ),
    ...weakSecrets(shared),
    ...knownPassword(env),
  ]
  const set = Object.keys(env).filter(isSetting).length
  return [{ at: 'settings', said: `${set} are set`, findings }]
}

/** Whatever else the door needs: only its certificate is looked for. */
const doorOf = (env: NodeJS.ProcessEnv) => readConfig(proxyConfig, { ...env, HAVEN_PROXY_SECRET: 'x'.repeat(32) })

function wrongIn(read: () => void) {
  try {
    read()
    return []
  } catch (error) {
    if (error instanceof ConfigProblem) return error.wrong
    throw error
  }
}

const known = new Set([
  ...all.flatMap(({ names }) => Object.values(names)),
  ...serviceNames.flatMap((service) => {
    const prefix = service.toUpperCase().replaceAll('-', '_')
    return [`${prefix}_URL`, `${prefix}_HOST`, `${prefix}_PORT`]
  }),
  'HAVEN_PROCESS',
  'HAVEN_SERVICE', // of the images' health check
])
/** Whether a service reads the variable of this name. */
export const isSetting = (name: string): boolean => known.has(name.replace(/_FILE$/, ''))

const ours = new RegExp(`^(?:S3|${all.map(({ prefix }) => prefix).join('|')})_`)
/** Kubernetes tells every container of a namespace where its services are, by variables like our own. */
const ofKubernetes = /_(?:SERVICE_(?:HOST|PORT)(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP)(?:_\w+)?)?)$/

const unknownNames = (env: NodeJS.ProcessEnv) =>
  Object.keys(env).filter((name) => env[name] && ours.test(name) && !isSetting(name) && !ofKubernetes.test(name))

/** A random secret of 32 characters has more different ones in all but one of 10⁹ cases. */
const FEWEST_CHARACTERS = 10
const publicPasswords = new Set(['Harbor12345', 'admin', 'password', 'changeit'])

function weakSecrets(shared: Ground['shared']): Finding[] {
  const given = Object.entries(shared).flatMap(([name, value]) => (value === undefined ? [] : [{ name, value }]))
  const equal = given.filter(({ value }) => given.filter((other) => other.value === value).length > 1)
  const names = (list: typeof given) => list.map(({ name }) => name).join(' and ')
  const poor = given.filter(({ value }) => new Set(value).size < FEWEST_CHARACTERS)
  const make = 'make one for each, such as by openssl rand -base64 32'
  return [
    ...(equal.length > 0
      ? [failure('secrets.equal', `${names(equal)} are the same: who knows one has the others`, make)]
      : []),
    ...(poor.length > 0 ? [failure('secrets.weak', `${names(poor)} can be guessed`, make)] : []),
  ]
}

function knownPassword({ HAVEN_ADMIN_PASSWORD: password = '' }: NodeJS.ProcessEnv): Finding[] {
  if (!publicPasswords.has(password)) return []
  const todo = 'change the password of the administrator in the portal if the first start used it, and set another here'
  return [warning('secrets.known-password', 'HAVEN_ADMIN_PASSWORD is a password that everybody knows', todo)]
}
