import { Hash } from 'node:crypto'
import { OutgoingMessage } from 'node:http'
import { Transform, type Writable } from 'node:stream'
import { TLSSocket } from 'node:tls'
import type { ByteSource, Intake } from './blob-storage.ts'

/**
 * The buffers of `source`, ended early by `signal` even while the source is silent. The iterator is returned on every early end;
 * its answer is not waited for, since a source that hangs would hang there again.
 */
export async function* chunksOf(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, void> {
  signal?.throwIfAborted()
  const iterator = source[Symbol.asyncIterator]()
  // One listener and a promise per step: Promise.race against one long-lived promise would keep every step's closure alive.
  let interrupt: (reason: unknown) => void = () => {}
  const onAbort = () => interrupt(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  let ended = false
  try {
    for (;;) {
      const step = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        interrupt = reject
        iterator.next().then(resolve, (error: unknown) => {
          ended = true
          reject(error)
        })
      })
      if (step.done) {
        ended = true
        return
      }
      signal?.throwIfAborted()
      yield step.value
    }
  } finally {
    signal?.removeEventListener('abort', onAbort)
    // The reason for stopping is already on its way to the caller; what the source says on top of it adds nothing.
    if (!ended) iterator.return?.().catch(() => {})
  }
}

/** The bytes of `source` in buffers of the caller's, which `signal` ends early as it does in `chunksOf`. */
export async function intakeOf(source: ByteSource, signal: AbortSignal | undefined): Promise<Intake> {
  signal?.throwIfAborted()
  const straight = await source.intake?.()
  return straight ? new StraightIntake(straight, signal) : new CopyingIntake(chunksOf(source, signal))
}

class StraightIntake implements Intake {
  readonly #intake: Intake
  readonly #signal: AbortSignal | undefined

  constructor(intake: Intake, signal: AbortSignal | undefined) {
    this.#intake = intake
    this.#signal = signal
  }

  async fill(into: Buffer): Promise<number> {
    const signal = this.#signal
    if (!signal) return this.#intake.fill(into)
    signal.throwIfAborted()
    const stopped = Promise.withResolvers<never>()
    const onAbort = () => stopped.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([this.#intake.fill(into), stopped.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  close(): void {
    this.#intake.close()
  }
}

class CopyingIntake implements Intake {
  readonly #pieces: AsyncGenerator<Uint8Array, void, void>
  /** What is left of the piece that was asked for last. */
  #piece: Uint8Array = new Uint8Array()

  constructor(pieces: AsyncGenerator<Uint8Array, void, void>) {
    this.#pieces = pieces
  }

  async fill(into: Buffer): Promise<number> {
    let filled = 0
    while (filled < into.length) {
      if (this.#piece.length === 0) {
        const step = await this.#pieces.next()
        if (step.done) break
        this.#piece = step.value
      }
      const { buffer, byteOffset, byteLength } = this.#piece
      const taken = Buffer.from(buffer, byteOffset, byteLength).copy(into, filled)
      this.#piece = this.#piece.subarray(taken)
      filled += taken
    }
    return filled
  }

  close(): void {
    // What the source says to that adds nothing, and one that hangs would hang there again.
    this.#pieces.return().catch(() => {})
  }
}

/** Smaller ones may lie in a pool of Node's together with others, and cost the collector nothing. */
const WORTH_FREEING_BYTES = 16 * 1024

/**
 * Gives the memory of a piece back that nothing will read any more. Left to the garbage collector, the pieces of a body are
 * external memory that calls for a full collection every 64 MiB, and each new one a page fault every 4 KiB.
 */
export function release({ buffer, byteLength }: Uint8Array): void {
  // Only memory that is this piece's alone. Detaching is how memory is freed without the collector.
  if (buffer instanceof ArrayBuffer && byteLength >= WORTH_FREEING_BYTES && buffer.byteLength === byteLength) {
    buffer.transfer(0)
  }
}

/**
 * Lets the head of an answer over TLS, which has not left yet, leave before a large piece of its body. Written together, Node copies both into
 * fresh memory before it encrypts them, which took a third of a download of 1 MiB.
 */
export function headFirst(to: Writable): void {
  if (to instanceof OutgoingMessage && to.socket instanceof TLSSocket) to.flushHeaders()
}

/** Writes to a stream with its back-pressure, and notices at any time that it closed or that the signal fired. */
export class Outlet implements Disposable {
  readonly #to: Writable
  readonly #signal: AbortSignal | undefined
  #failure: Error | null = null
  #reject: ((error: Error) => void) | null = null
  readonly #closed = new AbortController()

  constructor(to: Writable, signal?: AbortSignal) {
    this.#to = to
    this.#signal = signal
    if (to.destroyed) this.#onClose()
    if (signal?.aborted) this.#onAbort()
    to.on('close', this.#onClose)
    to.on('error', this.#onError)
    signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  /** Resolves when `to` is done with the buffer. After a rejection it may still hold it: do not reuse it then. */
  write(chunk: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure)
      this.#reject = reject
      if (!(this.#to as Partial<OutgoingMessage>).headersSent) headFirst(this.#to)
      this.#to.write(chunk, (error) => {
        this.#reject = null
        if (error) reject(this.#failure ?? gone(error))
        else resolve()
      })
    })
  }

  throwIfClosed(): void {
    if (this.#failure) throw this.#failure
  }

  /** Fires when there is no sense in bringing more. */
  get closed(): AbortSignal {
    return this.#closed.signal
  }

  /** Whether `to` may look at a buffer after it acknowledged the write, as streams that pass buffers on do. */
  get keepsBuffers(): boolean {
    return this.#to instanceof Transform && !(this.#to instanceof Hash)
  }

  [Symbol.dispose](): void {
    this.#to.off('close', this.#onClose)
    this.#to.off('error', this.#onError)
    this.#signal?.removeEventListener('abort', this.#onAbort)
  }

  #fail(failure: Error) {
    this.#failure ??= failure
    this.#reject?.(this.#failure)
    this.#closed.abort(this.#failure)
  }

  readonly #onClose = () => this.#fail(gone())
  readonly #onError = (error: Error) => this.#fail(gone(error))
  readonly #onAbort = () => {
    const reason: unknown = this.#signal?.reason
    this.#fail(reason instanceof Error ? reason : new Error('stopped', { cause: reason }))
  }
}

function gone(cause?: Error): Error {
  return Object.assign(new Error('the reader went away', { cause }), { code: 'ERR_STREAM_PREMATURE_CLOSE' })
}
