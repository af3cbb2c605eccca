/** Longest text of one value in a log line, in characters; what is longer is cut and says so. */
export const MAX_LOGGED_CHARACTERS = 2048
const MAX_DEPTH = 8
const MAX_ENTRIES = 100
const HIDDEN = '***'

const secretKey =
  /(?:pass(?:word|wd|phrase)?|secret|token|authorization|cookie|credential|api[-_]?key|private[-_]?key|signature)$/i

/** A value as it may be logged: secrets hidden by the name of their key, long texts cut, errors with their causes. */
export function loggable(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return cut(value)
  if (typeof value === 'bigint') return value.toString()
  if (typeof value === 'function' || typeof value === 'symbol') return String(value).slice(0, 80)
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Error) return errorFields(value, depth)
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString()
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`
  if (depth >= MAX_DEPTH) return '…'
  if (Array.isArray(value)) return value.slice(0, MAX_ENTRIES).map((entry) => loggable(entry, depth + 1))
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') {
    return loggable((value as { toJSON(): unknown }).toJSON(), depth + 1)
  }
  const fields: Record<string, unknown> = {}
  let count = 0
  for (const key of Object.keys(value)) {
    if ((count += 1) > MAX_ENTRIES) break
    const entry = (value as Record<string, unknown>)[key]
    const shown = isSecretKey(key) && entry !== null && entry !== undefined ? HIDDEN : loggable(entry, depth + 1)
    // Assigning a key of this name would set the prototype.
    if (key === '__proto__') Object.defineProperty(fields, key, { value: shown, enumerable: true })
    else fields[key] = shown
  }
  return fields
}

// The keys of log lines are few; asking the pattern each time cost a quarter of an access line.
const asked = new Map<string, boolean>()

function isSecretKey(key: string): boolean {
  let secret = asked.get(key)
  if (secret === undefined) {
    secret = secretKey.test(key)
    // Keys can come from a request; only so many are remembered.
    if (asked.size < 1000 && key.length < 64) asked.set(key, secret)
  }
  return secret
}

export function cut(text: string): string {
  return text.length <= MAX_LOGGED_CHARACTERS
    ? text
    : `${text.slice(0, MAX_LOGGED_CHARACTERS)}… (${text.length} characters)`
}

function errorFields(error: Error, depth: number): Record<string, unknown> {
  const { code, cause } = error as { code?: unknown; cause?: unknown }
  return {
    type: error.name,
    message: cut(error.message),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(error.stack === undefined ? {} : { stack: cut(error.stack) }),
    ...(cause === undefined || depth >= MAX_DEPTH ? {} : { cause: loggable(cause, depth + 1) }),
    ...(error instanceof AggregateError
      ? { errors: error.errors.slice(0, 10).map((e) => loggable(e, depth + 1)) }
      : {}),
  }
}

/** A function that hides the given secrets, as they are and as JSON writes them, wherever they are in a line. */
export function hideValues(secrets: readonly string[]): (line: string) => string {
  // A short secret would blank out ordinary words; settings refuse secrets this short.
  const forms = secrets
    .filter((secret) => secret.length >= 8)
    .flatMap((secret) => [JSON.stringify(secret).slice(1, -1), Buffer.from(secret).toString('base64')])
  const sorted = [...new Set(forms)].sort((a, b) => b.length - a.length)
  return (line) => {
    for (const form of sorted) if (line.includes(form)) line = line.replaceAll(form, HIDDEN)
    return line
  }
}

// DEL, C1, the line separators, and the marks that make a terminal show text in another order than it is in.
// oxlint-disable-next-line no-control-regex -- the point of the check
const deceptive = /[\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g

/** JSON escapes what is below the blank; this escapes the rest that a terminal or a line reader acts on. */
export function escapeDeceptive(json: string): string {
  // Nearly every line has none, and a test without an answer is cheaper than a replacement.
  if (json.search(deceptive) === -1) return json
  return json.replaceAll(deceptive, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
