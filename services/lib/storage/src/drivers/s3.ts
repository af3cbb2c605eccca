import { createHash } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { problems } from '@haven/errors'
import type {
  AppendOptions,
  BlobStorage,
  ByteRange,
  RemoveResult,
  StoredObject,
  UnfinishedUpload,
  UploadState,
} from '../blob-storage.ts'
import { KeptBuffers } from '../buffer-pool.ts'
import { ObjectMissing, ObjectTruncated, SizeMismatch, UploadLost } from '../failures.ts'
import { MemoryBudget } from '../memory-budget.ts'
import { isObjectKey, newObjectKey, readable, uuidOf, type ObjectKey } from '../object-key.ts'
import { probe } from '../probe.ts'
import { chunksOf, Outlet, release } from '../streams.ts'
import { S3Client, type S3Options } from './s3/client.ts'
import { emptyDraft, FIRST_PART, PartWriter, sizeOf, type Draft, type PartStore } from './s3/part-writer.ts'
import { codeOf, isTransient, retrying, S3Failure } from './s3/retry.ts'

export interface S3StorageOptions extends S3Options {
  /** Memory that all uploads of this process may hold together. */
  readonly uploadMemoryBytes?: number
  /** How long an upload waits for its share of that memory. */
  readonly uploadPatienceMs?: number
}

const DELETE_AT_ONCE = 1000
const lostCodes = new Set(['InvalidPart', 'InvalidPartOrder', 'EntityTooSmall', 'NoSuchKey'])

/**
 * Blobs in a bucket of S3 or MinIO. Up to one part (16 MiB) an upload costs one request, above that n + 2 for n parts; nothing
 * is ever copied inside the store. A short first chunk lies under the final key at once, so `list` shows it: an object counts
 * only when the database says so.
 */
export class S3Storage implements BlobStorage {
  readonly name = 's3'
  readonly #client: S3Client
  readonly #prefix: string
  readonly #pool: KeptBuffers
  readonly #budget: MemoryBudget

  private constructor(options: S3StorageOptions) {
    this.#client = new S3Client(options)
    this.#prefix = options.prefix ?? ''
    const memoryBytes = options.uploadMemoryBytes ?? 64 * 1024 ** 2
    this.#budget = new MemoryBudget(memoryBytes, options.uploadPatienceMs ?? 60_000)
    this.#pool = new KeptBuffers(memoryBytes)
  }

  /** Opens the bucket, creating it when it is missing. */
  static async open(options: S3StorageOptions): Promise<S3Storage> {
    const storage = new S3Storage(options)
    try {
      await storage.#client.ensureBucket()
      return storage
    } catch (error) {
      storage.#client.close()
      throw unreachable(error)
    }
  }

  async append(
    key: ObjectKey,
    state: UploadState | null,
    offset: number,
    source: AsyncIterable<Uint8Array>,
    { onChunk, signal, last = false, sizeHint }: AppendOptions = {},
  ) {
    const draft = draftOf(key, state)
    if (sizeOf(draft) !== offset) throw new UploadLost(key, `it has ${sizeOf(draft)} bytes, not ${offset}`)
    const kept = (draft.whole ?? 0) + (draft.tail?.size ?? 0)
    const writer = new PartWriter(key, this.#partStore(key), draft, kept + (sizeHint ?? Infinity), signal)
    let written = 0
    try {
      await writer.admit()
      for await (const chunk of chunksOf(source, signal)) {
        if (written === 0 && chunk.length > 0) await this.#takeBack(key, draft, writer, signal)
        onChunk?.(chunk)
        await writer.add(chunk)
        written += chunk.length
      }
      const next = await writer.finish(last)
      return { state: { draft: next }, written }
    } catch (error) {
      await writer.abandon()
      throw error
    } finally {
      writer.release()
    }
  }

  async complete(key: ObjectKey, state: UploadState | null, sizeBytes: number) {
    const draft = draftOf(key, state)
    const total = sizeOf(draft)
    if (total !== sizeBytes) throw new SizeMismatch(key, sizeBytes, total)
    if (draft.whole !== null) return this.#removeTails(key, draft)
    if (total === 0) return this.#putEmpty(key)
    const parts = [...draft.parts]
    if (draft.tail) {
      const etag = await this.#sendTail(key, draft, draft.tail)
      // The tail goes only after the object is complete, so this is a repetition.
      if (etag === null) return this.#requireComplete(key, sizeBytes, null)
      parts.push({ etag, size: draft.tail.size })
    }
    await this.#join(
      key,
      draft.upload ?? '',
      parts.map(({ etag }) => etag),
      sizeBytes,
    )
    await this.#removeTails(key, draft)
  }

