/** Why a request target is not looked at any further. The client is told by `refusals`. */
export type RefusalReason = keyof typeof refusals

export const refusals = {
  'not-a-path': 'the request target must be an absolute path',
  'unencoded-character': 'the request target holds a character that must be percent-encoded',
  'control-character': 'the request target holds a control character',
  'malformed-escape': 'the request target holds a malformed percent-encoding',
  'encoded-slash': 'the path holds a percent-encoded slash',
  backslash: 'the path holds a backslash',
  'dot-segment': 'the path holds a dot segment',
  'repeated-slash': 'the path holds an empty segment',
  'semicolon-in-query': 'invalid semicolon separator in query',
} as const

export interface Refusal {
  readonly refused: RefusalReason
}

export interface CanonicalTarget {
  /** Starts with a slash; decoded once. What was encoded twice (`a%252Fb`) is now encoded once (`a%2Fb`). */
  readonly path: string
  /** As it was sent, without the question mark. */
  readonly query: string
}

/**
 * The one reading of a request target that proxy, core and registry share, so that no two of them see different paths
 * (threats.md R5). Takes the raw target of the request line.
 *
 * @param repeatedSlashes `merge` for Harbor's own API, where `//` means `/`; `refuse` everywhere else.
 */
export function canonicalPath(
  rawTarget: string,
  { repeatedSlashes = 'refuse' }: { repeatedSlashes?: 'merge' | 'refuse' } = {},
): CanonicalTarget | Refusal {
  // absolute-form, authority-form and `*` have no path that we could route by.
  if (!rawTarget.startsWith('/')) return { refused: 'not-a-path' }

  for (let i = 0; i < rawTarget.length; i++) {
    const code = rawTarget.charCodeAt(i)
    if (code < 0x20 || code === 0x7f) return { refused: 'control-character' }
    // A blank or a fragment cannot be part of a target (RFC 9112, 3.2): whoever sent it and we would differ on where it ends.
    if (code > 0x7f || code === 0x20 || code === 0x23) return { refused: 'unencoded-character' }
  }

  const mark = rawTarget.indexOf('?')
  const rawPath = mark === -1 ? rawTarget : rawTarget.slice(0, mark)
  const decoded = rawPath.includes('%') ? decodeOnce(rawPath) : rawPath
  if (typeof decoded !== 'string') return decoded
  if (decoded.includes('\\')) return { refused: 'backslash' }

  let path = decoded
  if (path.includes('//')) {
    if (repeatedSlashes === 'refuse') return { refused: 'repeated-slash' }
    path = path.replaceAll(/\/{2,}/g, '/')
  }
  if (/\/\.{1,2}(?:\/|$)/.test(path)) return { refused: 'dot-segment' }
  return { path, query: mark === -1 ? '' : rawTarget.slice(mark + 1) }
}

function decodeOnce(rawPath: string): string | Refusal {
  // Looked for before decoding: afterwards an encoded slash is like any other.
  if (/%2f/i.test(rawPath)) return { refused: 'encoded-slash' }
  let decoded
  try {
    decoded = decodeURIComponent(rawPath)
  } catch {
    return { refused: 'malformed-escape' } // also for bytes that are no UTF-8
  }
  // C1 controls too: terminals act on them.
  // oxlint-disable-next-line no-control-regex -- the point of the check
  return /[\u0000-\u001f\u007f-\u009f]/.test(decoded) ? { refused: 'control-character' } : decoded
}

/**
 * The parameters of a query in their order. Refuses what Harbor refuses, malformed encodings and semicolons, and U+0000, which no
 * column of Postgres can be compared with (threats.md A77).
 */
export function parseQuery(query: string): URLSearchParams | Refusal {
  if (query.includes(';')) return { refused: 'semicolon-in-query' }
  if (query.includes('%00')) return { refused: 'control-character' }
  try {
    decodeURIComponent(query)
  } catch {
    return { refused: 'malformed-escape' }
  }
  return new URLSearchParams(query)
}
