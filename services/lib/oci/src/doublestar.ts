import { problems } from '@haven/errors'

/** Threats.md §5. */
const maxPatternBytes = 256
const maxAlternativeGroups = 8

/** Whether a text matches as a whole. */
export interface Matcher {
  (text: string): boolean
}

/**
 * Users' patterns as Harbor's rules have them: `*` anything but `/`; `**` as a whole segment any number of segments, none
 * included, and within a segment the same as `*`; `?` one character but `/`; `{a,b}` one of; `[a-z]` one of a class, `[!a]`
 * or `[^a]` one not of it; `\` takes the next character as it is. An empty pattern matches everything.
 *
 * Matching takes pattern × text steps whatever they are (threats.md R14).
 *
 * @throws problems.badRequest for a pattern that is malformed, too long or has too many groups.
 */
export function compileDoublestar(pattern: string): Matcher {
  if (Buffer.byteLength(pattern) > maxPatternBytes) throw refuse(`is longer than ${maxPatternBytes} bytes`)
  if (pattern === '') return () => true
  return machine(new Compiler(pattern).compile())
}

const refuse = (reason: string) => problems.badRequest({ message: `the pattern ${reason}` })
const slash = 0x2f

type Instruction =
  | { readonly is: 'character'; readonly code: number }
  | { readonly is: 'any' }
  | { readonly is: 'class'; readonly negated: boolean; readonly ranges: readonly (readonly [number, number])[] }
  | { readonly is: 'star' }
  /** Whole segments. Begins where a segment begins, ends where one ends. */
  | { readonly is: 'segments' }
  /** Goes on at each of these places. */
  | { is: 'split'; to: number[] }

class Compiler {
  readonly #pattern: string
  readonly #program: Instruction[] = []
  #at = 0
  #groups = 0

  constructor(pattern: string) {
    this.#pattern = pattern
  }

  compile(): readonly Instruction[] {
    this.#sequence(0)
    return this.#program
  }

  /** Up to the end of the pattern or, inside a group, to its next comma or brace. */
  #sequence(depth: number) {
    while (this.#at < this.#pattern.length) {
      const next = this.#pattern[this.#at]
      if (next === '}' && depth === 0) throw refuse('has a } without a {')
      if (depth > 0 && (next === '}' || next === ',')) return
      if (next === '{') this.#group(depth)
      else if (next === '*') this.#stars()
      else if (next === '[') this.#class()
      else if (next === '?') {
        this.#at++
        this.#program.push({ is: 'any' })
      } else this.#program.push({ is: 'character', code: this.#character('ends with a backslash') })
    }
    if (depth > 0) throw refuse('has a { without a }')
  }

  #group(depth: number) {
    if (++this.#groups > maxAlternativeGroups)
      throw refuse(`has more than ${maxAlternativeGroups} groups of alternatives`)
    const entry = { is: 'split' as const, to: [] as number[] }
    const exits: { is: 'split'; to: number[] }[] = []
    this.#program.push(entry)
    do {
      this.#at++ // { or ,
      entry.to.push(this.#program.length)
      this.#sequence(depth + 1)
      const exit = { is: 'split' as const, to: [] }
      this.#program.push(exit)
      exits.push(exit)
    } while (this.#pattern[this.#at] === ',')
    this.#at++ // }
    for (const exit of exits) exit.to.push(this.#program.length)
  }

  #stars() {
    const start = this.#at
    while (this.#pattern[this.#at] === '*') this.#at++
    if (this.#at - start === 1) {
      this.#program.push({ is: 'star' })
      return
    }
    // Whether it is a whole segment depends on the alternatives beside it, so both readings run; `segments` fits only one.
    const here = this.#program.length
    this.#program.push(
      { is: 'split', to: [here + 1, here + 3] },
      { is: 'star' },
      { is: 'split', to: [here + 4] },
      { is: 'segments' },
    )
  }

  #class() {
    this.#at++
    const negated = this.#pattern[this.#at] === '!' || this.#pattern[this.#at] === '^'
    if (negated) this.#at++
    const ranges: [number, number][] = []
    while (this.#pattern[this.#at] !== ']') {
      const first = this.#character('has a [ without a ]')
      let last = first
      if (this.#pattern[this.#at] === '-' && this.#pattern[this.#at + 1] !== ']') {
        this.#at++
        last = this.#character('has a [ without a ]')
      }
      if (last < first) throw refuse('has a class whose end is before its beginning')
      ranges.push([first, last])
    }
    if (ranges.length === 0) throw refuse('has an empty class')
    this.#at++
    this.#program.push({ is: 'class', negated, ranges })
  }

  /** The next character, or the one after a backslash. */
  #character(orElse: string): number {
    if (this.#pattern[this.#at] === '\\') this.#at++
    const code = this.#pattern.codePointAt(this.#at)
    if (code === undefined) throw refuse(orElse)
    this.#at += code > 0xffff ? 2 : 1
    return code
  }
}

