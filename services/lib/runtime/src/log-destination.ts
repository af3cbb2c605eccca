import { Agent, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import pino from 'pino'
import { escapeDeceptive, hideValues } from './redaction.ts'

export interface LogDestinationOptions {
  /** Base URL of the log collector; without it lines go to stdout. */
  readonly collectorUrl?: string | undefined
  readonly collectorSecret?: string | undefined
  /** Write to stdout also while the collector takes the lines. */
  readonly alwaysStdout?: boolean
  /** Values that must not appear in any line (`secretsOf(config)`). */
  readonly secrets?: readonly string[]
  /** Bytes kept for a collector that is away; beyond, the oldest lines are dropped, a sixteenth of them at most at a time, and counted. */
  readonly bufferBytes?: number
  readonly flushAfterMs?: number
  /** Where stdout lines go; another sink in tests. */
  readonly stdout?: { write(line: string): unknown; flushSync?(): void }
}

/** Where the lines of a process go. Shared by the loggers of all services in it. */
export interface LogDestination extends AsyncDisposable {
  write(line: string): void
  /** Hides further values from now on (`secretsOf` of settings that were read later). */
  hide(secrets: readonly string[]): void
  /** Lines that were dropped because the collector was away for too long. */
  readonly dropped: number
}

const MAX_BATCH_BYTES = 256 * 1024
const PAGE_BYTES = 32 * 1024
const REQUEST_TIMEOUT_MS = 10_000
const MAX_PAUSE_MS = 30_000

/** Lines go in batches to the collector; to stdout when there is none, when it is away, or when asked for. */
export function openLogDestination(options: LogDestinationOptions = {}): LogDestination {
  let hidden = options.secrets ?? []
  let hide = hideValues(hidden)
  const safe = (text: string) => escapeDeceptive(hide(text))
  const stdout = options.stdout ?? ownStdout()
  const shipper = options.collectorUrl === undefined ? null : new Shipper(options.collectorUrl, options, safe)
  return {
    get dropped() {
      return shipper?.dropped ?? 0
    },
    hide(secrets) {
      hidden = [...hidden, ...secrets]
      hide = hideValues(hidden)
    },
    write(line) {
      if (shipper === null || shipper.away || options.alwaysStdout) stdout.write(safe(line))
      shipper?.add(line)
    },
    async [Symbol.asyncDispose]() {
      const unsent = (await shipper?.close()) ?? []
      if (!shipper?.away && !options.alwaysStdout) for (const line of unsent) stdout.write(safe(line))
      stdout.flushSync?.()
    },
  }
}

function ownStdout() {
  // Not one write(2) a line: an access log line per request would cost as much as the request.
  const out = pino.destination({ fd: 1, sync: false, minLength: 4096, maxLength: 16 * 1024 * 1024, periodicFlush: 200 })
  // A reader of our stdout that went away (EPIPE) must not end a service.
  out.on('error', () => {})
  return out
}

/**
 * Lines on their way, as bytes: texts that wait for the next batch would be moved by the collector of garbage once or twice each, and they
 * are what most of a small request leaves behind.
 */
class Pages {
  readonly #pages: Page[] = []
  readonly #pageBytes: number
  bytes = 0

  constructor(pageBytes: number) {
    this.#pageBytes = pageBytes
  }

  get empty(): boolean {
    return this.#pages.length === 0
  }

  add(line: string): void {
    const most = line.length * 3
    let page = this.#pages.at(-1)
    if (page === undefined || page.text.length - page.used < most) {
      page = { text: Buffer.allocUnsafeSlow(Math.max(this.#pageBytes, most)), used: 0, lines: 0 }
      this.#pages.push(page)
    }
    const written = page.text.write(line, page.used)
    page.used += written
    page.lines += 1
    this.bytes += written
  }

  /** Takes the oldest pages, of so many bytes at most but always one. */
  take(bytes: number): Page[] {
    let [count, size] = [0, 0]
    for (const { used } of this.#pages) {
      if (count > 0 && size + used > bytes) break
      size += used
      count += 1
    }
    this.bytes -= size
    return this.#pages.splice(0, count)
  }

  giveBack(pages: readonly Page[]): void {
    this.#pages.unshift(...pages)
    for (const { used } of pages) this.bytes += used
  }
}

type Page = { readonly text: Buffer; used: number; lines: number }

const textOf = (pages: readonly Page[]) => pages.map(({ text, used }) => text.toString('utf8', 0, used)).join('')

class Shipper {
  readonly #url: URL
  readonly #secret: string
  readonly #bufferBytes: number
  readonly #flushAfterMs: number
  readonly #agent: Agent
  readonly #safe: (text: string) => string
  readonly #pages: Pages
  #sending: Promise<void> | null = null
  #timer: NodeJS.Timeout | null = null
  #failures = 0
  #unreported = 0
  #closed = false
  dropped = 0

  /** @param safe makes a text of whole lines fit to leave: a batch at a time, which costs a tenth of line by line. */
  constructor(url: string, options: LogDestinationOptions, safe: (text: string) => string) {
    this.#safe = safe
    this.#url = new URL('/v1/lines', url)
    this.#secret = options.collectorSecret ?? ''
    this.#bufferBytes = options.bufferBytes ?? 4 * 1024 * 1024
    this.#pages = new Pages(Math.min(PAGE_BYTES, this.#bufferBytes / 16))
    this.#flushAfterMs = options.flushAfterMs ?? 500
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 })
  }

  get away(): boolean {
    return this.#failures > 0
  }

  add(line: string): void {
    this.#pages.add(line)
    while (this.#pages.bytes > this.#bufferBytes) {
      for (const { lines } of this.#pages.take(0)) {
        this.dropped += lines
        this.#unreported += lines
      }
    }
    if (this.#pages.bytes >= MAX_BATCH_BYTES && !this.away) void this.#flush()
    else this.#schedule(this.#flushAfterMs)
  }

  /** Sends what is left, once, and gives back what could not be sent. */
  async close(): Promise<readonly string[]> {
    this.#closed = true
    if (this.#timer) clearTimeout(this.#timer)
    await this.#sending
    while (!this.#pages.empty) {
      const before = this.#failures
      await this.#flush()
      if (this.#failures > before) break
    }
    this.#agent.destroy()
    return textOf(this.#pages.take(Infinity)).match(/[^\n]*\n/g) ?? []
  }

  #schedule(ms: number) {
    if (this.#timer || this.#closed) return
    this.#timer = setTimeout(() => {
      this.#timer = null
      void this.#flush()
    }, ms)
    this.#timer.unref()
  }

  #flush(): Promise<void> {
    this.#sending ??= this.#send().finally(() => {
      this.#sending = null
      const pause = this.away ? Math.min(MAX_PAUSE_MS, this.#flushAfterMs * 2 ** this.#failures) : this.#flushAfterMs
      if (!this.#pages.empty) this.#schedule(pause)
    })
    return this.#sending
  }

  async #send(): Promise<void> {
    const batch = this.#pages.take(MAX_BATCH_BYTES)
    if (batch.length === 0) return
    const missing = this.#unreported
    try {
      await this.#post(this.#safe(textOf(batch)), missing)
      this.#failures = 0
      this.#unreported -= missing
    } catch {
      // Not logged: the line about it would join the queue. `away` sends further lines to stdout.
      this.#failures = Math.min(this.#failures + 1, 10)
      this.#pages.giveBack(batch)
    }
  }

  #post(body: string, dropped: number): Promise<void> {
    const send = this.#url.protocol === 'https:' ? httpsRequest : httpRequest
    return new Promise((resolve, reject) => {
      const req = send(this.#url, {
        method: 'POST',
        ...(send === httpRequest ? { agent: this.#agent } : {}),
        timeout: REQUEST_TIMEOUT_MS,
        headers: {
          authorization: `Bearer ${this.#secret}`,
          'content-type': 'application/x-ndjson',
          'content-length': Buffer.byteLength(body),
          ...(dropped > 0 ? { 'x-haven-dropped': String(dropped) } : {}),
        },
      })
      req.on('timeout', () => req.destroy(new Error('the log collector does not answer')))
      req.on('error', reject)
      req.on('response', (res) => {
        res.on('error', reject)
        res.resume()
        res.on('end', () => {
          if (res.statusCode === 204) resolve()
          else reject(new Error(`the log collector answered ${res.statusCode}`))
        })
      })
      req.end(body)
    })
  }
}
