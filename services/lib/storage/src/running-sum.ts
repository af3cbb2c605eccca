import { createHash, type Hash } from 'node:crypto'
import { Worker } from 'node:worker_threads'

/** The sum of bytes that come one after the other. */
export interface RunningSum {
  /** Adds bytes, which stay as they are until it resolves. Of those in shared memory another thread makes the sum without copying them. */
  add(bytes: Uint8Array): Promise<void>
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
  | { do: 'update'; id: number; bytes: Uint8Array }
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

  async add(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes)
  }

  copy(): RunningSum {
    return new SumHere(this.#hash.copy())
  }

  async digest(): Promise<string> {
    return this.#hash.copy().digest('hex')
  }
}

class SumAside implements RunningSum {
  readonly #thread: SumThread
  readonly #id: number

  constructor(thread: SumThread, id: number) {
    this.#thread = thread
    this.#id = id
  }

  get lost(): boolean {
    return this.#thread.ended
  }

  async add(bytes: Uint8Array): Promise<void> {
    await this.#thread.ask({ do: 'update', id: this.#id, bytes })
  }

  copy(): RunningSum {
    return this.#thread.copy(this.#id)
  }

  async digest(): Promise<string> {
    return (await this.#thread.ask({ do: 'digest', id: this.#id }))!
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

  ask(order: SumOrder): Promise<string | null> {
    return new Promise((resolve, reject) => {
      if (this.ended) return reject(new Error('the thread that sums has ended'))
      // It keeps the process while somebody waits for it.
      if (this.#waiting.push({ resolve, reject }) === 1) this.#worker.ref()
      this.#tell(order)
    })
  }

  #hold(id: number): RunningSum {
    const sum = new SumAside(this, id)
    this.#dropped.register(sum, id)
    return sum
  }

  #tell(order: SumOrder) {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has none
    this.#worker.postMessage(order)
  }

  #end(cause: Error | undefined) {
    this.ended = true
    for (const { reject } of this.#waiting.splice(0)) reject(new Error('the thread that sums has ended', { cause }))
  }
}
