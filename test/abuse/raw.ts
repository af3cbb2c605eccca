import { connect } from 'node:net'

export type RawAnswer = {
  /** Byte for byte, as Latin-1. */
  text: string
  statuses: number[]
  /** The other end closed the connection. */
  closed: boolean
}
type Bytes = string | Uint8Array
type Options = {
  /** Long enough for an answer, and all that a kept connection costs a test. */
  quietMs?: number
  pauseMs?: number
  /** Another one than 127.0.0.1 is another client. */
  from?: string
}

/** Sends bytes as they are, each piece in a write of its own, and gives what came back until the other end closed, or nothing came for `quietMs`. */
export function raw(
  url: string,
  pieces: Bytes | readonly Bytes[],
  { quietMs = 4000, pauseMs = 5, from = '127.0.0.1' }: Options = {},
): Promise<RawAnswer> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect({ port: Number(port), host: hostname, localAddress: from })
    let text = ''
    let closed = false
    const quiet = setTimeout(() => socket.destroy(), quietMs)
    const send = (at: number) => {
      const piece = [pieces].flat()[at]
      if (piece === undefined || closed || socket.destroyed) return
      socket.write(typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece)
      setTimeout(send, pauseMs, at + 1)
    }
    socket.once('connect', () => send(0))
    socket.on('data', (data: Buffer) => {
      text += data.toString('latin1')
      quiet.refresh()
    })
    socket.once('end', () => (closed = true))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      // The other end closed while bytes of ours were on their way.
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') closed = true
      else reject(error)
    })
    socket.once('close', () => {
      clearTimeout(quiet)
      resolve({ text, closed, statuses: statusesOf(text) })
    })
  })
}

const statusesOf = (text: string) => [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))

/** A request that ends its connection. */
export const request = (method: string, path: string, headers: readonly string[] = [], body = '') =>
  [`${method} ${path} HTTP/1.1`, 'Host: h', 'Connection: close', ...headers, '', body].join('\r\n')

/** A request over whose framing client and server may differ, with another one behind it. */
export const framed = (startLine: string, headers: readonly string[], body: string) =>
  [startLine, 'Host: h', ...headers, '', body].join('\r\n')

export const chunked = (body: string) => `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
