import type { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { release } from './body-chunks.ts'
import { precedence } from './precedence.ts'

/** A body that its reader takes in buffers of its own. */
interface BodyIntake {
  /** Resolves when the buffer is full, or at the end of the body, with how many bytes it brought. One at a time. */
  fill(into: Buffer): Promise<number>
  /** Leaves the rest of the body to the request, so that an answer can be sent. Nothing is written into any buffer after this. */
  close(): void
}

/** A body that does not pass Node's parser, as the one that counts it sees it. */
interface LongBody {
  readonly req: IncomingMessage
  readonly socket: Socket
  /** What has not arrived. */
  readonly left: number
  /** Tells of bytes of the body that did not come as pieces; with the last of them the request ends. */
  count(bytes: number): void
}

const BODY = Symbol('long body')
const INTAKE = Symbol('intake')
type Carrier = IncomingMessage & { [BODY]?: LongBody; [INTAKE]?: Intake }

/** Makes it possible to take this body directly. */
export function offerBody(body: LongBody): void {
  ;(body.req as Carrier)[BODY] = body
}

/**
 * The rest of a request's body, received by the kernel into the reader's buffers: no piece is allocated, copied or announced. Null, with the body
 * untouched, for one that passes the parser (short, in chunks), that somebody has begun to read, or where Node works otherwise than is known here.
 */
export async function bodyIntake(req: IncomingMessage): Promise<BodyIntake | null> {
  const body = (req as Carrier)[BODY]
  if (!body || req.readableDidRead || req.complete || req.destroyed) return null
  const tap = Tap.on(body.socket)
  if (!tap) return null
  const intake = new Intake(body, tap)
  ;(req as Carrier)[INTAKE] = intake
  await intake.begin()
  return intake
}

/** Whether a body waits for us and not for the client. */
export const awaitsReader = (req: IncomingMessage): boolean =>
  req.readableLength > 0 || ((req as Carrier)[INTAKE]?.idle ?? (req as Carrier)[BODY]?.socket.isPaused() === true)

// Undocumented (Node 24.15 to 24.21): the option `onread`, which sockets that a server accepts cannot be given, is these three symbols and a call
// of the handle's. Where they are not to be found, bodies come piece by piece.
type Handle = { useUserBuffer?: (buffer: Buffer) => void }
type TappedSocket = Socket & { readonly _handle: Handle | null } & Record<symbol, unknown>
const symbols = new Map(Object.getOwnPropertySymbols(new Socket()).map((each) => [each.description, each]))
const [BUFFER, CALLBACK, NEXT_BUFFER] = ['kBuffer', 'kBufferCb', 'kBufferGen'].map((name) => symbols.get(name))

/**
 * Where tapped sockets read to when nobody has given a buffer. One for all: what a read brings is looked at before the next. What is parked is copied,
 * so the most is read only where the read before was full: a head fits into less, and the body behind it has a better place.
 */
const PARKING = Buffer.allocUnsafeSlow(64 * 1024)
const SHORT_PARKING = PARKING.subarray(0, 8192)

/** Where the bytes of a connection come out, in a buffer that was chosen before. Once there, it stays. */
class Tap {
  static readonly #all = new WeakMap<Socket, Tap>()

  static on(socket: Socket): Tap | null {
    const known = this.#all.get(socket)
    if (known) return known
    const { _handle: handle } = socket as TappedSocket
    if (typeof handle?.useUserBuffer !== 'function' || !BUFFER || !CALLBACK || !NEXT_BUFFER) return null
    const tap = new Tap(socket as TappedSocket)
    this.#all.set(socket, tap)
    return tap
  }

  readonly #socket: TappedSocket
  #reader: Intake | null = null
  #isOpen = false
  #next: Buffer = SHORT_PARKING

  private constructor(socket: TappedSocket) {
    this.#socket = socket
  }

  /** From now on the reader gets what arrives. @param mostBytes that it lacks: what stands behind a body is another request */
  open(reader: Intake, mostBytes: number): void {
    this.#reader = reader
    this.#park(mostBytes)
    if (this.#isOpen) return
    this.#isOpen = true
    const { read } = this.#socket
    Object.assign(this.#socket, {
      // Node asks ahead, for nothing: while nobody wants what the client sends it stays where it is, and is not copied. `resume` begins to read by itself.
      read(this: Socket, bytes?: number) {
        return bytes === 0 && this.isPaused() ? null : (read.call(this, bytes) as unknown)
      },
      [CALLBACK!]: (bytes: number, buffer: Buffer) => {
        this.#next = !this.#reader && bytes === buffer.length ? PARKING : SHORT_PARKING
        if (this.#reader) return this.#reader.onRead(buffer, bytes)
        return this.#socket.push(Buffer.from(buffer.subarray(0, bytes)))
      },
      [NEXT_BUFFER!]: () => this.#next,
    })
  }

  /** To be called while a read is looked at, which is when the handle asks. */
  readNextInto(buffer: Buffer): void {
    this.#next = buffer
  }

  /** `resume` reads at once from a socket with a buffer of its own. */
  read(): void {
    this.#socket.resume()
  }

  /** After the last byte of a body, while it is looked at: the next read is parked. */
  leave(): void {
    this.#reader = null
  }

  /** At any other time. */
  close(reader: Intake): void {
    if (this.#reader !== reader) return
    this.#reader = null
    // The handle keeps a few bytes of memory for each call until the connection closes.
    this.#park()
  }

  #park(mostBytes = SHORT_PARKING.length): void {
    const parking = SHORT_PARKING.subarray(0, mostBytes)
    this.#socket[BUFFER!] = parking
    this.#socket._handle?.useUserBuffer!(parking)
  }
}

class Intake implements BodyIntake {
  readonly #body: LongBody
  readonly #tap: Tap
  /** What arrived before there was a buffer for it. */
  readonly #early: Buffer[] = []
  #into: Buffer | null = null
  #filled = 0
  #asked: PromiseWithResolvers<number> | null = null
  /** Set while it waits for its turn. */
  #takeBack: (() => void) | null = null
  #failure: Error | null = null

  constructor(body: LongBody, tap: Tap) {
    this.#body = body
    this.#tap = tap
    body.req.on('error', this.#onError).on('close', this.#onClose)
  }

  /** Takes what was received before, and leaves nothing to arrive by the way of pieces. */
  async begin(): Promise<void> {
    const { req, socket } = this.#body
    // Whoever asks may be called while the piece that brought the head is looked at: what else it holds comes first.
    await Promise.resolve()
    // What the socket holds becomes the request's when it is read.
    for (;;) {
      const piece = req.read() as Buffer | null
      if (piece !== null) this.#early.push(piece)
      else if (this.#body.left === 0 || socket.read() === null) break
    }
    // Its end comes without anybody asking.
    req.resume()
    if (this.#failure === null && this.#body.left > 0) this.#tap.open(this, this.#body.left)
  }

  get idle(): boolean {
    return (this.#asked === null || this.#takeBack !== null) && this.#failure === null
  }

  fill(into: Buffer): Promise<number> {
    if (this.#failure) return Promise.reject(this.#failure)
    this.#into = into
    this.#filled = 0
    while (this.#early.length > 0 && this.#filled < into.length) this.#take(this.#early.shift()!)
    if (this.#filled === into.length || this.#body.left === 0) return Promise.resolve(this.#done())
    this.#asked = Promise.withResolvers<number>()
    const { promise } = this.#asked
    this.#takeBack = precedence.ask(() => {
      this.#takeBack = null
      this.#tap.read()
    })
    return promise
  }

  close(): void {
    const { req, left } = this.#body
    req.off('error', this.#onError).off('close', this.#onClose)
    this.#failure ??= new Error('the body was left')
    for (const piece of this.#early.splice(0)) release(piece)
    this.#takeBack?.()
    if (left === 0) return
    this.#tap.close(this)
    req.pause()
  }

  /** Looks at what the socket read. False when it is to read no more. */
  onRead(buffer: Buffer, bytes: number): boolean {
    precedence.brought(bytes)
    const into = this.#into
    if (into && buffer.buffer === into.buffer) this.#filled += bytes
    else {
      const parked = buffer.subarray(0, bytes)
      const taken = into ? parked.copy(into, this.#filled) : 0
      this.#filled += taken
      if (taken < bytes) this.#early.push(Buffer.from(parked.subarray(taken)))
    }
    const left = this.#body.left - bytes
    if (left === 0) this.#tap.leave()
    this.#body.count(bytes)
    if (into && (left === 0 || this.#filled === into.length)) this.#asked!.resolve(this.#done())
    // Never more than the body: what stands behind it is another request.
    if (left > 0) this.#tap.readNextInto((this.#into?.subarray(this.#filled) ?? SHORT_PARKING).subarray(0, left))
    return into !== null || left === 0
  }

  #take(piece: Buffer): void {
    const taken = piece.copy(this.#into!, this.#filled)
    this.#filled += taken
    if (taken < piece.length) this.#early.unshift(piece.subarray(taken))
    else release(piece)
  }

  #done(): number {
    this.#into = null
    this.#asked = null
    return this.#filled
  }

  readonly #onError = (failure: Error) => this.#fail(failure)
  readonly #onClose = () => this.#fail(new Error('the connection closed within the body'))

  #fail(failure: Error): void {
    if (this.#body.left === 0) return
    this.#failure ??= failure
    this.#asked?.reject(this.#failure)
    this.#done()
    this.close()
  }
}
