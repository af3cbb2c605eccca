import { inspect } from 'node:util'
import { Problem, problems } from '@haven/errors'
import { nearest } from './nearest.ts'
import { readText, type Setting } from './settings.ts'

// oxlint-disable-next-line typescript/no-explicit-any -- a record of settings of different types has no narrower common type
export type Settings = Readonly<Record<string, Setting<any>>>

/** The settings of one service: a prefix and what may be set. */
export interface Definition<S extends Settings> {
  readonly prefix: string
  readonly settings: S
  /** Name of the variable of each key. */
  readonly names: Readonly<Record<keyof S & string, string>>
}

export type Config<S extends Settings> = {
  readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never
}

/** What a definition becomes when it is read: `type RegistryConfig = ConfigOf<typeof registryConfig>`. */
export type ConfigOf<D> = D extends Definition<infer S> ? Config<S> : never

/** Declares settings. The variable of `blobReads` under the prefix `REGISTRY` is `REGISTRY_BLOB_READS`. */
export function defineConfig<const S extends Settings>(prefix: string, settings: S): Definition<S> {
  const names: Record<string, string> = {}
  const taken = new Map<string, string>()
  for (const [key, setting] of Object.entries(settings)) {
    const name = setting.env ?? `${prefix}_${snake(key, setting.kind)}`
    for (const variable of [name, `${name}_FILE`]) {
      const other = taken.get(variable)
      if (other !== undefined) throw new TypeError(`${key} and ${other} would both be read from ${variable}`)
      taken.set(variable, key)
    }
    names[key] = name
  }
  return Object.freeze({ prefix, settings, names: Object.freeze(names) as Definition<S>['names'] })
}

/** The unit at the end of a key belongs to the value in the program; an operator writes his own unit. */
function snake(key: string, kind: string): string {
  const unit = kind === 'duration' ? /Ms$/ : kind === 'bytes' ? /Bytes$/ : /$^/
  return key
    .replace(unit, '')
    .replaceAll(/(?<=[a-z0-9])(?=[A-Z])/g, '_')
    .toUpperCase()
}

/** One thing that is wrong. `given` is as it may be printed, null when the variable is not set. */
export interface WrongSetting {
  readonly name: string
  readonly given: string | null
  readonly expected: string
}

/** All that is wrong with the settings, in one error, so that an operator corrects them in one go. Exit code 78. */
export class ConfigProblem extends Problem {
  readonly wrong: readonly WrongSetting[]

  constructor(wrong: readonly WrongSetting[]) {
    const lines = wrong.map(({ name, given, expected }) => `  ${name}: ${given ?? 'not set'}, expected ${expected}`)
    const title = wrong.length === 1 ? 'A setting is wrong:' : `${wrong.length} settings are wrong:`
    super(problems.settingsInvalid.kind, [{ message: [title, ...lines].join('\n'), facts: { wrong } }])
    this.name = 'ConfigProblem'
    this.wrong = wrong
  }
}

export type Environment = Readonly<Record<string, string | undefined>>

const secrets = new WeakMap<object, readonly string[]>()

/**
 * Reads every setting from the given environment, or from the file that `NAME_FILE` names (secrets in containers). An empty
 * variable counts as not set. The result is frozen and prints without its secrets, as text and as JSON.
 *
 * @param alsoKnown definitions of the same prefix whose names are no misspellings of ours.
 * @throws ConfigProblem with everything that is wrong.
 */
