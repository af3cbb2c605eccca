import { readFileSync } from 'node:fs'

/** One request of a recording and what was answered, ids and times replaced by placeholders. */
export type Recorded = {
  name: string
  group: string
  method: string
  path: string
  status: number
  headers: Record<string, unknown>
  body: unknown
}

/** A difference that is meant: which requests (`*` stands for anything), what differs in them, and why. */
export type Deliberate = { name: string; what: string; reason: string }

export const readRecording = (file: string): Recorded[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Recorded)

/**
 * What differs between a recorded answer and ours, as words that `Deliberate.what` names: `status 500 -> 401`, `header link`,
 * `shape +.json.x:string`. Where the status differs, the rest follows from it and is not compared.
 */
export function differencesOf(theirs: Recorded, ours: Recorded): string[] {
  if (theirs.status !== ours.status) return [`status ${theirs.status} -> ${ours.status}`]
  const headers = new Set([...Object.keys(theirs.headers), ...Object.keys(ours.headers)])
  const shapes = [shapeOf(theirs.body), shapeOf(ours.body)] as const
  return [
    ...[...headers]
      .filter((name) => isCompared(name, theirs))
      .filter((name) => JSON.stringify(theirs.headers[name]) !== JSON.stringify(ours.headers[name]))
      .map((name) => `header ${name}`),
    ...[...shapes[0]].filter((path) => !shapes[1].has(path)).map((path) => `shape -${path}`),
    ...[...shapes[1]].filter((path) => !shapes[0].has(path)).map((path) => `shape +${path}`),
  ]
}

/** A new visitor's cookie comes with every answer; it is compared only where sessions are the matter. */
const isCompared = (header: string, { group, path }: Recorded) =>
  header !== 'x-request-id' && (header !== 'set-cookie' || group === 'session' || path.startsWith('/c/'))

const PLACEHOLDERS_OF_NUMBERS = new Set(['<id>', '<n>', '<count>', '<epoch>', '<bytes>'])

function shapeOf(value: unknown, path = '', shape = new Set<string>()): Set<string> {
  shape.add(`${path || '.'}:${kindOf(value)}`)
  if (Array.isArray(value)) for (const item of value) shapeOf(item, `${path}[]`, shape)
  else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) shapeOf(item, `${path}.${key}`, shape)
  }
  return shape
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'list'
  return typeof value === 'string' && PLACEHOLDERS_OF_NUMBERS.has(value) ? 'number' : typeof value
}

export function isDeliberate(name: string, difference: string, lines: readonly Deliberate[]): boolean {
  return lines.some((line) => matches(line.name, name) && matches(line.what, difference))
}

function matches(pattern: string, text: string): boolean {
  const parts = pattern.split('*')
  const [first = '', ...rest] = parts
  const last = rest.pop()
  if (last === undefined) return pattern === text
  if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length) return false
  let at = first.length
  for (const part of rest) {
    const found = text.indexOf(part, at)
    if (found === -1 || found + part.length > text.length - last.length) return false
    at = found + part.length
  }
  return true
}
