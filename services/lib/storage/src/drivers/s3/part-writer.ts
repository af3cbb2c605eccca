import { createHash, randomUUID } from 'node:crypto'
import { problems } from '@haven/errors'
import type { KeptBuffers } from '../../buffer-pool.ts'
import { UploadLost } from '../../failures.ts'
import type { MemoryBudget } from '../../memory-budget.ts'
import type { ObjectKey } from '../../object-key.ts'
import type { S3Client } from './client.ts'
import { codeOf, S3Failure } from './retry.ts'

const MiB = 1024 ** 2
const GiB = 1024 ** 3

/** S3 refuses to complete with a smaller part, unless it is the last. */
export const MIN_PART = 5 * MiB
export const FIRST_PART = 16 * MiB
const MAX_PARTS = 10_000
/** Parts are gathered in slabs of 1 MiB, an upload of a few bytes in smaller ones. */
const [SMALL_SLAB, LARGE_SLAB] = [256 * 1024, MiB]
const PARTS_IN_FLIGHT = 2
const LAST_PARTS_MS = 10_000
// As long as so few parts are used, one that is short for lack of memory does not endanger the limit of 10,000.
const SHORT_PARTS = 2000

/** What of an upload is in the store. All names in it are written once. */
export interface Draft {
  /** The multipart upload, once there is one. */
  readonly upload: string | null
  readonly parts: readonly Part[]
  /** Bytes under the final key already: all of an upload that so far fits into one part. */
  readonly whole: number | null
  /** An earlier, shorter object may lie under the final key; completing replaces it. */
  readonly leftover: boolean
  /** The bytes behind the last part, too few for one, in an object of their own. */
  readonly tail: { readonly token: string; readonly size: number } | null
  /** Tails of earlier states that nobody needs any more. */
  readonly stale: readonly string[]
}

export interface Part {
  readonly etag: string
  readonly size: number
}

export const emptyDraft: Draft = { upload: null, parts: [], whole: null, leftover: false, tail: null, stale: [] }

export function sizeOf(draft: Draft): number {
  return draft.parts.reduce((sum, part) => sum + part.size, 0) + (draft.whole ?? 0) + (draft.tail?.size ?? 0)
}

/** Bytes of the part that begins at an offset: 10,000 of these reach 1 TiB. */
export function partSizeAt(offset: number): number {
  return offset < 8 * GiB ? FIRST_PART : offset < 64 * GiB ? 4 * FIRST_PART : 8 * FIRST_PART
}

interface Filling {
  readonly slabs: Buffer[]
  readonly targetSize: number
  size: number
  /** Bytes of the budget this part holds, and how many of them its successor takes over. */
  reserved: number
  inherited: number
  done: Promise<void> | null
}

export interface PartStore {
  readonly client: S3Client
  readonly budget: MemoryBudget
  readonly pool: KeptBuffers
  /** The object's name in the bucket, and that of a tail of it. */
  readonly name: string
  readonly tailName: (token: string) => string
}

/**
 * Turns a stream of buffers into S3 requests: one PutObject for up to a part, else a multipart upload with a bounded number of
 * parts in flight. Nothing is sent before it is known whether the total exceeds one part.
 */
export class PartWriter {
  readonly #key: ObjectKey
  readonly #store: PartStore
  readonly #before: Draft
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  readonly #parts: Part[]
  readonly #inFlight = new Set<Filling>()
  readonly #slabSize: number
  readonly #floor: number
  #upload: Promise<string> | null
  #numbered: number
  #offset: number
  #filling: Filling
  #held = 0
  #failure: unknown = null

  constructor(key: ObjectKey, store: PartStore, before: Draft, expectedBytes: number, signal?: AbortSignal) {
    this.#key = key
    this.#store = store
    this.#before = before
    this.#signal = signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal
    this.#parts = [...before.parts]
    this.#numbered = before.parts.length
    this.#offset = before.parts.reduce((sum, part) => sum + part.size, 0)
    this.#upload = before.upload === null ? null : Promise.resolve(before.upload)
    this.#slabSize = expectedBytes <= SMALL_SLAB ? SMALL_SLAB : LARGE_SLAB
    this.#floor = Math.min(MIN_PART, Math.max(1, Math.ceil(expectedBytes / this.#slabSize)) * this.#slabSize)
    this.#filling = this.#newPart(0)
  }

