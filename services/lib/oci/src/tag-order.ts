/**
 * Orders tags as people read them: numbers by value, versions by semantic versioning (`1.9 < 1.10`, `2.0.0-rc.1 < 2.0.0`),
 * before them anything that is no version, by its parts. Total: 0 only for equal texts. Not the order of `tags/list`, which
 * is by code point.
 */
export function compareTags(a: string, b: string): number {
  if (a === b) return 0
  const left = readVersion(a)
  const right = readVersion(b)
  if (left && right) return compareVersions(left, right) || compareNatural(a, b) || compareText(a, b)
  if (left || right) return left ? 1 : -1
  return compareNatural(a, b) || compareText(a, b)
}

interface Version {
  readonly numbers: readonly string[]
  /** After the hyphen; empty for a release. */
  readonly prerelease: readonly string[]
}

// `1`, `v1.2`, `1.2.3-rc.1`, `1.2.3_build.5` (helm writes `+` as `_`). Four numbers, as .NET and Windows have them.
const versionForm = /^v?(\d{1,30}(?:\.\d{1,30}){0,3})(?:-([0-9A-Za-z.-]+))?(?:_[0-9A-Za-z.-]+)?$/

function readVersion(tag: string): Version | null {
  const match = versionForm.exec(tag)
  return match && { numbers: match[1]!.split('.'), prerelease: match[2]?.split('.') ?? [] }
}

function compareVersions(a: Version, b: Version): number {
  for (let i = 0; i < 4; i++) {
    const order = compareNumber(a.numbers[i] ?? '0', b.numbers[i] ?? '0')
    if (order !== 0) return order
  }
  if (a.prerelease.length === 0 || b.prerelease.length === 0) return b.prerelease.length - a.prerelease.length
  for (let i = 0; i < Math.max(a.prerelease.length, b.prerelease.length); i++) {
    const [left, right] = [a.prerelease[i], b.prerelease[i]]
    if (left === undefined || right === undefined) return left === undefined ? -1 : 1
    const numeric = [left, right].map((part) => /^\d+$/.test(part))
    if (numeric[0] !== numeric[1]) return numeric[0] ? -1 : 1
    const order = numeric[0] ? compareNumber(left, right) : compareNatural(left, right) || compareText(left, right)
    if (order !== 0) return order
  }
  return 0
}

/** Runs of digits by value, other characters by code point. */
function compareNatural(a: string, b: string): number {
  const left = a.match(/\d+|\D+/g) ?? []
  const right = b.match(/\d+|\D+/g) ?? []
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const [l, r] = [left[i]!, right[i]!]
    const bothNumbers = isDigit(l) && isDigit(r)
    const order = bothNumbers ? compareNumber(l, r) : compareText(l, r)
    if (order !== 0) return order
  }
  return left.length - right.length
}

const isDigit = (text: string) => text[0]! >= '0' && text[0]! <= '9'

/** Of decimal digits without a bound: a date with time is beyond 2^53. */
function compareNumber(a: string, b: string): number {
  const [left, right] = [a, b].map((digits) => digits.replace(/^0+/, ''))
  return left!.length - right!.length || compareText(left!, right!)
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

/**
 * The order of `compareTags` as a text to sort by code point, so that an index keeps it. The same, letter for letter, as the database's
 * artifacts.version_key, which costs a tenth of a push.
 */
export function versionKey(tag: string): string {
  const rest = naturalKey(tag) + tag
  const version = readVersion(tag)
  if (!version) return `0${rest}`
  const numbers = [0, 1, 2, 3].map((i) => numberKey(version.numbers[i] ?? '')).join('')
  if (version.prerelease.length === 0) return `1${numbers}~${rest}`
  const parts = version.prerelease.map((part) =>
    /^\d+$/.test(part) ? `1${numberKey(part)}` : `2${naturalKey(part)}${part} `,
  )
  return `1${numbers}!${parts.join('')} ${rest}`
}

// Runs of digits by their length without leading zeros, then as they are. `!` ends another run and a blank the text, so that what is
// shorter comes first.
const naturalKey = (text: string) =>
  `${text.replace(/\d+|\D+/g, (run) => (isDigit(run) ? `0${numberKey(run)}` : `${run}!`))} `

function numberKey(digits: string): string {
  const value = digits.replace(/^0+/, '')
  return String(value.length).padStart(3, '0') + value
}
