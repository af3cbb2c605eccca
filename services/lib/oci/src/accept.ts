/** One media range of an `Accept` header; `quality` is 0 to 1. */
export interface AcceptedType {
  /** Lower case, without parameters: `application/json`, `application/*`, `*` + `/*`. */
  readonly mediaType: string
  readonly quality: number
}

/** What a client accepts, best first, of the header or its repetitions. Empty when there is none; then anything goes. */
export function parseAccept(header: string | readonly string[] | undefined): readonly AcceptedType[] {
  const text = typeof header === 'string' ? header : (header ?? []).join(',')
  const accepted: AcceptedType[] = []
  for (const item of text.split(',')) {
    const [type = '', ...parameters] = item.split(';').map((part) => part.trim().toLowerCase())
    if (!/^[^\s/]+\/[^\s/]+$/.test(type)) continue
    const q = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2)
    // RFC 9110, 12.4.2. A malformed weight does not count.
    const quality = q !== undefined && /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/.test(q) ? Number(q) : 1
    accepted.push({ mediaType: type, quality })
  }
  return accepted.sort((a, b) => b.quality - a.quality)
}

/** Whether a type is acceptable: the most specific range that matches it decides. Without a header everything is. */
export function isAcceptable(accepted: readonly AcceptedType[], mediaType: string): boolean {
  if (accepted.length === 0) return true
  const type = mediaType.toLowerCase()
  for (const range of [type, `${type.slice(0, type.indexOf('/'))}/*`, '*/*']) {
    const found = accepted.find((one) => one.mediaType === range)
    if (found) return found.quality > 0
  }
  return false
}
