/** A pattern longer than this is refused: matching costs its length times the text's. */
export const maxPatternLength = 256
/** Alternatives multiply: five groups of three are 243 patterns. */
const maxBranches = 256

/** One step of a program: takes a character once, or (`loops`) any number of times. */
type Step = {
  readonly is: (char: string) => boolean
  readonly loops: boolean
  /** The step at which matching may go on as well, without taking anything here. */
  readonly skipTo?: number
}

export type PathPattern = { matches(text: string): boolean }

// Doublestar over a path: `*` and `?` stay inside a segment; `**` crosses them, and as a whole segment may also be no segment
// at all; `{a,b}` is either; `[a-z]` and `[^a]` are classes; a backslash takes the next character as it is.
/**
 * Reads a pattern of a user. Matching costs the pattern's length times the text's, whatever they are: no regular expression is
 * made of it.
 *
 * @returns null for a pattern that is too long, has too many alternatives, or does not close what it opens.
 */
export function parsePathPattern(pattern: string): PathPattern | null {
  const branches = pattern.length > maxPatternLength ? null : expand(pattern)
  if (branches === null) return null
  const programs: Step[][] = []
  for (const branch of branches) {
    const steps = compile(branch)
    if (steps === null) return null
    programs.push(steps)
  }
  return { matches: (text) => programs.some((steps) => run(steps, text)) }
}

/** Writes out the alternatives: `a{b,c}` becomes `ab` and `ac`. */
function expand(pattern: string): string[] | null {
  const open = find(pattern, '{')
  if (open === -1) return find(pattern, '}') === -1 ? [pattern] : null
  const parts: string[] = []
  let depth = 0
  let from = open + 1
  let close = -1
  for (let i = open; i < pattern.length && close === -1; i++) {
    const char = pattern[i]
    if (char === '\\') i++
    else if (char === '{') depth++
    else if (char === '}' && --depth === 0) close = i
    else if (char === ',' && depth === 1) {
      parts.push(pattern.slice(from, i))
      from = i + 1
    }
  }
  if (close === -1) return null
  parts.push(pattern.slice(from, close))
  const all: string[] = []
  for (const part of parts) {
    const written = expand(pattern.slice(0, open) + part + pattern.slice(close + 1))
    if (written === null || all.length + written.length > maxBranches) return null
    all.push(...written)
  }
  return all
}

/** Where `wanted` stands, not counting what a backslash protects; -1 for nowhere. */
function find(text: string, wanted: string): number {
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === wanted) return i
  }
  return -1
}

const inSegment = (char: string) => char !== '/'
const anywhere = () => true
const never = () => false

function compile(pattern: string): Step[] | null {
  const steps: Step[] = []
  const literal = (wanted: string, skipTo?: number) =>
    steps.push({ is: (char) => char === wanted, loops: false, ...(skipTo !== undefined && { skipTo }) })
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i]!
    const atSegment = i === 0 || pattern[i - 1] === '/'
    if (atSegment && pattern.startsWith('**/', i)) {
      // The way around goes from a step of its own: from the star it could be taken in the middle of a segment.
      steps.push({ is: never, loops: true, skipTo: steps.length + 3 }, { is: anywhere, loops: true })
      literal('/')
      i += 2
    } else if (char === '/' && i > 0 && pattern.slice(i) === '/**') {
      literal('/', steps.length + 2)
      steps.push({ is: anywhere, loops: true })
      i += 2
    } else if (char === '*') {
      const double = pattern[i + 1] === '*'
      while (pattern[i + 1] === '*') i++
      steps.push({ is: double ? anywhere : inSegment, loops: true })
    } else if (char === '?') steps.push({ is: inSegment, loops: false })
    else if (char === '[') {
      const close = pattern.indexOf(']', i + 2)
      if (close === -1) return null
      steps.push({ is: charClass(pattern.slice(i + 1, close)), loops: false })
      i = close
    } else {
      if (char === '\\' && i + 1 >= pattern.length) return null
      literal(char === '\\' ? pattern[++i]! : char)
    }
  }
  return steps
}

function charClass(text: string): (char: string) => boolean {
  const negated = text[0] === '^' || text[0] === '!'
  const body = negated ? text.slice(1) : text
  const ranges: [string, string][] = []
  for (let i = 0; i < body.length; i++) {
    if (body[i + 1] === '-' && i + 2 < body.length) {
      ranges.push([body[i]!, body[i + 2]!])
      i += 2
    } else ranges.push([body[i]!, body[i]!])
  }
  return (char) => char !== '/' && ranges.some(([low, high]) => char >= low && char <= high) !== negated
}

/** Follows every way through the steps at once. */
function run(steps: readonly Step[], text: string): boolean {
  let reached = new Uint8Array(steps.length + 1)
  enter(steps, reached, 0)
  for (const char of text) {
    const next = new Uint8Array(steps.length + 1)
    for (const [i, step] of steps.entries()) {
      if (reached[i] === 1 && step.is(char)) enter(steps, next, step.loops ? i : i + 1)
    }
    reached = next
  }
  return reached[steps.length] === 1
}

/** Marks a step as reached, and those behind it that need not take anything to be. */
function enter(steps: readonly Step[], reached: Uint8Array, at: number): void {
  if (reached[at] === 1) return
  reached[at] = 1
  const step = steps[at]
  if (step?.skipTo !== undefined) enter(steps, reached, step.skipTo)
  if (step?.loops) enter(steps, reached, at + 1)
}
