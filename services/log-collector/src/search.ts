import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { levels, type Level } from './line.ts'
import type { LogFile, LogFiles } from './log-files.ts'

export interface SearchQuery {
  readonly service?: string | undefined
  /** Id of a request, or of the trace that it is part of. */
  readonly request?: string | undefined
  /** This level and worse. */
  readonly level?: Level | undefined
  /** Anywhere in the line, whatever its case. */
  readonly text?: string | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
  readonly limit: number
}

/** What one search may read, before decompression counts as after: a search must not become the machine's work. */
const MAX_SCANNED_BYTES = 1024 * 1024 * 1024

export interface SearchOutcome {
  /** True when older files were left out because the search had read enough. */
  readonly truncated: boolean
}

interface Found {
  readonly time: number
  readonly text: string
}

/** Matching lines, the newest first, over all files of the services. Files are read only as far as the limit asks for. */
export async function* searchLogs(
  files: LogFiles,
  query: SearchQuery,
  signal?: AbortSignal,
): AsyncGenerator<string, SearchOutcome> {
  const budget = { left: MAX_SCANNED_BYTES }
  const byService = Map.groupBy(await files.list(), ({ service }) => service)
  const sources: { next: Found; rest: AsyncGenerator<Found, void> }[] = []
  for (const [service, own] of byService) {
    if (query.service !== undefined && service !== query.service) continue
    const rest = newestFirst(own, query, budget, signal)
    const first = await rest.next()
    if (!first.done) sources.push({ next: first.value, rest })
  }
  for (let sent = 0; sent < query.limit && sources.length > 0; sent += 1) {
    const newest = sources.reduce((a, b) => (b.next.time > a.next.time ? b : a))
    yield newest.next.text
    const following = await newest.rest.next()
    if (following.done) sources.splice(sources.indexOf(newest), 1)
    else newest.next = following.value
  }
  return { truncated: budget.left <= 0 }
}

async function* newestFirst(
  files: readonly LogFile[],
  query: SearchQuery,
  budget: { left: number },
  signal: AbortSignal | undefined,
): AsyncGenerator<Found, void> {
  let left = query.limit
  for (const [i, file] of files.entries()) {
    if (left <= 0 || budget.left <= 0) return
    const beganAt = files[i + 1]?.endedAt ?? null
    if (query.to && beganAt && beganAt > query.to) continue
    if (query.from && file.endedAt && file.endedAt < query.from) return
    const found = await lastMatches(file, query, left, budget, signal)
    left -= found.length
    yield* found.reverse()
  }
}

/** The last `limit` matching lines of a file, in their order. */
async function lastMatches(
  file: LogFile,
  query: SearchQuery,
  limit: number,
  budget: { left: number },
  signal: AbortSignal | undefined,
): Promise<Found[]> {
  const matches = matcher(query)
  const found: Found[] = []
  const lines = createInterface({ input: contentOf(file, signal), crlfDelay: Infinity })
  try {
    for await (const line of lines) {
      budget.left -= line.length + 1
      if (budget.left <= 0) break
      const match = matches(line)
      if (match === null) continue
      found.push(match)
      // Twice the limit before cutting: one shift per line would cost the length of the list each time.
      if (found.length >= 2 * limit) found.splice(0, found.length - limit)
    }
  } catch (error) {
    // Rotated, compressed or dropped since it was listed.
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    if (!file.compressed && file.endedAt !== null) {
      return lastMatches({ ...file, path: `${file.path}.gz`, compressed: true }, query, limit, budget, signal)
    }
  } finally {
    lines.close()
  }
  return found.slice(-limit)
}

function contentOf(file: LogFile, signal: AbortSignal | undefined): Readable {
  const source = createReadStream(file.path, { highWaterMark: 256 * 1024, ...(signal && { signal }) })
  if (!file.compressed) return source
  const plain = createGunzip()
  source.on('error', (error) => plain.destroy(error))
  plain.on('close', () => source.destroy())
  return source.pipe(plain)
}

function matcher(query: SearchQuery): (line: string) => Found | null {
  const { request, level, from, to } = query
  const quoted = request === undefined ? null : JSON.stringify(request)
  const text = query.text?.toLowerCase()
  const least = level === undefined ? 0 : levels.indexOf(level)
  return (line) => {
    if (quoted !== null && !line.includes(quoted)) return null
    if (text !== undefined && !line.toLowerCase().includes(text)) return null
    let fields: { time?: unknown; level?: unknown; request?: unknown; trace?: unknown }
    try {
      fields = JSON.parse(line) as typeof fields
    } catch {
      return null // a line cut by a crash
    }
    if (request !== undefined && fields.request !== request && fields.trace !== request) return null
    if (least > 0 && levels.indexOf(fields.level as Level) < least) return null
    const time = Date.parse(String(fields.time))
    if (from && !(time >= from.getTime())) return null
    if (to && !(time <= to.getTime())) return null
    return { time: Number.isNaN(time) ? 0 : time, text: line }
  }
}