  /** Waits for memory to begin with. */
  async admit(): Promise<void> {
    await this.#store.budget.reserve(this.#floor, this.#signal)
    this.#held = this.#floor
    this.#filling.reserved = this.#floor
  }

  /** Copies the bytes; resolves when there is room for more. */
  async add(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length;) {
      if (this.#filling.size === this.#filling.targetSize + MIN_PART) await this.#shipWithoutRest()
      const part = this.#filling
      const used = part.size % this.#slabSize
      if (used === 0 && !(await this.#grow())) continue
      const slab = part.slabs.at(-1) as Buffer
      const taken = Math.min(this.#slabSize - used, chunk.length - at)
      slab.set(chunk.subarray(at, at + taken), used)
      part.size += taken
      at += taken
    }
  }

  /** Sends what is left, so that all bytes given are in the store, and says how. */
  async finish(last: boolean): Promise<Draft> {
    const before = this.#before
    const part = this.#filling
    if (part.size === 0 && this.#numbered === before.parts.length) return before
    const stale = before.tail ? [before.tail.token] : []

    let leftover = before.leftover || before.whole !== null
    if (this.#upload === null && !leftover && part.size <= FIRST_PART) {
      if (await this.#putWhole(part)) return { ...emptyDraft, whole: part.size, stale }
      leftover = true
    }
    let tail: Draft['tail'] = null
    if (part.size > 0 && (last || part.size >= MIN_PART)) this.#ship()
    else if (part.size > 0) tail = await this.#park(part)
    for (const { done } of [...this.#inFlight]) await done
    if (this.#failure) throw this.#failure
    const upload = await (this.#upload ??= this.#store.client.initiate(this.#store.name))
    return { upload, parts: this.#parts, whole: null, leftover, tail, stale }
  }

  /** After a failure: removes what the caller's state does not know. */
  async abandon(): Promise<void> {
    // Parts in flight may end: a store that is still busy with one can bring an aborted upload back to life (S3's manual of
    // AbortMultipartUpload says so; versitygw does it), and a late part could replace that of the next attempt.
    const timer = setTimeout(() => this.#stop.abort(new Error('the append failed')), LAST_PARTS_MS)
    for (const { done } of [...this.#inFlight]) await done
    clearTimeout(timer)
    if (this.#before.upload !== null || this.#upload === null) return
    const upload = await this.#upload.catch(() => null)
    // The failure that led here is the one to report; a sweep finds what stays.
    if (upload !== null) await this.#store.client.abort(this.#store.name, upload).catch(() => {})
  }

  /** Gives the memory back, in every case. */
  release(): void {
    this.#store.budget.release(this.#held)
    this.#held = 0
  }

  #newPart(reserved: number): Filling {
    return { slabs: [], targetSize: partSizeAt(this.#offset), size: 0, reserved, inherited: 0, done: null }
  }

  /** Adds a slab to the part being filled, or ships the part when there is no memory for one: then the answer is false. */
  async #grow(): Promise<boolean> {
    const part = this.#filling
    if (part.size + this.#slabSize > part.reserved) {
      const { budget } = this.#store
      if (!budget.tryReserve(this.#slabSize)) {
        if (part.size >= MIN_PART && this.#numbered < SHORT_PARTS) {
          await this.#shipShort()
          return false
        }
        budget.overdraw(this.#slabSize)
      }
      part.reserved += this.#slabSize
      this.#held += this.#slabSize
    }
    part.slabs.push(this.#store.pool.take(this.#slabSize))
    return true
  }

  /**
   * Ships the part and keeps MIN_PART bytes for the next. So an append that ends here has a last part big enough to stand in the
   * middle, and need not park it.
   */
  async #shipWithoutRest(): Promise<void> {
    const part = this.#filling
    const size = part.size - MIN_PART
    const rest = { ...part, slabs: part.slabs.splice(size / this.#slabSize), size: MIN_PART, reserved: MIN_PART }
    part.size = size
    part.reserved -= MIN_PART
    this.#ship()
    while (this.#inFlight.size >= PARTS_IN_FLIGHT) await this.#oldestInFlight()?.done
    if (this.#failure) throw this.#failure
    this.#filling = { ...rest, targetSize: partSizeAt(this.#offset) }
  }

  /** Ships what there is for lack of memory. */
  async #shipShort(): Promise<void> {
    this.#ship()
    // The next part lives on memory of the oldest in flight, so this upload goes on however many wait for memory.
    const oldest = this.#oldestInFlight()
    const reserved = oldest ? Math.min(MIN_PART, oldest.reserved) : 0
    if (oldest) oldest.inherited = reserved
    await oldest?.done
    if (this.#failure) throw this.#failure
    this.#filling = this.#newPart(reserved)
  }

  #oldestInFlight(): Filling | undefined {
    const [oldest] = this.#inFlight
    return oldest
  }

  #ship(): void {
    const part = this.#filling
    this.#numbered += 1
    this.#offset += part.size
    if (this.#numbered > MAX_PARTS) throw problems.payloadTooLarge({})
    this.#inFlight.add(part)
    part.done = this.#send(part, this.#numbered).then(
      () => {
        this.#inFlight.delete(part)
        this.#giveBack(part.reserved - part.inherited)
      },
      (error: unknown) => {
        this.#failure ??= error
        this.#inFlight.delete(part)
      },
    )
  }

  async #send(part: Filling, partNumber: number): Promise<void> {
    const { client, name } = this.#store
    const id = await (this.#upload ??= client.initiate(name))
    try {
      const stored = await client.put(name, views(part), part.size, { upload: { id, partNumber } }, this.#signal)
      this.#parts[partNumber - 1] = { etag: stored.etag, size: part.size }
      this.#reuse(part, stored.untouched)
    } catch (error) {
      if (codeOf(error) === 'NoSuchUpload' || (problems.serviceUnavailable.is(error) && !(await this.#exists(id)))) {
        throw new UploadLost(this.#key, 'the store ended it', { cause: error })
      }
      throw error
    }
  }

  /** Whether the upload goes on: some stores refuse a part of one that does not by breaking the connection. */
  async #exists(id: string): Promise<boolean> {
    try {
      for await (const { upload } of this.#store.client.uploads(this.#store.name)) if (upload === id) return true
      return false
    } catch {
      return true // unknown: the store answers nothing at all, and that failure is the one to report
    }
  }

  /** Whether the object could be written in one request: not when another one lies under its name. */
  async #putWhole(part: Filling): Promise<boolean> {
    const { client, name } = this.#store
    try {
      // Conditional, so that an append which hung until another one took over cannot replace what that one completed.
      const { untouched } = await client.put(name, views(part), part.size, { ifAbsent: true }, this.#signal)
      this.#reuse(part, untouched)
      return true
    } catch (error) {
      if (!(error instanceof S3Failure && error.status === 412)) throw error
      // Most likely it is ours, from an attempt whose answer was lost.
      const found = await client.head(name)
      return found?.sizeBytes === part.size && found.etag === md5Of(views(part))
    }
  }

  async #park(part: Filling): Promise<NonNullable<Draft['tail']>> {
    const token = randomUUID()
    const { untouched } = await this.#store.client.put(
      this.#store.tailName(token),
      views(part),
      part.size,
      {},
      this.#signal,
    )
    this.#reuse(part, untouched)
    return { token, size: part.size }
  }

  #reuse(part: Filling, untouched: boolean): void {
    if (untouched) for (const slab of part.slabs) this.#store.pool.give(slab)
  }

  #giveBack(bytes: number): void {
    this.#held -= bytes
    this.#store.budget.release(bytes)
  }
}

function md5Of(buffers: readonly Uint8Array[]): string {
  const hash = createHash('md5')
  for (const buffer of buffers) hash.update(buffer)
  return hash.digest('hex')
}

function views({ slabs, size }: Filling): Uint8Array[] {
  let left = size
  return slabs.map((slab) => {
    const view = slab.subarray(0, left)
    left -= view.length
    return view
  })
}
