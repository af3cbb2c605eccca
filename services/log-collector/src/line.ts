import { escapeDeceptive, loggable } from '@haven/runtime'

/** A line as it is kept: one JSON object with at least these. */
export interface LogLine {
  readonly time: string
  readonly level: string
  readonly service: string
  readonly msg: string
  readonly [field: string]: unknown
}

export interface KeptLine {
  readonly service: string
  readonly fields: LogLine
  /** The line itself, one line whatever was sent in it, with its line break. */
  readonly text: string
}

/** A line that is kept as it came; its fields are read when somebody asks. */
class PlainLine implements KeptLine {
  readonly service: string
  readonly text: string
  #fields: LogLine | null = null

  constructor(service: string, text: string) {
    this.service = service
    this.text = text
  }

  get fields(): LogLine {
    return (this.#fields ??= JSON.parse(this.text) as LogLine)
  }
}

// The access line of the proxy when nothing in it needs an escape: exactly these fields, none of which is a secret's, and short enough for no value to
// be cut. Anything else, however close, is read and written anew below.
const text = '"[ !#-[\\]-~]*"'
const accessLine = new RegExp(
  `^\\{"level":"info","time":"\\d{4}-[01]\\d-[0-3]\\dT[0-2]\\d:[0-5]\\d:[0-5]\\d\\.\\d{3}Z","service":"([a-z][a-z0-9-]{0,31})",` +
    `"request":${text},"client":${text},"method":${text},"url":${text},"status":\\d{3},"bytes":\\d{1,15},` +
    `"ms":(?:0|[1-9]\\d{0,9})(?:\\.\\d{1,3})?,"to":${text}(?:,"agent":${text})?,"msg":"access"\\}$`,
)
const MAX_PLAIN_LINE = 2048

/** Longest kept line in characters: many values of 2 KiB each are no reason to keep a book. */
const MAX_LINE = 32 * 1024

export const levels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const
export type Level = (typeof levels)[number]

/** Whether a text can be the name of a service, and so of a file (threats.md A78). */
export function isServiceName(text: unknown): text is string {
  return typeof text === 'string' && /^[a-z][a-z0-9-]{0,31}$/.test(text)
}

/**
 * Reads what a service sent as one line. The sender is trusted to be one of ours, what it was made to write is not: values are cut
 * again, control characters escaped again, and the name must be one.
 */
export function readLine(sent: string, now: () => Date = () => new Date()): KeptLine {
  if (sent.length <= MAX_PLAIN_LINE) {
    const service = accessLine.exec(sent)?.[1]
    if (service !== undefined) return new PlainLine(service, `${sent}\n`)
  }
  let value: unknown
  try {
    value = JSON.parse(sent)
  } catch {
    return keep({ level: 'warn', service: 'unreadable', msg: 'not a JSON line', text: sent }, now)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return keep({ level: 'warn', service: 'unreadable', msg: 'not a JSON object', text: sent }, now)
  }
  const { service } = value as { service?: unknown }
  return isServiceName(service)
    ? keep(value as Record<string, unknown>, now)
    : keep({ ...value, service: 'unreadable', saysItIs: service }, now)
}

/** Makes a line of fields, with what is missing or impossible filled in. */
export function keep(fields: Readonly<Record<string, unknown>>, now: () => Date = () => new Date()): KeptLine {
  const { level, time, service, msg, ...rest } = loggable(fields) as Record<string, unknown>
  const line: LogLine = {
    level: (levels as readonly unknown[]).includes(level) ? (level as Level) : 'info',
    time: timeOf(time) ?? now().toISOString(),
    service: isServiceName(service) ? service : 'unreadable',
    msg: typeof msg === 'string' ? msg : '',
    ...rest,
  }
  const text = escapeDeceptive(JSON.stringify(line))
  if (text.length <= MAX_LINE) return { service: line.service, fields: line, text: `${text}\n` }
  const { level: l, time: t, service: s, msg: m } = line
  const short: LogLine = { level: l, time: t, service: s, msg: m, cut: `${text.length} characters` }
  const request: unknown = line.request
  const fitted = typeof request === 'string' ? { ...short, request } : short
  return { service: s, fields: fitted, text: `${escapeDeceptive(JSON.stringify(fitted))}\n` }
}

function timeOf(time: unknown): string | null {
  if (typeof time !== 'string' && typeof time !== 'number') return null
  const date = new Date(time)
  return Number.isNaN(date.getTime()) ? null : date.toISOString()
}
