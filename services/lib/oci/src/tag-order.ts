/**
 * The place of a tag among others as people read them, as a text to sort by code point, so that an index keeps it: numbers by value,
 * versions by semantic versioning (`1.9 < 1.10`, `2.0.0-rc.1 < 2.0.0`), before them anything that is no version, by its parts. Of no two
 * tags the same. Not the order of `tags/list`, which is by the names' own code points.
 *
 * Letter for letter what the database's artifacts.version_key makes, which costs a tenth of a push.
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

const isDigit = (text: string) => text[0]! >= '0' && text[0]! <= '9'
