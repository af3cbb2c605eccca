import { createHash, type Hash } from 'node:crypto'
import { Worker } from 'node:worker_threads'

/** The sum of bytes that come one after the other. */
export interface RunningSum {
  /**
   * Adds bytes. When it returns a promise, the next must wait for it. With `given` the memory of the bytes, if it is theirs alone, goes to the sum:
   * nobody may look at them any more.
   */
  add(bytes: Uint8Array, options?: { given?: boolean }): Promise<void> | undefined
  /** Goes on from here without the other. */
  copy(): RunningSum
  /** In hexadecimal. It may go on after that. Rejects when its thread ended. */
  digest(): Promise<string>
  /** Its thread ended and took it along. */
  readonly lost: boolean
}

type Algorithm = 'sha256' | 'sha512'

export type SumOrder =
  | { do: 'begin'; id: number; algorithm: Algorithm }
  | { do: 'copy'; id: number; to: number }
  | { do: 'update'; id: number; pieces: readonly Uint8Array<ArrayBuffer>[] }
  | { do: 'digest'; id: number }
  | { do: 'drop'; id: number }

/**
 * Begins a sum. `aside`: on the thread that this process has for it. Summing takes most of the time of an upload, and in the thread that
 * answers requests all others would wait for it; for a few bytes the way there and back costs more.
 */
export function beginSum(algorithm: Algorithm, { aside }: { aside: boolean }): RunningSum {
  return aside ? SumThread.current().begin(algorithm) : new SumHere(createHash(algorithm))
}

class SumHere implements RunningSum {
  readonly lost = false
  readonly #hash: Hash

  constructor(hash: Hash) {
    this.#hash = hash
  }

  add(bytes: Uint8Array): undefined {
    this.#hash.update(bytes)
  }

  copy(): RunningSum {
    return new SumHere(this.#hash.copy())
  }

  async digest(): Promise<string> {
    return this.#hash.copy().digest('hex')
  }
}

/** What goes to the thread at a time; one more may be on its way. */
const BATCH_BYTES = 256 * 1024
/** Smaller pieces are gathered: to hand one over costs as much as to copy it. */
const MIN_PIECE_BYTES = 16 * 1024

class SumAside implements RunningSum {
  readonly #thread: SumThread
  readonly #id: number
  #pieces: Uint8Array<ArrayBuffer>[] = []
  #bytes = 0
  #gathering: Uint8Array<ArrayBuffer> | null = null
  #gathered = 0
  #sent: Promise<unknown> = Promise.resolve()

  constructor(thread: SumThread, id: number) {
    this.#thread = thread
    this.#id = id
  }

  get lost(): boolean {
    return this.#thread.ended
  }

  add(bytes: Uint8Array, { given = false }: { given?: boolean } = {}): Promise<void> | undefined {
    const { buffer, byteLength } = bytes
    const own = given && buffer instanceof ArrayBuffer && buffer.byteLength === byteLength
    if (own && byteLength >= MIN_PIECE_BYTES) {
      this.#endGathering()
      // At once: whoever gave it may free what is still his.
      this.#pieces.push(new Uint8Array(buffer.transfer()))
    } else this.#gather(bytes)
    this.#bytes += byteLength
    return this.#bytes < BATCH_BYTES ? undefined : this.#send()
  }

  copy(): RunningSum {
    void this.#send()
    return this.#thread.copy(this.#id)
  }

  async digest(): Promise<string> {
    void this.#send()
    return (await this.#thread.ask({ do: 'digest', id: this.#id }))!
  }

  #gather(bytes: Uint8Array) {
    for (let at = 0; at < bytes.length;) {
      this.#gathering ??= new Uint8Array(BATCH_BYTES)
      const taken = Math.min(bytes.length - at, BATCH_BYTES - this.#gathered)
      this.#gathering.set(bytes.subarray(at, at + taken), this.#gathered)
      this.#gathered += taken
      at += taken
      if (this.#gathered === BATCH_BYTES) this.#endGathering()
    }
  }

  #endGathering() {
    if (this.#gathering) this.#pieces.push(this.#gathering.subarray(0, this.#gathered))
    this.#gathering = null
    this.#gathered = 0
  }

  /** Resolves when what was sent before is summed. */
  async #send(): Promise<void> {
    this.#endGathering()
    const pieces = this.#pieces
    this.#pieces = []
    this.#bytes = 0
    const before = this.#sent
    if (pieces.length > 0) {
      this.#sent = this.#thread.ask(
        { do: 'update', id: this.#id, pieces },
        pieces.map(({ buffer }) => buffer),
      )
      // Told to whoever waits for it; whoever only asks for the digest is refused that.
      this.#sent.catch(() => {})
    }
    await before
  }
}

type Waiting = { readonly resolve: (answer: string | null) => void; readonly reject: (error: Error) => void }

/** The thread that sums, and what it was asked. */
class SumThread {
  static #current: SumThread | null = null

  /** Made when it is needed first, and anew when it ended. */
  static current(): SumThread {
    if (!this.#current || this.#current.ended) this.#current = new SumThread()
    return this.#current
  }

  readonly #worker = new Worker(new URL('./sum-worker.ts', import.meta.url))
  // Whoever holds a sum can forget it without a word, as with one of Node's.
  readonly #dropped = new FinalizationRegistry((id: number) => this.#tell({ do: 'drop', id }))
  readonly #waiting: Waiting[] = []
  #lastId = 0
  ended = false

  constructor() {
    this.#worker.on('message', (answer: string | null) => {
      this.#waiting.shift()!.resolve(answer)
      if (this.#waiting.length === 0) this.#worker.unref()
    })
    this.#worker.on('error', (cause) => this.#end(cause))
    this.#worker.on('exit', () => this.#end(undefined))
    // Last: a listener for messages would keep the process again.
    this.#worker.unref()
  }

  begin(algorithm: Algorithm): RunningSum {
    const id = ++this.#lastId
    this.#tell({ do: 'begin', id, algorithm })
    return this.#hold(id)
  }

  copy(id: number): RunningSum {
    const to = ++this.#lastId
    this.#tell({ do: 'copy', id, to })
    return this.#hold(to)
  }

  ask(order: SumOrder, transfer: readonly ArrayBuffer[] = []): Promise<string | null> {
    return new Promise((resolve, reject) => {
      if (this.ended) return reject(new Error('the thread that sums has ended'))
      // It keeps the process while somebody waits for it.
      if (this.#waiting.push({ resolve, reject }) === 1) this.#worker.ref()
      this.#tell(order, transfer)
    })
  }

  #hold(id: number): RunningSum {
    const sum = new SumAside(this, id)
    this.#dropped.register(sum, id)
    return sum
  }

  #tell(order: SumOrder, transfer: readonly ArrayBuffer[] = []) {
    this.#worker.postMessage(order, transfer)
  }

  #end(cause: Error | undefined) {
    this.ended = true
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('the thread that sums has ended', { cause }))
  }
}