/** What the text so far can have led to: a set of places in the program, and where each next character leads from there. */
interface State {
  readonly places: readonly number[]
  readonly matched: boolean
  readonly after: Map<number, State>
}

// Enough for any pattern that a person writes. A pattern made to need more only loses what was remembered.
const maxStates = 512

/**
 * All states at once, as Thompson ran regular expressions, so nothing is tried twice and no pattern is worse than another.
 * The sets are remembered, since one rule sees thousands of tags that begin alike.
 */
function machine(program: readonly Instruction[]): Matcher {
  const end = program.length
  // The step in which a place was last reached, plainly and with a slash to skip.
  const reached = new Float64Array(end + 1)
  const skipping = new Float64Array(end + 1)
  let step = 0
  let next: number[] = []
  let atSegmentStart = false
  let atSegmentEnd = false
  const states = new Map<string, State>()

  function enter(place: number) {
    if (reached[place] === step) return
    reached[place] = step
    const instruction = program[place]
    if (instruction?.is === 'split') for (const target of instruction.to) enter(target)
    else if (instruction?.is === 'segments') {
      if (!atSegmentStart) return
      next.push(place)
      if (atSegmentEnd) enter(place + 1)
      skipSlash(place + 1) // no segment: the slash behind goes with it
    } else {
      next.push(place)
      if (instruction?.is === 'star') enter(place + 1)
    }
  }
  function stay(place: number) {
    if (reached[place] !== step) {
      reached[place] = step
      next.push(place)
    }
    if (atSegmentEnd) enter(place + 1)
  }
  function skipSlash(place: number) {
    if (skipping[place] === step) return
    skipping[place] = step
    const instruction = program[place]
    if (instruction?.is === 'split') for (const target of instruction.to) skipSlash(target)
    else if (instruction?.is === 'character' && instruction.code === slash) enter(place + 1)
  }

  function state(): State {
    const key = String.fromCharCode(...next)
    let known = states.get(key)
    if (known === undefined) {
      if (states.size >= maxStates) {
        // Every other state is reached from these two alone, so this lets go of them all.
        states.clear()
        for (const start of [starts.inside, starts.atEnd]) start.after.clear()
      }
      known = { places: next, matched: next.includes(end), after: new Map() }
      states.set(key, known)
    }
    return known
  }
  function begin(atEnd: boolean): State {
    next = []
    step++
    ;[atSegmentStart, atSegmentEnd] = [true, atEnd]
    enter(0)
    return state()
  }
  function follow(from: State, code: number, atEnd: boolean): State {
    next = []
    step++
    ;[atSegmentStart, atSegmentEnd] = [code === slash, atEnd]
    for (const place of from.places) {
      const instruction = program[place]
      if (instruction === undefined) continue // the end, with text left
      if (instruction.is === 'segments') stay(place)
      else if (instruction.is === 'star') {
        if (code !== slash) enter(place)
      } else if (takes(instruction, code)) enter(place + 1)
    }
    return state()
  }

  const starts = { inside: begin(false), atEnd: begin(true) }
  return (text) => {
    let now = text === '' || text.startsWith('/') ? starts.atEnd : starts.inside
    for (let at = 0; at < text.length;) {
      const code = text.codePointAt(at)!
      at += code > 0xffff ? 2 : 1
      const atEnd = at === text.length || text.charCodeAt(at) === slash
      const way = atEnd ? -1 - code : code
      let then = now.after.get(way)
      if (then === undefined) {
        then = follow(now, code, atEnd)
        if (now.after.size < maxStates) now.after.set(way, then)
      }
      if (then.places.length === 0) return false
      now = then
    }
    return now.matched
  }
}

function takes(instruction: Instruction, code: number): boolean {
  switch (instruction.is) {
    case 'character':
      return instruction.code === code
    case 'any':
      return code !== slash
    case 'class':
      return code !== slash && instruction.negated !== instruction.ranges.some(([a, b]) => a <= code && code <= b)
    default:
      return false
  }
}
