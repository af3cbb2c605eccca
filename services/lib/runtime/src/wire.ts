import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { release } from './body-chunks.ts'
import { offerBody } from './body-intake.ts'
import { precedence } from './precedence.ts'
import type { Asker, ShortAnswer, Shortcut } from './shortcut.ts'

export interface WireOptions {
  readonly shortcut: Shortcut
  readonly keepAliveMs: number
  readonly maxHeaderBytes: number
  readonly maxHeaders: number
  /** A shortcut that throws is a bug; the request goes the usual way. */
  readonly onError: (error: unknown) => void
  /** Called when no connection waits for a shortcut, or for its client to take an answer, any more. */
  readonly onQuiet?: () => void
}

type Waiting = { readonly connection: Connection; readonly answer: ShortAnswer; readonly method: string }

/**
 * What stands between the sockets of a server and Node's parser. The parser stays what reads requests, but is not shown two things, which cost most of a registry's
 * work: requests that a shortcut answers, and long bodies of uploads, which it would copy. Either can be left out while the parser stands between two
 * requests; that is known of a connection once Node has answered a request that came to its end with nothing behind it. After requests in one packet, chunked bodies
 * and heads in pieces it is not known any more, and the connection is Node's alone.
 */
export class Wire {
  readonly #options: WireOptions
  readonly #tail: string
  readonly #connections = new WeakMap<Duplex, Connection>()
  #waiting: Waiting[] = []
  /** Connections that Node takes for idle, and that are not. */
  #busy = 0
  #closed = false

  constructor(options: WireOptions) {
    this.#options = options
    this.#tail = `Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(options.keepAliveMs / 1000)}\r\n\r\n`
  }

  /** Takes its place on a new connection, which Node has taken over already. */
  watch(socket: Socket): void {
    const [read, ...others] = socket.listeners('data') as ((piece: Buffer) => void)[]
    // A Node that reads in another way than by this listener: all goes its way.
    if (read === undefined || others.length > 0) return
    const connection = new Connection(socket, read)
    this.#connections.set(socket, connection)
    socket.off('data', read)
    // It makes Node read through the stream, and no longer behind its back.
    socket.on('data', (piece: Buffer) => this.#take(connection, piece))
  }

  /** Whether a request of the connection waits for its shortcut, or the answer to be written. Node takes it for idle. */
  asks(socket: Duplex): boolean {
    const connection = this.#connections.get(socket)
    return connection !== undefined && (connection.asking || connection.waiting)
  }

  /** Whether connections that Node takes for idle are not. */
  get busy(): boolean {
    return this.#busy > 0
  }

  /** Node begins a request. Called before anybody else looks at it. */
  began(req: IncomingMessage, res: ServerResponse): void {
    const connection = this.#connections.get(req.socket)
    if (!connection) return
    connection.nodeBegan(req)
    res.once('close', () => {
      if (res.writableFinished && res.shouldKeepAlive) connection.nodeAnswered()
    })
  }

  /** Node gives a connection away, with its parser. */
  forget(socket: Duplex): void {
    if (this.#connections.delete(socket)) socket.removeAllListeners('data')
  }

  /** From now on all requests go Node's way, which tells clients to close. */
  close(): void {
    this.#closed = true
  }

  #take(connection: Connection, piece: Buffer): void {
    if (connection.asking) return connection.hold(piece)
    if (connection.waiting) this.#write()
    const rest = connection.body ? connection.takeBody(piece) : piece
    if (rest === null || (connection.atBoundary && !this.#closed && this.#answer(connection, rest))) return
    this.#leaveToNode(connection, rest)
  }

  #leaveToNode(connection: Connection, piece: Buffer): void {
    connection.leaveToNode(piece)
    // The parser has copied what it keeps.
    if (!connection.body) release(piece)
  }

  /** @returns whether the piece was a request that the shortcut answers, or is still to answer. */
  #answer(connection: Connection, piece: Buffer): boolean {
    const { shortcut, maxHeaderBytes, onError } = this.#options
    const { socket } = connection
    // A client that does not read is Node's to wait for.
    if (!socket.writable || socket.writableLength > 0 || piece.length > maxHeaderBytes) return false
    const text = piece.toString('latin1')
    const method = text.startsWith('GET ') ? 'GET' : text.startsWith('HEAD ') ? 'HEAD' : null
    if (method === null || !text.startsWith(shortcut.prefix, method.length + 1)) return false
    const lineEnd = text.indexOf('\r\n')
    if (!text.endsWith(' HTTP/1.1', lineEnd)) return false
    const head = text.slice(lineEnd + 2)
    const target = text.slice(method.length + 1, lineEnd - ' HTTP/1.1'.length)
    let answer: ReturnType<Asker> = null
    try {
      const ask = head === connection.head ? connection.asker : this.#askerOf(connection, head)
      answer = ask && ask(method, target)
    } catch (error) {
      onError(error)
    }
    if (answer === null) return false
    if (answer instanceof Promise) void this.#await(connection, piece, method, answer)
    else this.#writeSoon({ connection, answer, method })
    return true
  }

  async #await(
    connection: Connection,
    piece: Buffer,
    method: string,
    coming: Promise<ShortAnswer | null>,
  ): Promise<void> {
    connection.asking = true
    this.#busy += 1
    let answer: ShortAnswer | null = null
    try {
      answer = await coming
    } catch (error) {
      this.#options.onError(error)
    }
    connection.asking = false
    if (answer) this.#writeSoon({ connection, answer, method })
    else if (!connection.socket.destroyed) this.#leaveToNode(connection, piece)
    // Behind the writing.
    setImmediate(() => this.#rest())
    for (const held of connection.letGo()) this.#take(connection, held)
  }

  #rest(): void {
    this.#busy -= 1
    if (this.#busy === 0) this.#options.onQuiet?.()
  }

  #writeSoon(waiting: Waiting): void {
    // Answers to what arrived together leave together: their clients are woken once for all.
    if (this.#waiting.length === 0) setImmediate(() => this.#write())
    this.#waiting.push(waiting)
    waiting.connection.waiting = true
  }

  #askerOf(connection: Connection, head: string): Asker | null {
    const { shortcut, maxHeaders } = this.#options
    const headers = readHeaders(head, shortcut.headers, maxHeaders)
    connection.head = head
    connection.asker = null
    return (connection.asker = headers && shortcut.asker(headers, connection.socket))
  }

