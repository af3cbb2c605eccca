import { randomUUID } from 'node:crypto'
import { Readable, type Writable } from 'node:stream'
import type { AppendOptions, BlobStorage, ByteRange, RemoveResult, UploadState } from '../blob-storage.ts'
import { ObjectMissing, ObjectTruncated, SizeMismatch, UploadLost } from '../failures.ts'
import { readable, uuidOf, type ObjectKey } from '../object-key.ts'
import { probe } from '../probe.ts'
import { chunksOf, Outlet } from '../streams.ts'

const PIECE = 1024 * 1024

interface Draft {
  readonly key: ObjectKey
  readonly chunks: readonly Buffer[]
  readonly sizeBytes: number
  readonly startedAt: Date
}

/** Blobs in this process's memory, for tests. */
export class MemoryStorage implements BlobStorage {
  readonly name = 'memory'
  readonly #objects = new Map<ObjectKey, { bytes: Buffer; modifiedAt: Date }>()
  // Each append makes a new draft, so a writer that was given up can only add to one that nobody will complete.
  readonly #drafts = new Map<string, Draft>()

  async append(
    key: ObjectKey,
    state: UploadState | null,
    offset: number,
    source: AsyncIterable<Uint8Array>,
    { onChunk, signal }: AppendOptions = {},
  ) {
    uuidOf(key)
    const before = state === null ? emptyDraft(key) : this.#draft(key, state)
    if (before.sizeBytes !== offset) throw new UploadLost(key, `it has ${before.sizeBytes} bytes, not ${offset}`)
    const chunks = [...before.chunks]
    let written = 0
    for await (const chunk of chunksOf(source, signal)) {
      onChunk?.(chunk)
      chunks.push(Buffer.from(chunk))
      written += chunk.length
    }
    const draft = randomUUID()
    this.#drafts.set(draft, { ...before, chunks, sizeBytes: offset + written })
    if (state !== null) this.#drafts.delete(String(state.draft))
    return { state: { draft }, written }
  }

  async complete(key: ObjectKey, state: UploadState | null, sizeBytes: number) {
    uuidOf(key)
    if (this.#objects.get(key)?.bytes.length === sizeBytes) return
    const draft = state === null ? emptyDraft(key) : this.#draft(key, state)
    if (draft.sizeBytes !== sizeBytes) throw new SizeMismatch(key, sizeBytes, draft.sizeBytes)
    this.#objects.set(key, { bytes: Buffer.concat(draft.chunks), modifiedAt: new Date() })
    this.#forgetDrafts(key)
  }

  async discard(key: ObjectKey) {
    this.#forgetDrafts(key)
  }

  async stat(key: ObjectKey) {
    const object = this.#objects.get(readable(key))
    return object ? { sizeBytes: object.bytes.length } : null
  }

  async send(key: ObjectKey, { offset, length }: ByteRange, to: Writable, signal?: AbortSignal) {
    const bytes = this.#bytes(key).subarray(offset, offset + length)
    using outlet = new Outlet(to, signal)
    for (let at = 0; at < bytes.length; at += PIECE) await outlet.write(bytes.subarray(at, at + PIECE))
    if (bytes.length < length) throw new ObjectTruncated(key, length - bytes.length)
  }

  read(key: ObjectKey, range?: ByteRange, signal?: AbortSignal): Readable {
    const pieces = async function* (this: MemoryStorage) {
      const all = this.#bytes(key)
      const { offset, length } = range ?? { offset: 0, length: all.length }
      const bytes = all.subarray(offset, offset + length)
      for (let at = 0; at < bytes.length; at += PIECE) yield Buffer.from(bytes.subarray(at, at + PIECE))
      if (bytes.length < length) throw new ObjectTruncated(key, length - bytes.length)
    }
    return Readable.from(pieces.call(this), { objectMode: false, ...(signal && { signal }) })
  }

  async remove(keys: readonly ObjectKey[]): Promise<RemoveResult> {
    const result: RemoveResult = { removed: [], failed: [] }
    for (const key of keys) {
      try {
        this.#objects.delete(readable(key))
        result.removed.push(key)
      } catch (error) {
        result.failed.push({ key, error: error as Error })
      }
    }
    return result
  }

  async *list(after = '') {
    for (const key of [...this.#objects.keys()].sort()) {
      const object = this.#objects.get(key)
      if (key > after && object) yield { key, sizeBytes: object.bytes.length, modifiedAt: object.modifiedAt }
    }
  }

  async *listUnfinished() {
    for (const { key, startedAt } of this.#drafts.values()) yield { key, startedAt }
  }

  check() {
    return probe(this)
  }

  async [Symbol.asyncDispose]() {
    this.#objects.clear()
    this.#drafts.clear()
  }

  #draft(key: ObjectKey, state: UploadState): Draft {
    const draft = this.#drafts.get(String(state.draft))
    if (draft?.key !== key) throw new UploadLost(key, 'its bytes are gone')
    return draft
  }

  #bytes(key: ObjectKey): Buffer {
    const object = this.#objects.get(readable(key))
    if (!object) throw new ObjectMissing(key)
    return object.bytes
  }

  #forgetDrafts(key: ObjectKey) {
    for (const [id, draft] of this.#drafts) if (draft.key === key) this.#drafts.delete(id)
  }
}

function emptyDraft(key: ObjectKey): Draft {
  return { key, chunks: [], sizeBytes: 0, startedAt: new Date() }
}
