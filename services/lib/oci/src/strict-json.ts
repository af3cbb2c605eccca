/**
 * JSON that every parser reads alike: bounded in depth, no key twice in one object (parsers differ on which one counts:
 * threats.md A85), no NUL in a text (Postgres cannot store it).
 */
export function parseStrictJson(
  text: string,
  { maxDepth }: { maxDepth: number },
): { value: unknown } | { wrong: string } {
  const wrong = scan(text, maxDepth)
  if (wrong !== null) return { wrong }
  try {
    return { value: JSON.parse(text) }
  } catch (error) {
    return { wrong: `it is no JSON: ${(error as SyntaxError).message}` }
  }
}

// Runs before JSON.parse, so that nothing is built from a text of four million brackets. Takes grammar for granted.
function scan(text: string, maxDepth: number): string | null {
  const open: (Set<string> | null)[] = []
  for (let i = 0; i < text.length; i++) {
    switch (text.charAt(i)) {
      case '{':
      case '[':
        if (open.length === maxDepth) return `it is nested deeper than ${maxDepth} levels`
        open.push(text.charAt(i) === '{' ? new Set() : null)
        break
      case '}':
      case ']':
        open.pop()
        break
      case '"': {
        const end = endOfString(text, i)
        const literal = text.slice(i, end + 1)
        const escaped = literal.includes('\\')
        if (escaped && /(?<!\\)(?:\\\\)*\\u0000/.test(literal)) return 'it holds a NUL character'
        const keys = open.at(-1)
        if (keys && isKey(text, end + 1)) {
          const key = escaped ? unescape(literal) : literal.slice(1, -1)
          if (keys.has(key)) return `the key ${JSON.stringify(key.slice(0, 100))} stands twice in one object`
          keys.add(key)
        }
        i = end
      }
    }
  }
  return null
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
