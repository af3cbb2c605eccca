/**
 * JSON that every parser reads alike: bounded in depth, no key twice in one object (parsers differ on which one counts:
 * threats.md A85), no NUL in a text (Postgres cannot store it).
 */
export function parseStrictJson(
  text: string,
  { maxDepth }: { maxDepth: number },
): { value: unknown } | { wrong: string; path: string } {
  const fault = scan(text, maxDepth, Infinity)
  if (fault.wrong !== null) return { wrong: fault.wrong, path: fault.path }
  try {
    return { value: JSON.parse(text) }
  } catch (error) {
    const { message } = error as SyntaxError
    // V8 says where it stopped, but for some tokens only shows what is around them: then the message has to do.
    const [, stated] = /at position (\d+)/.exec(message) ?? []
    const position = stated ? Number(stated) : message.includes('end of JSON') ? text.length : 0
    return { wrong: `it is no JSON: ${message}`, path: scan(text, maxDepth, position).path }
  }
}

type Level = { keys: Set<string> | null; at: string | number | null }

/**
 * What no reader should take, and where it is; with `wrong` null, the place of the character at `end`. Runs before JSON.parse, so that
 * nothing is built from a text of four million brackets, and takes grammar for granted.
 */
function scan(text: string, maxDepth: number, end: number): { wrong: string | null; path: string } {
  const open: Level[] = []
  const fault = (wrong: string | null) => ({ wrong, path: pathOf(open) })
  const last = Math.min(text.length, end)
  for (let i = 0; i < last; i++) {
    const level = open.at(-1)
    switch (text.charAt(i)) {
      case '{':
      case '[':
        if (open.length === maxDepth) return fault(`it is nested deeper than ${maxDepth} levels`)
        open.push(text.charAt(i) === '{' ? { keys: new Set(), at: null } : { keys: null, at: 0 })
        break
      case '}':
      case ']':
        open.pop()
        break
      case ',':
        if (typeof level?.at === 'number') level.at++
        break
      case '"': {
        const close = endOfString(text, i)
        const literal = text.slice(i, close + 1)
        const escaped = literal.includes('\\')
        if (level?.keys && isKey(text, close + 1)) {
          const key = escaped ? unescape(literal) : literal.slice(1, -1)
          level.at = key
          if (level.keys.has(key))
            return fault(`the key ${JSON.stringify(key.slice(0, 100))} stands twice in one object`)
          level.keys.add(key)
        }
        if (escaped && /(?<!\\)(?:\\\\)*\\u0000/.test(literal)) return fault('it holds a NUL character')
        i = close
      }
    }
  }
  return fault(null)
}

/** `layers[3].annotations["org.example"]`; empty at the top. */
function pathOf(open: readonly Level[]): string {
  let path = ''
  for (const { at } of open) {
    if (typeof at === 'number') path += `[${at}]`
    else if (at !== null)
      path += /^[A-Za-z_]\w*$/.test(at) ? `${path && '.'}${at}` : `[${JSON.stringify(at.slice(0, 100))}]`
  }
  return path
}

function endOfString(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === '"') return i
  }
  return text.length
}

function isKey(text: string, from: number): boolean {
  let i = from
  while (text[i] === ' ' || text[i] === '\n' || text[i] === '\r' || text[i] === '\t') i++
  return text[i] === ':'
}

function unescape(literal: string): string {
  try {
    return JSON.parse(literal) as string
  } catch {
    return literal // no JSON, which the real parser is about to say
  }
}
