import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect, isIPv6, type Socket } from 'node:net'
import { hostname } from 'node:os'
import { connect as tlsConnect } from 'node:tls'
import type { Logger } from '@haven/runtime'
import type { KeptLine, Level } from './line.ts'

export interface ForwarderOptions {
  /** `tcp://host:port`, `udp://host:port` or `tls://host:port`. */
  readonly url: string
  /** Certificate authority of the receiver in PEM. With it no other is trusted. */
  readonly ca?: string | undefined
  readonly bufferBytes?: number
  readonly log: Logger
  /** First pause before a new connection; doubles up to half a minute. */
  readonly retryMs?: number
}

const LOCAL0 = 16
const MAX_PAUSE_MS = 30_000
const CONNECT_MS = 10_000
/** A connection that ends sooner counts as a failure of the next, so that a receiver that closes at once is not called without a pause. */
const STEADY_MS = 10_000
const REPORT_EVERY_MS = 60_000
// Over UDP without fragments of IP where it can be helped (RFC 5426, 3.2).
const MAX_DATAGRAM_BYTES = 1200
// RFC 5612's number for documentation: we have none of our own.
const SD_ID = 'haven@32473'

const severityOf: Readonly<Record<string, number>> = {
  trace: 7,
  debug: 7,
  info: 6,
  warn: 4,
  error: 3,
  fatal: 2,
} satisfies Record<Level, number>

/** A line as an RFC 5424 message: the JSON line is the text, its request id also structured data. */
export function syslogMessage({ fields, text }: KeptLine, host: string = hostname()): string {
  const priority = LOCAL0 * 8 + (severityOf[fields.level] ?? 6)
  const request: unknown = fields.request
  const data =
    typeof request === 'string' ? `[${SD_ID} request="${request.replaceAll(/["\\\]]/g, (c) => `\\${c}`)}"]` : '-'
  const name = host.replaceAll(/[^!-~]/g, '').slice(0, 255) || '-'
  return `<${priority}>1 ${fields.time} ${name} haven-${fields.service} - - ${data} ${text.trimEnd()}`
}

/** Sends lines on; keeps a bounded number while the receiver is away, drops the oldest beyond and counts them. */
export class Forwarder implements AsyncDisposable {
  readonly #options: ForwarderOptions
  readonly #url: URL
  readonly #bufferBytes: number
  #queue: Buffer[] = []
  #bytes = 0
  #socket: Socket | UdpSocket | null = null
  #ready = false
  #upSince = 0
  #failures = 0
  #timer: NodeJS.Timeout | null = null
  #closed = false
  #reportedAt = -Infinity
  #toldAway = false
  dropped = 0

  constructor(options: ForwarderOptions) {
    this.#options = options
    this.#url = new URL(options.url)
    this.#bufferBytes = options.bufferBytes ?? 4 * 1024 * 1024
    this.#connect()
  }

  send(line: KeptLine): void {
    const message = Buffer.from(syslogMessage(line))
    const framed = this.#url.protocol === 'udp:' ? cutUtf8(message, MAX_DATAGRAM_BYTES) : octetCounted(message)
    this.#queue.push(framed)
    this.#bytes += framed.length
    while (this.#bytes > this.#bufferBytes && this.#queue.length > 0) {
      this.#bytes -= this.#queue.shift()!.length
      this.dropped += 1
    }
    this.#flush()
  }

  /** Gives what is queued up to a second to leave. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (let waited = 0; this.#ready && this.#queue.length > 0 && waited < 1000; waited += 20) {
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    this.#closed = true
    if (this.#timer) clearTimeout(this.#timer)
    const socket = this.#socket
    this.#socket = null
    if (!socket) return
    await new Promise<void>((resolve) => {
      socket.once('close', () => resolve())
      if ('destroy' in socket) {
        socket.end()
        setTimeout(() => socket.destroy(), 500).unref()
      } else socket.close()
    })
  }

  #connect(): void {
    const { protocol, hostname: bracketed, port } = this.#url
    const host = bracketed.replaceAll(/[[\]]/g, '')
    const number = Number(port || (protocol === 'tls:' ? 6514 : 514))
    if (protocol === 'udp:') {
      const udp = createSocket(isIPv6(host) ? 'udp6' : 'udp4')
      this.#socket = udp
      udp.on('error', (err) => this.#lost(udp, err))
      udp.on('close', () => this.#lost(udp))
      udp.connect(number, host, () => this.#up())
      return
    }
    const { ca } = this.#options
    const socket =
      protocol === 'tls:'
        ? tlsConnect({
            host,
            port: number,
            ...(isIPv6(host) ? {} : { servername: host }),
            ...(ca === undefined ? {} : { ca }),
          })
        : connect({ host, port: number })
    this.#socket = socket
    socket.setTimeout(CONNECT_MS, () => {
      if (!this.#ready) socket.destroy(new Error('no connection within ten seconds'))
    })
    socket.setKeepAlive(true, 30_000)
    socket.once(protocol === 'tls:' ? 'secureConnect' : 'connect', () => this.#up())
    socket.on('drain', () => this.#flush())
    socket.on('error', (err) => this.#lost(socket, err))
    // A receiver sends nothing; reading is how its end is noticed.
    socket.resume()
    socket.on('end', () => socket.destroy())
    socket.on('close', () => this.#lost(socket))
  }

  #up(): void {
    if (this.#toldAway) this.#options.log.info({ dropped: this.dropped }, 'forwarding goes on')
    this.#toldAway = false
    this.#ready = true
    this.#upSince = performance.now()
    this.#flush()
  }

  #lost(socket: Socket | UdpSocket, err?: Error): void {
    if (this.#closed || this.#timer || socket !== this.#socket) return
    const now = performance.now()
    if (this.#ready && now - this.#upSince > STEADY_MS) this.#failures = 0
    this.#ready = false
    this.#socket = null
    if ('destroy' in socket) socket.destroy()
    else if (err) socket.close()
    this.#failures += 1
    // Once a while, not at every attempt: these lines are forwarded too.
    if (now - this.#reportedAt > REPORT_EVERY_MS) {
      this.#reportedAt = now
      this.#toldAway = true
      this.#options.log.warn({ err, dropped: this.dropped }, 'the receiver of forwarded logs is away')
    }
    const pause = Math.min(MAX_PAUSE_MS, (this.#options.retryMs ?? 500) * 2 ** Math.min(this.#failures - 1, 8))
    this.#timer = setTimeout(() => {
      this.#timer = null
      this.#connect()
    }, pause)
    this.#timer.unref()
  }

  #flush(): void {
    const socket = this.#socket
    while (this.#ready && socket && this.#queue.length > 0) {
      if (!('destroy' in socket)) {
        socket.send(this.#take(), (error) => {
          // A closed port answers with ICMP, which shows at a later datagram: the ones before are gone, as UDP allows.
          if (error && !this.#closed) this.#options.log.debug({ err: error }, 'a datagram was refused')
        })
      } else if (socket.writableNeedDrain) return
      else socket.write(this.#take())
    }
  }

  #take(): Buffer {
    const message = this.#queue.shift()!
    this.#bytes -= message.length
    return message
  }
}

/** RFC 6587, 3.4.1. */
function octetCounted(message: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${message.length} `), message])
}

function cutUtf8(bytes: Buffer, limit: number): Buffer {
  if (bytes.length <= limit) return bytes
  let end = limit
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end -= 1
  return bytes.subarray(0, end)
}
