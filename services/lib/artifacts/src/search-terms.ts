import { isStorableTime } from '@haven/db'
import { problems } from '@haven/errors'

/** One term of a search: all of them must hold, a negated one must not. */
export type SearchTerm = { negated: boolean } & (
  | { field: 'word' | 'label' | 'type'; value: string }
  | { field: 'tag' | 'repository'; pattern: NamePattern }
  /** The digest, or its beginning. */
  | { field: 'digest'; prefix: string }
  | { field: 'annotation'; name: string; value: string | null }
  | { field: 'platform'; os: string; architecture: string | null }
  | { field: 'pushed' | 'pulled'; after: boolean; time: Date }
  | { field: 'never pulled' | 'untagged' }
)

/** A whole name in parts: between two of them, anything may stand. */
export type NamePattern = readonly string[]

const MAX_BYTES = 1024
const MAX_TERMS = 20

const DAY_MS = 24 * 60 * 60 * 1000
const units: Readonly<Record<string, number>> = {
  h: DAY_MS / 24,
  d: DAY_MS,
  w: 7 * DAY_MS,
  m: 30 * DAY_MS,
  y: 365 * DAY_MS,
}

/**
 * Reads a search: terms separated by blanks, `field:value`, quotes around what holds blanks (a quote or backslash in them has a backslash
 * before it), `-` before what must not be. A word alone is looked for in names. Fields: `repository` and `tag` (`*` stands for anything), `digest` (its beginning), `label`, `annotation`
 * (`name` or `name=value`), `platform` (`linux` or `linux/arm64`), `type`, `pushed` and `pulled` (`>` after, `<` before a date, or `-30d`),
 * `pulled:never`, `is:tagged` and `is:untagged`.
 *
 * @param now what `-30d` counts from.
 * @throws badRequest that says what is wrong at which character, counted from 1.
 */
export function parseSearch(q: string | undefined, now: Date): SearchTerm[] {
  if (q === undefined) return []
  if (Buffer.byteLength(q) > MAX_BYTES) throw problems.badRequest({ message: `q is longer than ${MAX_BYTES} bytes` })
  const terms: SearchTerm[] = []
  let at = 0
  for (;;) {
    while (q[at] === ' ') at++
    if (at >= q.length) return terms
    if (terms.length === MAX_TERMS) throw wrong(at, `there are more than ${MAX_TERMS} terms`)
    const start = at
    const negated = q[at] === '-'
    if (negated) at++
    const { text, colon, end } = readTerm(q, at)
    if (text === '') throw wrong(at, 'a term is missing')
    const field = colon === null ? 'word' : text.slice(0, colon)
    const value = colon === null ? text : text.slice(colon + 1)
    const valueAt = colon === null ? at : at + colon + 1
    if (value === '') throw wrong(valueAt, `a value of ${field} is missing`)
    const term = readField(field, value, { fieldAt: start, valueAt, now })
    // `-is:tagged` is what `is:untagged` is.
    terms.push({ ...term, negated: term.negated !== negated })
    at = end
  }
}

const wrong = (at: number, what: string) => problems.badRequest({ message: `q: ${what}, at character ${at + 1}` })

/** Up to the next blank outside of quotes. `colon`: where the first one outside of quotes is. */
function readTerm(q: string, from: number): { text: string; colon: number | null; end: number } {
  let text = ''
  let colon: number | null = null
  let quoteAt: number | null = null
  let at = from
  for (; at < q.length && (q[at] !== ' ' || quoteAt !== null); at++) {
    if (q[at] === '"') {
      quoteAt = quoteAt === null ? at : null
      continue
    }
    if (q[at] === ':' && quoteAt === null) colon ??= text.length
    // A label may hold a quote, and annotations hold JSON.
    if (quoteAt !== null && (q.startsWith(String.raw`\"`, at) || q.startsWith(String.raw`\\`, at))) at++
    text += q[at]
  }
  if (quoteAt !== null) throw wrong(quoteAt, 'this quote does not end')
  return { text, colon, end: at }
}

const digestForm = /^(?:[a-z0-9]+:)?[0-9a-f]{1,128}$/
const platformForm = /^([a-z0-9]+)(?:\/([a-z0-9_]+))?$/

function readField(
  field: string,
  value: string,
  { fieldAt, valueAt, now }: { fieldAt: number; valueAt: number; now: Date },
): SearchTerm {
  const negated = false
  switch (field) {
    case 'word':
    case 'label':
      return { negated, field, value }
    case 'type':
      return { negated, field, value: value.toUpperCase() }
    case 'tag':
    case 'repository':
      return { negated, field, pattern: value.split(/\*+/) }
    case 'digest':
      if (!digestForm.test(value)) throw wrong(valueAt, 'this is no beginning of a digest')
      return { negated, field, prefix: value.includes(':') ? value : `sha256:${value}` }
    case 'annotation': {
      const equals = value.indexOf('=')
      if (equals === 0) throw wrong(valueAt, 'the name of the annotation is missing')
      return equals === -1
        ? { negated, field, name: value, value: null }
        : { negated, field, name: value.slice(0, equals), value: value.slice(equals + 1) }
    }
    case 'platform': {
      const [, os, architecture = null] = platformForm.exec(value) ?? []
      if (os === undefined) throw wrong(valueAt, 'a platform is os or os/architecture')
      return { negated, field, os, architecture }
    }
    case 'pushed':
    case 'pulled':
      if (field === 'pulled' && value === 'never') return { negated, field: 'never pulled' }
      return { negated, field, ...readTime(value, valueAt, now) }
    case 'is':
      if (value !== 'tagged' && value !== 'untagged') throw wrong(valueAt, 'is takes tagged or untagged')
      return { negated: value === 'tagged', field: 'untagged' }
    default:
      throw wrong(fieldAt, `there is no field ${JSON.stringify(field)}`)
  }
}

function readTime(value: string, at: number, now: Date): { after: boolean; time: Date } {
  const after = value.startsWith('>')
  if (!after && !value.startsWith('<')) throw wrong(at, 'a time begins with > or <')
  const text = value.slice(1)
  const [, count, unit = ''] = /^-(\d{1,4})([hdwmy])$/.exec(text) ?? []
  const time = count === undefined ? dateOf(text) : new Date(now.getTime() - Number(count) * units[unit]!)
  if (!time || !isStorableTime(time)) throw wrong(at + 1, 'a time is a date such as 2026-03-04, or -30d')
  return { after, time }
}

/** UTC unless it says another zone. Null for what is no date, such as 30 February. */
function dateOf(text: string): Date | null {
  const [, day, clock = '', zone = ''] =
    /^(\d{4}-\d\d-\d\d)(?:(T\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)(Z|[+-]\d\d:\d\d)?)?$/.exec(text) ?? []
  const midnight = new Date(`${day}T00:00Z`)
  if (day === undefined || Number.isNaN(midnight.getTime()) || !midnight.toISOString().startsWith(day)) return null
  return clock === '' ? midnight : new Date(`${day}${clock}${zone === '' ? 'Z' : zone}`)
}