  async discard(key: ObjectKey, state: UploadState | null) {
    const uuid = uuidOf(key)
    const draft = draftOf(key, state)
    const names: string[] = draft.whole !== null || draft.leftover ? [this.#name(key)] : []
    for await (const { name } of this.#client.objects(`${this.#prefix}incoming/${uuid}/`)) names.push(name)
    const uploads = new Set(draft.upload === null ? [] : [draft.upload])
    // An append that never reported back left an upload that no state knows.
    for await (const { name, upload } of this.#client.uploads(this.#name(key))) {
      if (name === this.#name(key)) uploads.add(upload)
    }
    for (const upload of uploads) await this.#client.abort(this.#name(key), upload)
    const failed = names.length === 0 ? [] : [...(await this.#client.remove(names)).values()]
    if (failed[0]) throw failed[0]
  }

  async stat(key: ObjectKey) {
    const found = await this.#client.head(this.#name(readable(key)))
    if (found === null) await this.#client.requireBucket()
    return found && { sizeBytes: found.sizeBytes }
  }

  async send(key: ObjectKey, range: ByteRange, to: Writable, signal?: AbortSignal) {
    readable(key)
    using outlet = new Outlet(to, signal)
    for await (const chunk of this.#bytes(key, range, outlet.closed)) {
      await outlet.write(chunk)
      if (!outlet.keepsBuffers) release(chunk)
    }
    outlet.throwIfClosed()
  }

  read(key: ObjectKey, range?: ByteRange, signal?: AbortSignal): Readable {
    return Readable.from(this.#bytes(key, range ?? null, signal), { objectMode: false, ...(signal && { signal }) })
  }

  async remove(keys: readonly ObjectKey[]): Promise<RemoveResult> {
    const result: RemoveResult = { removed: [], failed: [] }
    const sound: ObjectKey[] = []
    for (const key of keys) {
      try {
        sound.push(readable(key))
      } catch (error) {
        result.failed.push({ key, error: error as Error })
      }
    }
    for (let at = 0; at < sound.length; at += DELETE_AT_ONCE) {
      const batch = sound.slice(at, at + DELETE_AT_ONCE)
      try {
        const stayed = await this.#client.remove(batch.map((key) => this.#name(key)))
        for (const key of batch) {
          const error = stayed.get(this.#name(key))
          if (error) result.failed.push({ key, error })
          else result.removed.push(key)
        }
      } catch (error) {
        result.failed.push(...batch.map((key) => ({ key, error: error as Error })))
      }
    }
    return result
  }

  async *list(after?: ObjectKey): AsyncGenerator<StoredObject> {
    const start = after === undefined ? '' : this.#name(after)
    for await (const { name, sizeBytes, modifiedAt } of this.#client.objects(this.#name('o/'), start)) {
      const key = name.slice(this.#prefix.length)
      if (isObjectKey(key)) yield { key, sizeBytes, modifiedAt }
    }
  }

  /**
   * Parked tails and multipart uploads. MinIO lists the latter only for a whole key, so a sweep misses those that no state knows;
   * MinIO itself ends them after a day.
   */
  async *listUnfinished(): AsyncGenerator<UnfinishedUpload> {
    const parked = this.#name('incoming/')
    for await (const { name, modifiedAt } of this.#client.objects(parked)) {
      const key = newObjectKey(name.slice(parked.length).split('/')[0])
      if (isObjectKey(key)) yield { key, startedAt: modifiedAt }
    }
    for await (const { name, startedAt } of this.#client.uploads(this.#name('o/'))) {
      const key = name.slice(this.#prefix.length)
      if (isObjectKey(key)) yield { key, startedAt }
    }
  }

  async signedUrl(key: ObjectKey, seconds: number, options: { contentType?: string; fileName?: string } = {}) {
    const { contentType, fileName } = options
    return this.#client.signedUrl(this.#name(readable(key)), seconds, {
      ...(contentType !== undefined && { 'response-content-type': contentType }),
      ...(fileName !== undefined && {
        'response-content-disposition': `attachment; filename*=UTF-8''${encodeURIComponent(fileName)}`,
      }),
    })
  }

  async check() {
    try {
      await probe(this)
    } catch (error) {
      throw problems.diskFull.is(error) ? error : unreachable(error)
    }
  }

  async [Symbol.asyncDispose]() {
    this.#client.close()
  }

  #name(key: string): string {
    return this.#prefix + key
  }

  #partStore(key: ObjectKey): PartStore {
    const uuid = uuidOf(key)
    return {
      client: this.#client,
      budget: this.#budget,
      pool: this.#pool,
      name: this.#name(key),
      tailName: (token) => this.#name(`incoming/${uuid}/${token}`),
    }
  }

  /** Reads back what is too short for a part, so that it becomes the beginning of one. */
  async #takeBack(key: ObjectKey, draft: Draft, writer: PartWriter, signal: AbortSignal | undefined) {
    const store = this.#partStore(key)
    if (draft.stale.length > 0) {
      // A tail that stays is found by a sweep; it is no reason to fail an upload.
      await this.#client.remove(draft.stale.map((token) => store.tailName(token))).catch(() => {})
    }
    const short = draft.tail ? store.tailName(draft.tail.token) : draft.whole !== null ? store.name : null
    if (short === null) return
    const length = draft.tail?.size ?? draft.whole ?? 0
    try {
      for await (const chunk of this.#named(key, short, { offset: 0, length }, signal)) {
        await writer.add(chunk)
        release(chunk)
      }
    } catch (error) {
      if (error instanceof ObjectMissing) throw new UploadLost(key, 'its bytes are gone', { cause: error })
      throw error
    }
  }

  async #putEmpty(key: ObjectKey) {
    try {
      await this.#client.put(this.#name(key), [], 0, { ifAbsent: true })
    } catch (error) {
      if (!(error instanceof S3Failure && error.status === 412)) throw error
      await this.#requireComplete(key, 0, null)
    }
  }

  /** Makes the parked tail the last part; its ETag, or null when there is no such tail. */
  async #sendTail(key: ObjectKey, draft: Draft, tail: NonNullable<Draft['tail']>): Promise<string | null> {
    const store = this.#partStore(key)
    const buffers: Buffer[] = []
    try {
      const range = { offset: 0, length: tail.size }
      for await (const chunk of this.#named(key, store.tailName(tail.token), range)) buffers.push(chunk)
      const target = { upload: { id: draft.upload ?? '', partNumber: draft.parts.length + 1 } }
      return (await this.#client.put(store.name, buffers, tail.size, target)).etag
    } catch (error) {
      if (error instanceof ObjectMissing || codeOf(error) === 'NoSuchUpload') return null
      throw error
    }
  }

  async #join(key: ObjectKey, upload: string, etags: readonly string[], sizeBytes: number) {
    const expected = joinedEtag(etags)
    const name = this.#name(key)
    const etag = await retrying(this.#client.retry, () => this.#client.complete(name, upload, etags, sizeBytes), {
      // A failure says little: the store may have joined the parts all the same, so the object is looked at before a repetition.
      settled: async (error) => {
        if (error instanceof S3Failure && error.status === 503) return null
        const found = await this.#client.head(name)
        if (found?.sizeBytes === sizeBytes && etagMayBe(found.etag, expected)) return found.etag
        if (codeOf(error) === 'NoSuchUpload') throw new UploadLost(key, 'the store ended it', { cause: error })
        if (lostCodes.has(codeOf(error))) throw new UploadLost(key, 'the store has other parts', { cause: error })
        return null
      },
    })
    // The ETag of a joined object follows from those of its parts, which proves its length; where a store makes it otherwise, ask.
    if (etag !== expected) await this.#requireComplete(key, sizeBytes, expected)
  }

  async #requireComplete(key: ObjectKey, sizeBytes: number, etag: string | null) {
    const found = await this.#client.head(this.#name(key))
    if (found === null) throw new UploadLost(key, 'its bytes are gone')
    if (found.sizeBytes === sizeBytes && (etag === null || etagMayBe(found.etag, etag))) return
    throw new UploadLost(key, `the store made ${found.sizeBytes} bytes of it, not ${sizeBytes}`)
  }

  async #removeTails(key: ObjectKey, draft: Draft) {
    const { tailName } = this.#partStore(key)
    const tokens = [...draft.stale, ...(draft.tail ? [draft.tail.token] : [])]
    // The object is complete; a sweep finds a tail that stays.
    if (tokens.length > 0) await this.#client.remove(tokens.map(tailName)).catch(() => {})
  }

