import { problems } from '@haven/errors'
import { canonicalPath, refusals } from '@haven/oci'

export type Query = Record<string, string | string[]>
export type Target = { path: string; query: Query }

/**
 * Path and query of a request, by the reading that all services share (threats.md R5); repeated slashes are one, as in Harbor.
 * @throws badRequest
 */
export function parseTarget(raw: string): Target {
  const target = canonicalPath(raw, { repeatedSlashes: 'merge' })
  if ('refused' in target) throw problems.badRequest({ message: refusals[target.refused] })
  return { path: target.path, query: parseQuery(target.query) }
}

function parseQuery(text: string): Query {
  // Some readers take it for `&`, others for a character: who sees which parameters must not depend on that (harbor-api.md §1).
  if (text.includes(';')) throw problems.badRequest({ message: 'invalid semicolon separator in query' })
  const query = Object.create(null) as Query
  for (const piece of text.split('&')) {
    if (piece === '') continue
    const equals = piece.indexOf('=')
    const name = unescape(equals === -1 ? piece : piece.slice(0, equals))
    const value = equals === -1 ? '' : unescape(piece.slice(equals + 1))
    const before = query[name]
    query[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value]
  }
  return query
}

/** A form's encoding: `+` is a blank. @throws badRequest */
export function unescape(text: string): string {
  const spaced = text.replaceAll('+', ' ')
  // Postgres has no such text (threats.md A77).
  if (spaced.includes('%00') || spaced.includes('\0')) {
    throw problems.badRequest({ message: 'the query holds a NUL character' })
  }
  if (!spaced.includes('%')) return spaced
  const malformed = /%(?![0-9a-fA-F]{2}).{0,2}/.exec(spaced)
  if (malformed) throw problems.badRequest({ message: `invalid URL escape ${JSON.stringify(malformed[0])}` })
  try {
    return decodeURIComponent(spaced)
  } catch {
    throw problems.badRequest({ message: 'the query is not UTF-8' })
  }
}