export function readConfig<const S extends Settings>(
  definition: Definition<S>,
  env: Environment,
  alsoKnown: readonly Definition<Settings>[] = [],
): Config<S> {
  const wrong: WrongSetting[] = []
  const values: Record<string, unknown> = {}
  const printable: Record<string, unknown> = {}
  const hidden: string[] = []

  for (const [key, setting] of Object.entries(definition.settings)) {
    const outcome = readSetting(definition.names[key]!, setting, env)
    if ('wrong' in outcome) {
      wrong.push(outcome.wrong)
      continue
    }
    const { value, given } = outcome
    values[key] = value
    const inside = value === undefined ? [] : setting.secretsIn(value)
    printable[key] = inside.length === 0 ? value : setting.isPath ? { path: given } : unquote(setting.mask(given))
    hidden.push(...inside)
  }
  wrong.push(...misspelled(definition, env, alsoKnown))
  if (wrong.length > 0) throw new ConfigProblem(wrong)

  Object.defineProperty(values, inspect.custom, { value: () => printable })
  Object.defineProperty(values, 'toJSON', { value: () => printable })
  secrets.set(values, hidden)
  return Object.freeze(values) as Config<S>
}

/** Every secret of a config that `readConfig` made, for the redaction list of a log. */
export function secretsOf(config: object): readonly string[] {
  return secrets.get(config) ?? []
}

function readSetting(
  name: string,
  setting: Setting<unknown>,
  env: Environment,
): { value: unknown; given: string } | { wrong: WrongSetting } {
  const direct = env[name] || undefined
  const path = env[`${name}_FILE`] || undefined
  const refuse = (at: string, given: string | null, reason = '') => ({
    wrong: { name: at, given, expected: reason === '' ? setting.expected : `${setting.expected} (${reason})` },
  })

  if (direct !== undefined && path !== undefined) {
    return { wrong: { name, given: setting.mask(direct), expected: `only one of ${name} and ${name}_FILE` } }
  }
  let given = direct ?? setting.defaultText
  if (path !== undefined) {
    if (setting.isPath) given = path
    else {
      const content = readText(path)
      if ('wrong' in content) {
        const expected = `the path of a readable file (${content.wrong})`
        return { wrong: { name: `${name}_FILE`, given: JSON.stringify(path), expected } }
      }
      // Editors and `echo` end a file with a line break that is not part of a password.
      given = content.value.replace(/\r?\n$/, '')
    }
  }
  if (given === undefined) {
    return setting.optional ? { value: undefined, given: '' } : refuse(name, null, setting.doc)
  }
  const parsed = setting.parse(given)
  return 'wrong' in parsed
    ? refuse(path === undefined ? name : `${name}_FILE`, setting.mask(given), parsed.wrong)
    : { value: parsed.value, given }
}

function misspelled(definition: Definition<Settings>, env: Environment, alsoKnown: readonly Definition<Settings>[]) {
  const ours = Object.values(definition.names)
  const known = new Set(
    [ours, ...alsoKnown.map((other) => Object.values(other.names))].flat().flatMap((name) => [name, `${name}_FILE`]),
  )
  const found: WrongSetting[] = []
  for (const [name, given] of Object.entries(env)) {
    if (!given || known.has(name) || !name.startsWith(`${definition.prefix}_`)) continue
    const meant = nearest(name.replace(/_FILE$/, ''), ours)
    // The value is not shown: what was meant may be a secret.
    if (meant !== undefined)
      found.push({ name, given: 'not the name of a setting', expected: `${meant} (a misspelling?)` })
  }
  return found
}

const unquote = (masked: string) => (masked.startsWith('"') ? (JSON.parse(masked) as string) : masked)

/** The rows of a reference page: name, kind, default and meaning of each setting, as a Markdown table. */
export function describeConfig(definition: Definition<Settings>): string {
  const rows = Object.entries(definition.settings).map(([key, setting]) => {
    const fallback =
      setting.defaultText === undefined ? (setting.optional ? '' : '*required*') : code(setting.defaultText)
    return `| \`${definition.names[key]}\` | ${cell(setting.expected)} | ${fallback} | ${cell(setting.doc)} |`
  })
  return ['| Setting | Value | Default | Meaning |', '|---|---|---|---|', ...rows].join('\n')
}

const cell = (given: string) => given.replaceAll('|', '\\|')
const code = (given: string) => (given === '' ? '' : `\`${cell(given)}\``)
