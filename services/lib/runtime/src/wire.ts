import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { release } from './body-chunks.ts'
import { precedence } from './precedence.ts'
import type { Asker, ShortAnswer, Shortcut, ShortReply } from './shortcut.ts'
import { WireConnection } from './wire-connection.ts'

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

type Waiting = { readonly connection: WireConnection; readonly answer: ShortAnswer; readonly method: string }

/**
 * What stands between the sockets of a server and Node's parser. The parser stays what reads requests, but is not shown two things, which cost
 * most of a registry's work: requests that a shortcut answers, and long bodies of uploads, which it would copy. Either can be left out while
 * the parser stands between two requests (`WireConnection`). Decision 0015.
 */
export class Wire {
  readonly #options: WireOptions
  readonly #tail: string
  readonly #connections = new WeakMap<Duplex, WireConnection>()
  #waiting: Waiting[] = []
  /** How many connections Node takes for idle that are not. */
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
    const connection = new WireConnection(socket, read)
    this.#connections.set(socket, connection)
    socket.off('data', read)
    // It makes Node read through the stream, and no longer behind its back.
    socket.on('data', (piece: Buffer) => this.#take(connection, piece))
  }

  /** Whether a request of the connection waits for its shortcut, or for the answer to be written: Node takes the connection for idle. */
  asks(socket: Duplex): boolean {
    const connection = this.#connections.get(socket)
    return connection !== undefined && (connection.asking || connection.waiting)
  }

  /** Whether there are such connections. */
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

  #take(connection: WireConnection, piece: Buffer): void {
    if (connection.asking) return connection.hold(piece)
    if (connection.waiting) this.#write()
    const rest = connection.body ? connection.takeBody(piece) : piece
    if (rest === null || (connection.atBoundary && !this.#closed && this.#answer(connection, rest))) return
    this.#leaveToNode(connection, rest)
  }

  #leaveToNode(connection: WireConnection, piece: Buffer): void {
    connection.leaveToNode(piece)
    // The parser has copied what it keeps.
    if (!connection.body) release(piece)
  }

  /** @returns whether the piece was a request that the shortcut answers, or is still to answer. */
  #answer(connection: WireConnection, piece: Buffer): boolean {
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
    let answer: ShortReply = null
    try {
      const ask = head === connection.head ? connection.asker : this.#askerOf(connection, head)
      answer = ask && ask(method, target)
    } catch (error) {
      onError(error)
    }
    if (answer === null) return false
    if (answer instanceof Promise) void this.#answerLater(connection, piece, method, answer)
    else this.#writeSoon({ connection, answer, method })
    return true
  }

  async #answerLater(
    connection: WireConnection,
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
    setImmediate(() => this.#endBusy())
    for (const held of connection.letGo()) this.#take(connection, held)
  }

  #endBusy(): void {
    this.#busy -= 1
    if (this.#busy === 0) this.#options.onQuiet?.()
  }

  #writeSoon(waiting: Waiting): void {
    // Answers to what arrived together leave together: their clients are woken once for all.
    if (this.#waiting.length === 0) setImmediate(() => this.#write())
    this.#waiting.push(waiting)
    waiting.connection.waiting = true
  }

  #askerOf(connection: WireConnection, head: string): Asker | null {
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
      const { status, headers, onSent } = answer
      const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${headers}Date: ${utcNow()}\r\n${this.#tail}`
      const body = method === 'HEAD' ? null : answer.body
      const { socket } = connection
      if (!socket.writable) {
        onSent(0)
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
        socket.write('', () => this.#endBusy())
      }
      onSent(head.length + (body?.length ?? 0))
    }
  }
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