  #bytes(key: ObjectKey, range: ByteRange | null, signal?: AbortSignal): AsyncGenerator<Buffer> {
    return this.#named(key, this.#name(readable(key)), range, signal)
  }

  /** The bytes of an object. What a broken connection withheld is asked for again: objects do not change. */
  async *#named(key: ObjectKey, name: string, range: ByteRange | null, signal?: AbortSignal): AsyncGenerator<Buffer> {
    if (range?.length === 0) return
    const { attempts, baseDelayMs, maxDelayMs } = this.#client.retry
    let at = range?.offset ?? 0
    let end = range ? range.offset + range.length : null
    for (let attempt = 1, begunAt = at; ; attempt += 1, begunAt = at) {
      try {
        const rest = end === null || (range === null && at === 0) ? null : { offset: at, length: end - at }
        const response = await this.#client.get(name, rest, signal)
        end ??= Number(response.headers['content-length'] ?? NaN)
        if (Number.isNaN(end)) throw new Error(`the store does not say how long ${key} is`)
        for await (const chunk of response as AsyncIterable<Buffer>) {
          at += chunk.length
          if (at > end) throw new Error(`the store sent more of ${key} than it was asked for`)
          yield chunk
        }
        if (at === end) return
        throw new ObjectTruncated(key, end - at)
      } catch (error) {
        signal?.throwIfAborted()
        if (error instanceof S3Failure && ['NoSuchUpload', 'NoSuchBucket'].includes(error.code)) throw error
        if (error instanceof S3Failure && error.status === 404) throw new ObjectMissing(key, { cause: error })
        if (error instanceof S3Failure && error.status === 416)
          throw new ObjectTruncated(key, (end ?? at) - at, { cause: error })
        // A short answer that ended well is a short object.
        if (error instanceof ObjectTruncated || !isTransient(error)) throw error
        // One that got on is no repetition: a long download to a slow client outlives many connections.
        if (at - begunAt >= FIRST_PART) attempt = 1
        if (attempt >= attempts) throw end === null ? error : new ObjectTruncated(key, end - at, { cause: error })
      }
      await sleep(
        Math.random() * Math.min(maxDelayMs, baseDelayMs * 2 ** (attempt - 1)),
        undefined,
        signal && { signal },
      )
    }
  }
}

