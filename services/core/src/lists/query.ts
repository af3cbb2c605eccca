import { problems } from '@haven/errors'
import { isStorableTime, type Condition, type Scalar, type Sort } from '@haven/db'
import { unescape } from '../http/request.ts'

const MAX_QUERY_BYTES = 1024
const MAX_TERMS = 20
const MAX_LIST = 100

const malformed = 'the query string must contain "=" and the key/value cannot be empty'
const invalid = (value: string) => problems.badRequest({ message: `invalid query string value: ${value}` })

/**
 * Harbor's query language (harbor-api.md §2): `k=v`, `k=~v`, `k=[min~max]`, `k={a b}`, `k=(a b)`, separated by commas.
 * @throws badRequest for what cannot be read, and for more than 1 KiB, 20 terms or 100 members of a list.
 */
export function parseQ(q: string | undefined): Condition[] {
  if (!q) return []
  if (Buffer.byteLength(q) > MAX_QUERY_BYTES)
    throw problems.badRequest({ message: `q is longer than ${MAX_QUERY_BYTES} bytes` })
  // Harbor unescapes once more than usual; after that the text is only read, never decoded again.
  const terms = unescape(q).split(',')
  if (terms.length > MAX_TERMS) throw problems.badRequest({ message: `q has more than ${MAX_TERMS} terms` })
  return terms.flatMap((term) => {
    const equals = term.indexOf('=')
    const key = term.slice(0, Math.max(equals, 0)).trim()
    const value = term.slice(equals + 1).trim()
    if (key === '' || value === '') throw problems.badRequest({ message: malformed })
    const condition = withOperator(key, value)
    return condition ? [condition] : []
  })
}

/** The same for what does more than show a list: a term that a list would pass over is refused. @throws badRequest */
export function parseWholeQ(q: string | undefined): Condition[] {
  const conditions = parseQ(q)
  if (q && conditions.length < unescape(q).split(',').length) {
    throw problems.badRequest({ message: 'q: a term has an operator that there is not' })
  }
  return conditions
}

/** `name__icontains`. An operator that is not known, or two of them, skip the term. */
function withOperator(key: string, value: string): Condition | null {
  const [field = '', operator, ...more] = key.split('__')
  if (more.length > 0) return null
  if (operator === undefined) return { field, ...parseValue(value) }
  switch (operator) {
    case 'exact':
      return { field, match: 'exact', value }
    case 'icontains':
      return { field, match: 'contains', value }
    case 'in':
      return { field, match: 'in', values: members(value.replace(/^\{(.*)\}$/, '$1')) }
    case 'gte':
      return { field, match: 'range', min: scalar(value) }
    case 'lte':
      return { field, match: 'range', max: scalar(value) }
    case 'gt':
      return { field, match: 'range', min: scalar(value), exclusive: true }
    case 'lt':
      return { field, match: 'range', max: scalar(value), exclusive: true }
    default:
      return null
  }
}

type Match = Condition extends infer C ? (C extends { field: string } ? Omit<C, 'field'> : never) : never

function parseValue(value: string): Match {
  const inner = value.slice(1, -1)
  switch (value.charAt(0)) {
    case '~':
      if (value.length === 1) throw problems.badRequest({ message: malformed })
      return { match: 'contains', value: value.slice(1) }
    case '[': {
      const parts = inner.split('~')
      if (!value.endsWith(']') || parts.length !== 2) throw invalid(value)
      const [min = '', max = ''] = parts.map((part) => part.trim())
      return {
        match: 'range',
        ...(min === '' ? {} : { min: scalar(min) }),
        ...(max === '' ? {} : { max: scalar(max) }),
      }
    }
    case '{':
      if (!value.endsWith('}')) throw invalid(value)
      return { match: 'in', values: members(inner) }
    case '(':
      if (!value.endsWith(')')) throw invalid(value)
      return { match: 'all', values: members(inner) }
    case '\\':
      return { match: 'exact', value: value.slice(1) }
    default:
      return { match: 'exact', value }
  }
}

function members(text: string): Scalar[] {
  const values = text.split(' ').filter((part) => part !== '')
  if (values.length > MAX_LIST) throw problems.badRequest({ message: `a list in q has more than ${MAX_LIST} members` })
  return values.map(scalar)
}

function scalar(text: string): Scalar {
  const unquoted = text.replace(/^"(.*)"$/, '$1').replace(/^'(.*)'$/, '$1')
  if (unquoted !== text) return unquoted
  const time = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})$/.exec(text)
  if (time) {
    const date = new Date(`${time[1]}T${time[2]}Z`)
    if (!isStorableTime(date)) throw invalid(text)
    return date
  }
  return /^-?\d{1,15}$/.test(text) ? Number(text) : text
}

/** `field,-other`; what a resource cannot be sorted by is dropped where the fields are known. */
export const parseSort = (sort: string | undefined): Sort[] =>
  (sort ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '' && part !== '-')
    .slice(0, MAX_TERMS)
    .map((part) =>
      part.startsWith('-') ? { field: part.slice(1), descending: true } : { field: part, descending: false },
    )
