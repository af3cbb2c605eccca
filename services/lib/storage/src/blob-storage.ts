import type { Readable, Writable } from 'node:stream'
import type { ObjectKey } from './object-key.ts'

/**
 * What a driver needs to go on with an unfinished upload: JSON, kept by the caller in the upload's row and opaque to it.
 * It names bytes in the store and nothing in a process, so any replica continues from it.
 */
export type UploadState = Readonly<Record<string, unknown>>

export interface AppendOptions {
  /** Called with every buffer, in order, before the next one is asked for (hashing, counting). After a failure its sum is void. */
  onChunk?: ((chunk: Uint8Array) => void) | undefined
  /**
   * Instead of `onChunk`, of a store that `gathers`: called with bytes in shared memory, in order, as soon as a buffer of them is full. They
   * stay as they are until the promise resolves.
   */
  onGathered?: ((bytes: Uint8Array) => Promise<void>) | undefined
  signal?: AbortSignal | undefined
  /** These bytes are the upload's last. Never needed for correctness; lets S3 send a short last part at once. */
  last?: boolean | undefined
  /** Bytes that this append is expected to bring, when the client announced them. */
  sizeHint?: number | undefined
}

/** Bytes on their way into a store. */
export interface ByteSource extends AsyncIterable<Uint8Array> {
  /** Where a source can write into buffers of the store's own, begins that. Instead of iterating; null where it cannot be, after all. */
  readonly intake?: (() => Promise<Intake | null>) | undefined
}

/** A source that writes into the reader's buffers. */
export interface Intake {
  /** Resolves when the buffer is full, or at the end of the bytes, with how many it brought. One at a time. Rejects as the source fails. */
  fill(into: Buffer): Promise<number>
  /** Nothing is written into any buffer after this. To be called once, whatever happened; a pending `fill` stays pending. */
  close(): void
}

/** A run of an object's bytes. */
export type ByteRange = Readonly<{ offset: number; length: number }>

export type StoredObject = Readonly<{ key: ObjectKey; sizeBytes: number; modifiedAt: Date }>
export type UnfinishedUpload = Readonly<{ key: ObjectKey; startedAt: Date }>
export type RemoveResult = Readonly<{ removed: ObjectKey[]; failed: { key: ObjectKey; error: Error }[] }>

/**
 * Blob bytes under opaque random keys. An object is written once, under the key it keeps, and never changes once it is complete.
 * Only the database says which objects count: one that lies in the store may belong to an upload that is still going on.
 * Two writers that believe they own one upload (a stalled replica wakes up) cannot mix their bytes: the one whose state the
 * caller records wins.
 */
export interface BlobStorage extends AsyncDisposable {
  /** The driver's name as `blob_locations.store` records it. */
  readonly name: 'files' | 's3' | 'memory'

  /** Whether `append` calls `onGathered`. */
  readonly gathers?: true

  /**
   * Appends `source` behind the `offset` bytes that `state` stands for (null and 0 for a new upload). Resolves when the new bytes
   * outlive this process. A failure (of the source, the store, the signal) leaves the old state valid at the old offset.
   * A buffer may be reused by the source once the next is asked for. On failure the iterator is returned: pass
   * `request.iterator({ destroyOnReturn: false })` where an answer is still to be sent.
   * Rejects with `UploadLost` when the store no longer has the bytes that `state` stands for, with `problems.diskFull` when it is full.
   */
  append(
    key: ObjectKey,
    state: UploadState | null,
    offset: number,
    source: ByteSource,
    options?: AppendOptions,
  ): Promise<{ state: UploadState; written: number }>

  /**
   * Makes the upload the complete, durable object `key` of exactly `sizeBytes`, or rejects: with `SizeMismatch` when the upload
   * has another size (it may go on or be discarded), with `UploadLost` when its bytes are gone. May be repeated. `state` is null
   * for an upload that never got a byte.
   */
  complete(key: ObjectKey, state: UploadState | null, sizeBytes: number): Promise<void>

  /**
   * Removes what an unfinished upload left in the store. May be repeated. Only for who owns the upload (its row is deleted, or
   * claimed by fence): with the state of an upload that was completed the object may go. A sweeper that knows no state gives
   * null, which spares every object under the final key.
   */
  discard(key: ObjectKey, state: UploadState | null): Promise<void>

  stat(key: ObjectKey): Promise<{ sizeBytes: number } | null>

  /**
   * Writes the range to `to` at the pace `to` takes it, from buffers that are reused, and does not end it. Rejects with
   * `ObjectMissing` before the first byte, with `ObjectTruncated` when bytes are missing, with ERR_STREAM_PREMATURE_CLOSE when
   * `to` closes first. After a rejection the caller destroys `to`, so that a short body never looks whole.
   * Verifying is `send` into `createHash(…)`.
   */
  send(key: ObjectKey, range: ByteRange, to: Writable, signal?: AbortSignal): Promise<void>

  /** The object's bytes as a stream for general use (copying out). Fails as `send` does. */
  read(key: ObjectKey, range?: ByteRange, signal?: AbortSignal): Readable

  /** Deletes objects; one that is not there counts as removed. */
  remove(keys: readonly ObjectKey[]): Promise<RemoveResult>

  /**
   * Objects in the order of their keys, from the first key greater than `after`. One without a row in the database is an orphan
   * only if no upload has its key.
   */
  list(after?: ObjectKey): AsyncIterable<StoredObject>

  /** Uploads with bytes in the store and no object, for sweeping. One key may come twice. */
  listUnfinished(): AsyncIterable<UnfinishedUpload>

  /**
   * A URL by which a client reads the object without us. The same for everybody within a quarter of an hour, so that caches work;
   * valid for `seconds` at least, and up to 15 minutes longer.
   */
  signedUrl?(key: ObjectKey, seconds: number, options?: { contentType?: string; fileName?: string }): Promise<string>

  /** Writes, reads and deletes a probe object; rejects with a reason that a person understands. */
  check(): Promise<void>
}