function draftOf(key: ObjectKey, state: UploadState | null): Draft {
  uuidOf(key)
  return state === null ? emptyDraft : (state.draft as Draft)
}

/** S3's ETag of a multipart object: MD5 over the MD5s of its parts, and their number. Null where those are no MD5s. */
function joinedEtag(etags: readonly string[]): string | null {
  if (!etags.every((etag) => /^[0-9a-f]{32}$/.test(etag))) return null
  const hash = createHash('md5')
  for (const etag of etags) hash.update(etag, 'hex')
  return `${hash.digest('hex')}-${etags.length}`
}

/** False only for an ETag of S3's form that is another one. Encrypting and some other stores have ETags of their own. */
function etagMayBe(etag: string, expected: string | null): boolean {
  return expected === null || etag === expected || !/^[0-9a-f]{32}-\d+$/.test(etag)
}

function unreachable(error: unknown): Error {
  const causes: unknown[] = []
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) causes.push(cause)
  const codes = causes.map(codeOf)
  const reason =
    reasons.find(([code]) => codes.includes(code))?.[1] ??
    `it answers ${codes.findLast((code) => code !== '') ?? String((causes.at(-1) as Error | undefined)?.message)}`
  return problems.storageUnreachable({ reason }, { cause: error })
}

const reasons: readonly (readonly [string, string])[] = [
  ['ECONNREFUSED', 'nothing listens at S3_ENDPOINT'],
  ['ENOTFOUND', 'the host of S3_ENDPOINT is unknown'],
  ['ETIMEDOUT', 'S3_ENDPOINT does not answer'],
  ['InvalidAccessKeyId', 'S3_ACCESS_KEY is not known there'],
  ['SignatureDoesNotMatch', 'S3_SECRET_KEY does not fit S3_ACCESS_KEY'],
  ['AccessDenied', 'S3_ACCESS_KEY may not use the bucket'],
  ['NoSuchBucket', 'the bucket of S3_BUCKET does not exist'],
]
