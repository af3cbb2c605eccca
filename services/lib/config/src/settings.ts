import { readFileSync } from 'node:fs'

/** The outcome of reading one text: a value, or why there is none (shown after what was expected). */
export type Parsed<T> = { readonly value: T } | { readonly wrong: string }

/** One setting: made by the functions of this module, read by `readConfig`, printed by `describeConfig`. */
export interface Setting<T> {
  readonly kind: string
  readonly doc: string
  /** What a value looks like, in words that fit behind "expected". */
  readonly expected: string
  /** The whole name of the variable, where it is not prefix and key. */
  readonly env: string | undefined
  readonly optional: boolean
  /** The default as an operator would write it. */
  readonly defaultText: string | undefined
  /** The variable holds a path in any case, so `NAME` and `NAME_FILE` mean the same. */
  readonly isPath: boolean
  readonly parse: (text: string) => Parsed<T>
  /** A given text as it may be printed. */
  readonly mask: (text: string) => string
  /** The parts of a value that must never be printed. */
  readonly secretsIn: (value: T) => readonly string[]
}

export interface Options<D> {
  /** One sentence for the reference page. */
  readonly doc: string
  /** Without a default the setting must be given, unless it is `optional`. */
  readonly default?: D
  readonly optional?: boolean
  readonly env?: string
}

type Value<T, O> = O extends { readonly optional: true } ? T | undefined : T
type Of<T, O> = Setting<Value<T, O>>

interface Reader<T> extends Partial<Pick<Setting<T>, 'isPath' | 'mask' | 'secretsIn'>> {
  readonly kind: string
  readonly expected: string
  readonly parse: (text: string) => Parsed<T>
}

function setting<T, O extends Options<unknown>>(
  options: O,
  defaultText: string | undefined,
  reader: Reader<T>,
): Of<T, O> {
  if (defaultText !== undefined && 'wrong' in reader.parse(defaultText)) {
    throw new TypeError(`the default ${JSON.stringify(defaultText)} is not ${reader.expected}`)
  }
  const made: Setting<T> = {
    doc: options.doc,
    env: options.env,
    optional: options.optional === true,
    defaultText,
    isPath: false,
    mask: (text) => JSON.stringify(text),
    secretsIn: () => [],
    ...reader,
  }
  return made
}

const textOf = (given: number | boolean | undefined) => (given === undefined ? undefined : String(given))
const wrong = (reason = '') => ({ wrong: reason })

/** Any text that is not empty (an empty variable counts as not given). */
export function text<const O extends Options<string> & { readonly maxLength?: number }>(options: O): Of<string, O> {
  const { maxLength = 4096 } = options
  return setting(options, options.default, {
    kind: 'text',
    expected: `a text of at most ${maxLength} characters without control characters`,
    // oxlint-disable-next-line no-control-regex -- the point of the check
    parse: (given) => (given.length > maxLength || /[\u0000-\u001f\u007f]/.test(given) ? wrong() : { value: given }),
  })
}

interface Bounds {
  readonly min?: number
  readonly max?: number
}

function bounded(value: number, { min = -Infinity, max = Infinity }: Bounds): Parsed<number> {
  return Number.isSafeInteger(value) && value >= min && value <= max ? { value } : wrong()
}

/** A whole number. */
export function int<const O extends Options<number> & Bounds>(options: O): Of<number, O> {
  return setting(options, textOf(options.default), {
    kind: 'int',
    expected: `a whole number${between(options, String)}`,
    parse: (given) => (/^-?\d{1,16}$/.test(given) ? bounded(Number(given), options) : wrong()),
  })
}

/** A TCP port; 0 lets the system choose a free one. */
export function port<const O extends Options<number>>(options: O): Of<number, O> {
  return setting(options, textOf(options.default), {
    kind: 'port',
    expected: 'a port number from 0 to 65535',
    parse(given) {
      // Kubernetes sets <SERVICE>_PORT=tcp://… for each service of the namespace unless enableServiceLinks is false.
      if (given.startsWith('tcp://')) return wrong('Kubernetes sets such a name itself; use enableServiceLinks: false')
      return /^\d{1,5}$/.test(given) ? bounded(Number(given), { min: 0, max: 65_535 }) : wrong()
    },
  })
}

/** true/false, yes/no, on/off, 1/0. */
export function bool<const O extends Options<boolean>>(options: O): Of<boolean, O> {
  return setting(options, textOf(options.default), {
    kind: 'bool',
    expected: 'true or false',
    parse(given) {
      if (/^(true|yes|on|1)$/i.test(given)) return { value: true }
      return /^(false|no|off|0)$/i.test(given) ? { value: false } : wrong()
    },
  })
}

