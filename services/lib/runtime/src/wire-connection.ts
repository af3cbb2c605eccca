import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { offerBody } from './body-intake.ts'
import type { Asker } from './shortcut.ts'

/** Shorter bodies are not worth the trouble. */
const LONG_BODY_BYTES = 64 * 1024

/** A body that goes to its request past the parser. `req` is null until Node has read the head. */
type Body = { req: IncomingMessage | null; left: number }

/**
 * A connection between its socket and Node's parser: whether the parser stands between two requests, and the body that goes past it. That it
 * stands there is known once Node has answered a request that came to its end with nothing behind it. After requests in one packet, chunked bodies
 * and heads in pieces it is not known any more, and the connection is Node's alone.
 */
export class WireConnection {
  readonly socket: Socket
  readonly #read: (piece: Buffer) => void
  /** Node's parser stands between two requests, and nothing waits for an answer of Node's. */
  atBoundary = false
  /** The headers of the last request that was looked at, as they came, and what they mean. */
  head = ''
  asker: Asker | null = null
  /** The shortcut is still to answer. */
  asking = false
  #held: Buffer[] = []
  /** An answer is about to be written. */
  waiting = false
  body: Body | null = null
  /** Requests that Node found in what it was shown since the parser stood there. */
  #begun = 0
  /** Bytes that the first of them still lacks; NaN when that cannot be said. */
  #lacking = NaN
  /** Node was shown nothing yet. */
  #fresh = true

  constructor(socket: Socket, read: (piece: Buffer) => void) {
    this.socket = socket
    this.#read = read
  }

  /** Keeps what comes while the shortcut is still to answer. */
  hold(piece: Buffer): void {
    this.#held.push(piece)
    this.socket.pause()
  }

  letGo(): readonly Buffer[] {
    const held = this.#held
    if (held.length > 0) {
      this.#held = []
      this.socket.resume()
    }
    return held
  }

  leaveToNode(piece: Buffer): void {
    if (!this.atBoundary && !this.#fresh) {
      this.#lacking -= piece.length
      return this.#read(piece)
    }
    this.atBoundary = this.#fresh = false
    this.#begun = 0
    const headBytes = piece.indexOf('\r\n\r\n') + 4
    // RFC 9112, 2.2: empty lines before a request are none of its head, and the parser passes over them.
    if (headBytes < 4 || piece[0] === 0x0d || piece[0] === 0x0a) {
      this.#lacking = NaN
      return this.#read(piece)
    }
    const length = lengthOfUpload(piece, headBytes)
    if (length === null) {
      this.#lacking = headBytes - piece.length
      return this.#read(piece)
    }
    this.#lacking = 0
    const body: Body = { req: null, left: length.value }
    this.body = body
    // To the parser the request ends with its head.
    piece.fill('0', length.start, length.end)
    this.#read(piece.subarray(0, headBytes))
    if (!body.req) {
      // Refused before it became a request. Whatever comes now is not to be read as another.
      this.socket.destroySoon()
      return
    }
    body.req.complete = false
    delete (body.req as { push?: unknown }).push
    if (piece.length > headBytes) {
      const rest = this.takeBody(piece.subarray(headBytes))
      if (rest) this.leaveToNode(rest)
    }
    // The rest waits for who asks for it: what is received before is copied for who comes with buffers. Most of it, on a connection that was read directly.
    if (this.body === body) this.socket.pause()
  }

  /** @returns what stands behind the body. */
  takeBody(piece: Buffer): Buffer | null {
    const { req, left } = this.body!
    const part = piece.length > left ? piece.subarray(0, left) : piece
    this.body!.left -= part.length
    // Nobody is there to read it any more: it is dropped.
    if (req && !req.destroyed && !req.push(part)) this.socket.pause()
    if (this.body!.left > 0) return null
    this.#endBody()
    return piece.length > left ? piece.subarray(left) : null
  }

  #endBody(): void {
    const { req } = this.body!
    this.body = null
    if (!req) return
    req.complete = true
    if (!req.destroyed) req.push(null)
    // Nobody asks for more of a body that has ended, and the next request stands behind it.
    this.socket.resume()
  }

  /** Its bytes may be had without this connection seeing them; they are counted all the same. */
  #offer(body: Body, req: IncomingMessage): void {
    const count = (bytes: number) => {
      body.left -= bytes
      if (body.left === 0) this.#endBody()
    }
    offerBody({
      req,
      socket: this.socket,
      get left() {
        return body.left
      },
      count,
    })
  }

  nodeBegan(req: IncomingMessage): void {
    const { body } = this
    if (body && !body.req) {
      body.req = req
      const length = String(body.left)
      req.headers['content-length'] = length
      for (let i = 0; i < req.rawHeaders.length; i += 2) {
        if (req.rawHeaders[i]!.toLowerCase() === 'content-length') req.rawHeaders[i + 1] = length
      }
      // The end that the parser is about to announce is not the body's.
      req.push = () => true
      this.#offer(body, req)
      return
    }
    this.#begun += 1
    if (this.#begun > 1 || req.headers['transfer-encoding'] !== undefined) this.#lacking = NaN
    else this.#lacking += Number(req.headers['content-length'] ?? 0)
  }

  nodeAnswered(): void {
    this.atBoundary = this.#lacking === 0 && this.body === null
  }
}

/** The length of an upload's body, and where its head says so; null if it is no long upload, or the parser should judge. */
function lengthOfUpload(piece: Buffer, headBytes: number): { value: number; start: number; end: number } | null {
  const first = piece[0]
  if (first !== 0x50 /* P: PATCH, POST, PUT */) return null
  const head = piece.toString('latin1', 0, headBytes)
  if (!/^P(?:ATCH|OST|UT) \/v2\/[!-~]+\/blobs\/uploads\/[!-~]* HTTP\/1\.1\r\n/.test(head)) return null
  if (/\r\n(?:transfer-encoding|expect|upgrade)[ \t]*:/i.test(head)) return null
  const [found, another] = head.matchAll(/\r\n(content-length: ?)(\d{1,15})\r\n/gi)
  if (!found || another || /content-length/gi.exec(head.slice(found.index + found[0].length))) return null
  const value = Number(found[2])
  if (value < LONG_BODY_BYTES) return null
  const start = found.index + 2 + found[1]!.length
  return { value, start, end: start + found[2]!.length }
}