  #write(): void {
    precedence.answered()
    const waiting = this.#waiting
    this.#waiting = []
    for (const { connection, answer, method } of waiting) {
      connection.waiting = false
      const { status, headers, left } = answer
      const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${headers}Date: ${utcNow()}\r\n${this.#tail}`
      const body = method === 'HEAD' ? null : answer.body
      const { socket } = connection
      if (!socket.writable) {
        left(0)
        continue
      }
      if (body === null) socket.write(head, 'latin1')
      else if (typeof body === 'string') socket.write(head + body, 'latin1')
      else {
        // Over TLS, Node would copy what is written together.
        const together = !('encrypted' in socket)
        if (together) socket.cork()
        socket.write(head, 'latin1')
        socket.write(body)
        if (together) socket.uncork()
      }
      if (socket.writableLength > 0) {
        this.#busy += 1
        socket.write('', () => this.#rest())
      }
      left(head.length + (body?.length ?? 0))
    }
  }
}

/** Shorter bodies are not worth the trouble. */
const LONG_BODY_BYTES = 64 * 1024

/** A body that goes to its request past the parser. `req` is null until Node has read the head. */
type Body = { req: IncomingMessage | null; left: number }

class Connection {
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
  /** What Node was shown since it stood there: how many requests it found, and the bytes that the first still lacks; NaN when that cannot be said. */
  #begun = 0
  #lacking = NaN
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

/** Where the head of an upload says how long its body is, and how long; null if it is no upload, or the parser should judge. */
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

const headerLine = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~]*)$/

/** The headers of a whole head behind its first line. Null if there is anything about it that Node's parser should judge. */
function readHeaders(head: string, known: ReadonlySet<string>, most: number): Map<string, string> | null {
  if (head.indexOf('\r\n\r\n') !== head.length - 4) return null
  const lines = head.slice(0, -4).split('\r\n')
  if (lines.length > most) return null
  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name, value] = headerLine.exec(line) ?? []
    const key = name?.toLowerCase()
    if (key === undefined || !known.has(key) || headers.has(key)) return null
    headers.set(key, value!.trimEnd())
  }
  const connection = headers.get('connection')
  return connection === undefined || connection.toLowerCase() === 'keep-alive' ? headers : null
}

let second = 0
let utc = ''

function utcNow(): string {
  const now = Math.floor(Date.now() / 1000)
  if (now !== second) {
    second = now
    utc = new Date(now * 1000).toUTCString()
  }
  return utc
}
