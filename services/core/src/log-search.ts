import { createInterface } from 'node:readline'
import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import { problems } from '@haven/errors'

/** What to look for; texts as the log collector reads them. */
export type LogQuery = Readonly<
  Partial<Record<'service' | 'request' | 'level' | 'text' | 'from' | 'to', string>> & { limit: number }
>

/** A line as the collector keeps it. */
export type KeptLine = Readonly<Record<string, unknown>>

/**
 * Finds lines, the newest first, as they arrive from the log collector; what it returns says whether it had to leave out older ones.
 * @throws badRequest in the collector's words; serviceUnavailable.
 */
export type LogSearch = (query: LogQuery) => Promise<AsyncGenerator<KeptLine, { truncated: boolean }>>

/** The collector may read a gibibyte for one answer. */
const SEARCH_MS = 60_000

export function logSearch(url: string | undefined, secret: string | undefined): LogSearch {
  return async ({ limit, ...terms }) => {
    if (url === undefined || secret === undefined) {
      throw problems.serviceUnavailable({ message: 'no log collector is set up: LOG_COLLECTOR_URL is not set' })
    }
    const address = new URL('/v1/search', url)
    address.searchParams.set('limit', String(limit))
    for (const [name, value] of Object.entries(terms)) address.searchParams.set(name, value)
    const over = new AbortController()
    const answer = await fetch(address, {
      headers: { Authorization: `Bearer ${secret}` },
      signal: AbortSignal.any([over.signal, AbortSignal.timeout(SEARCH_MS)]),
    }).catch((cause: unknown) => {
      throw problems.serviceUnavailable({ message: 'the log collector does not answer' }, { cause })
    })
    if (answer.status === 400) throw problems.badRequest({ message: await reasonOf(answer) })
    if (!answer.ok || !answer.body) {
      await answer.body?.cancel()
      throw problems.serviceUnavailable({ message: `the log collector answered ${answer.status}` })
    }
    return linesOf(answer.body, over)
  }
}

async function* linesOf(body: ReadableStream, over: AbortController): AsyncGenerator<KeptLine, { truncated: boolean }> {
  let truncated = false
  try {
    for await (const text of createInterface({ input: Readable.fromWeb(body), crlfDelay: Infinity })) {
      const line = JSON.parse(text) as KeptLine
      // The collector's own last word; a line of a service has a time.
      if (line.truncated === true && line.time === undefined) truncated = true
      else yield line
    }
  } finally {
    over.abort() // whoever reads may have stopped before the end
  }
  return { truncated }
}

async function reasonOf(answer: Response): Promise<string> {
  const { errors } = (await answer.json()) as { errors?: { message?: string }[] }
  return errors?.[0]?.message ?? 'the log collector refused the search'
}
