import { STATUS_CODES, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'

/** How long the other end, which may keep its half open for ever, gets to close a connection that was refused. */
const CLOSE_MS = 1_000

/** Not the catalogue's envelope: who speaks no proper HTTP, or not in time, has no API surface yet. Closes the connection. */
export function answerPlainly(res: ServerResponse, status: number): void {
  const body = `${STATUS_CODES[status]}\n`
  res.shouldKeepAlive = false
  res.writeHead(status, {
    'Content-Type': 'text/plain; charset=utf-8',
    'Content-Length': Buffer.byteLength(body),
  })
  res.end(body)
}

/** The last answer on a connection whose requests cannot be read (any more). `body` is ASCII. */
export function endPlainly(
  socket: Duplex,
  status: number,
  { headers = '', body = `${STATUS_CODES[status]}\n` }: { headers?: string; body?: string } = {},
): void {
  const type = `Content-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: close\r\n`
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${type}${headers}\r\n${body}`)
  setTimeout(() => socket.destroy(), CLOSE_MS).unref()
}

/** Whether the first bytes on a plain port are those of TLS. */
export function isClientHello(packet: Buffer | undefined): boolean {
  return packet?.[0] === 0x16 && packet[1] === 0x03
}
