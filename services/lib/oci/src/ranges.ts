/** First and last byte, both included, as HTTP counts. */
export interface ByteRange {
  readonly first: number
  readonly last: number
}

/** zstd:chunked asks for up to 1 024 parts at once; more are no client's, and each costs a part of the answer (CVE-2011-3192). */
export const maxRanges = 1024

/**
 * The parts of a blob that a `Range` header asks for, in its order, clipped to the size (RFC 9110, 14.2).
 *
 * - `'whole'`: the header does not count and the answer is 200: no range, another unit, malformed, more than `maxRanges`, or
 *   parts that together are longer than the blob.
 * - `null`: none of the ranges can be satisfied: 416 with `formatContentRange(null, sizeBytes)`. So is one that ends before it begins:
 *   RFC 9110, 14.2 lets a server reject it, and a client that gets the whole blob instead learns nothing of its mistake.
 */
export function parseRange(header: string | undefined, sizeBytes: number): readonly ByteRange[] | 'whole' | null {
  const specs = /^bytes=(.*)$/i.exec(header?.trim() ?? '')?.[1]
  if (specs === undefined) return 'whole'
  const ranges: ByteRange[] = []
  // RFC 9110, 5.6.1: empty members of a list are ignored.
  const listed = specs
    .split(',')
    .map((spec) => spec.trim())
    .filter((spec) => spec !== '')
  if (listed.length === 0 || listed.length > maxRanges) return 'whole'
  for (const spec of listed) {
    const [, from, to] = /^(\d*)-(\d*)$/.exec(spec) ?? []
    if (from === undefined || to === undefined || (from === '' && to === '')) return 'whole'
    const range =
      from === '' ? lastBytes(Number(to), sizeBytes) : { first: Number(from), last: to === '' ? Infinity : Number(to) }
    if (range.first < sizeBytes && range.last >= range.first) {
      ranges.push({ first: range.first, last: Math.min(range.last, sizeBytes - 1) })
    }
  }
  if (ranges.length === 0) return null
  const total = ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0)
  return ranges.length > 1 && total > sizeBytes ? 'whole' : ranges
}

function lastBytes(count: number, sizeBytes: number): ByteRange {
  return { first: Math.max(0, sizeBytes - count), last: sizeBytes - 1 }
}

/** `bytes 0-9/100`; `bytes * /100` (without the blank) for a range that cannot be satisfied. */
export function formatContentRange(range: ByteRange | null, sizeBytes: number): string {
  return range === null ? `bytes */${sizeBytes}` : `bytes ${range.first}-${range.last}/${sizeBytes}`
}

/**
 * The `Content-Range` of an upload's chunk: `0-1023`, as OCI Distribution 1.1 writes it, with `bytes ` before and `/total`
 * or `/*` behind as some clients do. Null when malformed; what follows from its place is for the upload to say.
 */
export function parseUploadRange(header: string): ByteRange | null {
  const [, from, to, total] = /^(?:bytes[ =])?(\d{1,16})-(\d{1,16})(?:\/(\d{1,16}|\*))?$/i.exec(header.trim()) ?? []
  if (from === undefined || to === undefined) return null
  const range = { first: Number(from), last: Number(to) }
  if (!Number.isSafeInteger(range.first) || !Number.isSafeInteger(range.last) || range.last < range.first) return null
  return total !== undefined && total !== '*' && Number(total) <= range.last ? null : range
}

/** The `Range` of an upload's answer: `0-<last byte>`. An empty upload is `0-0` as in Distribution: there is no other way. */
export function formatUploadRange(receivedBytes: number): string {
  return `0-${Math.max(0, receivedBytes - 1)}`
}