/** One of a few words. */
export function oneOf<const W extends readonly [string, ...string[]], const O extends Options<W[number]>>(
  words: W,
  options: O,
): Of<W[number], O> {
  return setting(options, options.default, {
    kind: 'word',
    expected: words.length === 1 ? words[0] : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`,
    parse: (given) => (words.includes(given) ? { value: given } : wrong()),
  })
}

const milliseconds: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/**
 * A time span, in milliseconds: `90s`, `1h30m`, `24h`. Name the key with its unit (`uploadExpiryMs`): the variable is then
 * `…_UPLOAD_EXPIRY`. Bounds are written like values.
 */
export function duration<const O extends Options<string> & { readonly min?: string; readonly max?: string }>(
  options: O,
): Of<number, O> {
  const bounds = readBounds(options, parseDuration)
  return setting(options, options.default, {
    kind: 'duration',
    expected: `a duration such as 90s, 5m or 24h${between(options, (given) => given)}`,
    parse: (given) => bounded(parseDuration(given) ?? NaN, bounds),
  })
}

function parseDuration(given: string): number | undefined {
  if (given === '0') return 0
  if (!/^(\d{1,12}(ms|s|m|h|d))+$/.test(given)) return undefined
  let total = 0
  for (const [, amount, unit] of given.matchAll(/(\d+)(ms|[smhd])/g)) total += Number(amount) * milliseconds[unit!]!
  return total
}

const byteUnits: Record<string, number> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
}

/** A size in bytes: `16MiB`, `5GB`, `4096`. A key `maxBodyBytes` has the variable `…_MAX_BODY`. */
export function bytes<const O extends Options<string> & { readonly min?: string; readonly max?: string }>(
  options: O,
): Of<number, O> {
  const bounds = readBounds(options, parseBytes)
  return setting(options, options.default, {
    kind: 'bytes',
    expected: `a size such as 4096, 64KiB, 16MiB or 5GB${between(options, (given) => given)}`,
    parse: (given) => bounded(parseBytes(given) ?? NaN, bounds),
  })
}

function parseBytes(given: string): number | undefined {
  const [, amount, unit] = /^(\d{1,15}) ?([a-z]{0,3})$/i.exec(given) ?? []
  const factor = byteUnits[unit?.toLowerCase() ?? '?']
  return amount === undefined || factor === undefined ? undefined : Number(amount) * factor
}

/** An absolute URL, kept as it was given. A password inside never prints. */
export function url<const O extends Options<string> & { readonly protocols?: readonly string[] }>(
  options: O,
): Of<string, O> {
  const { protocols = ['http', 'https'] } = options
  return setting(options, options.default, {
    kind: 'url',
    expected: `a URL that starts with ${protocols.map((name) => `${name}://`).join(' or ')}`,
    parse(given) {
      const parsed = URL.parse(given)
      if (parsed === null || /\s/.test(given)) return wrong()
      return protocols.includes(parsed.protocol.slice(0, -1)) ? { value: given } : wrong()
    },
    // Also for texts that are no URL, since a mistyped one may hold the password all the same.
    mask: (given) => JSON.stringify(given.replace(/(?<=:[^:@]*:)[^@]*(?=@)|(?<=^[^:@/]+:)[^@/]*(?=@)/, '***')),
    secretsIn(given) {
      const password = URL.parse(given)?.password ?? ''
      return password === '' ? [] : [...new Set([password, decode(password)])]
    },
  })
}

function decode(escaped: string): string {
  try {
    return decodeURIComponent(escaped)
  } catch {
    return escaped // a lone % is legal in a URL's password and stands for itself
  }
}

/** A password, key or token. Never printed; `refuse` lists well-known values that do not count as secrets. */
export function secret<
  const O extends Options<string> & { readonly minLength?: number; readonly refuse?: readonly string[] },
>(options: O): Of<string, O> {
  const { minLength = 1, refuse = [] } = options
  return setting(options, options.default, {
    kind: 'secret',
    expected: minLength === 1 ? 'a secret' : `a secret of at least ${minLength} characters`,
    parse(given) {
      if (refuse.includes(given)) return wrong('this one is publicly known')
      return given.length < minLength ? wrong(`it has ${given.length} characters`) : { value: given }
    },
    mask: () => '***',
    secretsIn: (given) => [given],
  })
}

/** What a `file` setting becomes: where the file is and what was in it at the start. */
export interface NamedFile {
  readonly path: string
  readonly text: string
}

/** The path of a readable text file (a key, a certificate). The content counts as secret. */
export function file<const O extends Options<string>>(options: O): Of<NamedFile, O> {
  if (options.default !== undefined) throw new TypeError('a file has no default: make it optional instead')
  return setting(options, undefined, {
    kind: 'file',
    expected: 'the path of a readable file',
    isPath: true,
    parse(path) {
      const content = readText(path)
      return 'wrong' in content ? content : { value: Object.freeze({ path, text: content.value }) }
    },
    secretsIn: ({ text }) => [text],
  })
}

/** Reads a file as `readConfig` does; the reason of a failure is the system's code. */
export function readText(path: string): Parsed<string> {
  try {
    return { value: readFileSync(path, 'utf8') }
  } catch (error) {
    return wrong((error as NodeJS.ErrnoException).code ?? String(error))
  }
}

/** Texts separated by commas; blanks around them do not count. */
export function list<const O extends Options<readonly string[]>>(options: O): Of<readonly string[], O> {
  const split = (given: string) =>
    given
      .split(',')
      .map((item) => item.trim())
      .filter((item) => item !== '')
  return setting(options, options.default?.join(','), {
    kind: 'list',
    expected: 'texts separated by commas',
    parse: (given) => ({ value: Object.freeze(split(given)) }),
  })
}

function readBounds(options: { min?: string; max?: string }, parse: (given: string) => number | undefined): Bounds {
  const read = (given: string) => {
    const value = parse(given)
    if (value === undefined) throw new TypeError(`the bound ${JSON.stringify(given)} cannot be read`)
    return value
  }
  return {
    ...(options.min !== undefined && { min: read(options.min) }),
    ...(options.max !== undefined && { max: read(options.max) }),
  }
}

function between<B>(bounds: { min?: B; max?: B }, print: (bound: B) => string): string {
  if (bounds.min !== undefined && bounds.max !== undefined) return ` from ${print(bounds.min)} to ${print(bounds.max)}`
  if (bounds.min !== undefined) return ` of at least ${print(bounds.min)}`
  return bounds.max === undefined ? '' : ` of at most ${print(bounds.max)}`
}
