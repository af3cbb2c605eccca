import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Logger } from '@haven/runtime'
import { keep, type KeptLine, type Level } from './line.ts'

const MAX_MESSAGE_BYTES = 16 * 1024
const MAX_CONNECTIONS = 64
const IDLE_MS = 10 * 60_000

// RFC 5424, table 2.
const severities: readonly Level[] = ['fatal', 'fatal', 'fatal', 'error', 'warn', 'info', 'info', 'debug']

const rfc5424 =
  /^<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) (-|(?:\[(?:[^\]\\"]|"(?:[^"\\]|\\.)*"|\\.)*\])+)(?: ?([\s\S]*))?$/
const rfc3164 = /^<(\d{1,3})>(?:([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (\S+) )?([\s\S]*)$/

/**
 * Reads one syslog message, of RFC 5424 or of RFC 3164. Who sent it says its own name, so all go to one file: a name from outside
 * never becomes a file's (threats.md A78).
 */
export function readSyslog(message: string, from: string, now: () => Date = () => new Date()): KeptLine {
  const text = message.replace(/^\ufeff/, '').replace(/[\r\n\0]+$/, '')
  const modern = rfc5424.exec(text)
  if (modern) {
    const [, pri, time, host, app, process, id, , msg = ''] = modern
    return keep(
      {
        time,
        level: levelOf(pri!),
        service: 'syslog',
        msg: msg.replace(/^\ufeff/, ''),
        from,
        ...known({ host, app, process, id }),
      },
      now,
    )
  }
  const old = rfc3164.exec(text)
  if (!old) return keep({ service: 'syslog', level: 'info', msg: text, from }, now)
  const [, pri, , host, rest = ''] = old
  const tag = /^([^\s:[]{1,48})(?:\[([^\]]{1,32})\])?: ?([\s\S]*)$/.exec(rest)
  // RFC 3164 knows neither year nor zone: the time of arrival says more.
  return keep(
    {
      level: levelOf(pri!),
      service: 'syslog',
      msg: tag?.[3] ?? rest,
      from,
      ...known({ host, app: tag?.[1], process: tag?.[2] }),
    },
    now,
  )
}

function levelOf(pri: string): Level {
  return severities[Number(pri) % 8]!
}

function known(fields: Record<string, string | undefined>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '-'),
  )
}

/** Cuts a TCP stream into messages: octet counting or one a line, as each message begins (RFC 6587, 3.4). */
export class SyslogFraming {
  #buffer: Buffer = Buffer.alloc(0)

  /** The messages that are complete with this chunk. Throws when the stream cannot be syslog. */
  push(chunk: Buffer): string[] {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk])
    const messages: string[] = []
    for (;;) {
      const counted = /^(\d{1,6}) /.exec(this.#buffer.subarray(0, 7).toString('latin1'))
      if (counted) {
        const length = Number(counted[1])
        const start = counted[0].length
        if (length > MAX_MESSAGE_BYTES) throw new Error(`a message of ${length} bytes is too long`)
        if (this.#buffer.length < start + length) return messages
        messages.push(this.#buffer.subarray(start, start + length).toString())
        this.#buffer = this.#buffer.subarray(start + length)
        continue
      }
      const end = this.#buffer.indexOf(0x0a)
      if (end === -1) {
        if (this.#buffer.length > MAX_MESSAGE_BYTES) throw new Error('a message without an end')
        return messages
      }
      const message = this.#buffer.subarray(0, end).toString()
      if (message.trim() !== '') messages.push(message)
      this.#buffer = this.#buffer.subarray(end + 1)
    }
  }
}

export interface SyslogReceiver extends AsyncDisposable {
  readonly port: number
}

/** Receives syslog over TCP and UDP on one port number. */
export async function receiveSyslog(
  at: { readonly host: string; readonly port: number },
  receive: (line: KeptLine) => void,
  log: Logger,
): Promise<SyslogReceiver> {
  const sockets = new Set<Socket>()
  const tcp = createServer((socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', (err) => log.debug({ err }, 'a syslog sender went away'))
    socket.setTimeout(IDLE_MS, () => socket.destroy())
    const framing = new SyslogFraming()
    const from = socket.remoteAddress ?? ''
    socket.on('data', (chunk) => {
      try {
        for (const message of framing.push(chunk)) receive(readSyslog(message, from))
      } catch (err) {
        log.warn({ err, from }, 'a syslog sender was cut off')
        socket.destroy()
      }
    })
  })
  tcp.maxConnections = MAX_CONNECTIONS
  await listening(tcp, at)
  const { port } = tcp.address() as AddressInfo
  const udp: UdpSocket = createSocket(at.host.includes(':') ? 'udp6' : 'udp4')
  udp.on('message', (message, { address }) => receive(readSyslog(message.toString(), address)))
  await new Promise<void>((resolve, reject) => {
    udp.once('error', reject)
    udp.bind(port, at.host, () => {
      udp.off('error', reject)
      resolve()
    })
  })
  udp.on('error', (err) => log.error({ err }, 'syslog over UDP failed'))
  tcp.on('error', (err) => log.error({ err }, 'syslog over TCP failed'))
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await Promise.all([
        new Promise<void>((resolve) => udp.close(() => resolve())),
        new Promise<void>((resolve) => tcp.close(() => resolve())),
      ])
    },
  }
}

function listening(server: Server, { host, port }: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
