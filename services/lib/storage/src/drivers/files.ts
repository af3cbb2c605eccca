import { randomUUID } from 'node:crypto'
import { closeSync, fdatasync, fstatSync, statSync } from 'node:fs'
import { constants, copyFile, mkdir, readdir, rename, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, type Writable } from 'node:stream'
import { promisify } from 'node:util'
import { problems } from '@haven/errors'
import type {
  AppendOptions,
  BlobStorage,
  ByteRange,
  ByteSource,
  Intake,
  RemoveResult,
  StoredObject,
  UnfinishedUpload,
  UploadState,
} from '../blob-storage.ts'
import { AlignedBuffers, BufferPool } from '../buffer-pool.ts'
import { ObjectMissing, ObjectTruncated, SizeMismatch, UploadLost } from '../failures.ts'
import { isObjectKey, newObjectKey, readable, uuidOf, type ObjectKey } from '../object-key.ts'
import { probe } from '../probe.ts'
import { intakeOf, Outlet } from '../streams.ts'
import {
  asProblem,
  closeFile,
  codeOf,
  openFile,
  openOrNull,
  placeOnce,
  readOnce,
  statOrNull,
  unlinkIfThere,
  type Filled,
} from './files/calls.ts'
import { FolderSync } from './files/folder-sync.ts'
import { UploadFile } from './files/upload-file.ts'

const INCOMING = 'incoming'
const REMOVALS_AT_ONCE = 16
const STATS_AT_ONCE = 16
const PAGE = 4096
/** Up to here, an upload that comes whole is written under its last name, from one buffer. */
const WHOLE_BYTES = 1024 ** 2
/** Fewer are written through the page cache: copying them costs less than a descriptor of its own (0019). */
const DIRECT_BYTES = 128 * 1024
/** Of a buffer that others keep. */
const READ_BYTES = 256 * 1024
/** What all downloads together hold in buffers, as long as they are few enough. */
const SENDING_BYTES = 8 * 1024 ** 2

const syncData = promisify(fdatasync)

/**
 * Blobs as files of one folder: `incoming/<uuid>.<token>` while they arrive, `o/<xx>/<uuid>` for good. Any number of processes may
 * share it. Every append renames the staged file under a token of its own: whoever takes an upload over from a writer that
 * may still be alive copies the bytes so far to another inode, so a late write cannot reach them.
 *
 * A small upload that comes whole is written under its last name: nobody reads a key before it is recorded, and a file that is there already is
 * never written. That is one journal commit instead of two, and a third of the calls.
 */
export class FileStorage implements BlobStorage {
  readonly name = 'files'
  readonly gathers = true as const
  readonly #root: string
  readonly #pool = new BufferPool(SENDING_BYTES)
  readonly #gathering = new AlignedBuffers()
  readonly #folders: FolderSync
  /**
   * Whether whole pages go to the disk around the page cache: it saves copying each byte into pages that nobody may ever read, and a push
   * of gigabytes leaves what is being pulled in memory. False where the file system cannot.
   */
  #direct: boolean | 'untried' = process.platform === 'linux' ? 'untried' : false

  private constructor(root: string) {
    this.#root = root
    this.#folders = new FolderSync()
  }

  /** Opens the folder, making it and its subfolders first. */
  static async open(root: string): Promise<FileStorage> {
    const storage = new FileStorage(root)
    try {
      await storage.#makeFolders()
    } catch (error) {
      throw problems.storageUnreachable({ reason: `its folder cannot be made (${codeOf(error)})` }, { cause: error })
    }
    return storage
  }

  async append(
    key: ObjectKey,
    state: UploadState | null,
    offset: number,
    source: ByteSource,
    { onChunk, onGathered, signal, last = false, sizeHint = Infinity }: AppendOptions = {},
  ) {
    const token = randomUUID()
    const placed = state === null && last && sizeHint <= WHOLE_BYTES
    const next = { token, ...(placed && { placed, named: true }) }
    const path = this.#pathOf(key, next)
    // What is written so is on the disk: no sync of its own, and the sync of the folder finds its name there with it.
    const sync = placed ? constants.O_DSYNC : 0
    let naming = Promise.resolve()
    const begin = async (flags: number) => {
      if (state !== null) return this.#claim(key, state, path, offset)
      const fd = await this.#openNew(key, path, offset, sync | flags)
      if (placed) {
        // While its bytes are written. Awaited behind them; until then a rejection must not count as unhandled.
        naming = this.#syncFolder(key, path)
        naming.catch(() => {})
      }
      return fd
    }
    const file = new UploadFile(path, begin, sync)
    // One that gets its name at once has it for no longer than need be.
    if (!placed) await file.open()
    try {
      const written = await this.#gather(source, sizeHint, placed, signal, (buffer, filled, at) => {
        const bytes = buffer.subarray(0, filled)
        onChunk?.(bytes)
        const writing = this.#writeOut(file, buffer, filled, offset + at)
        return onGathered ? [writing, onGathered(bytes)] : [writing]
      })
      if (!file.isOpen) await file.open()
      await naming
      return { state: next, written }
    } catch (error) {
      await naming.catch(() => {})
      if (file.isOpen) await giveBack(path, state && this.#pathOf(key, state), offset)
      throw asProblem(error)
    } finally {
      await file.close()
    }
  }

  async complete(key: ObjectKey, state: UploadState | null, sizeBytes: number) {
    const final = join(this.#root, key)
    const staged = this.#pathOf(key, state ?? { token: randomUUID() })
    try {
      if (staged === final) return await this.#requireComplete(key, sizeBytes, state?.named === true)
      const fd = state === null ? await this.#openEmpty(key, final, staged) : await openOrNull(staged)
      if (fd === null) return await this.#requireComplete(key, sizeBytes)
      await this.#syncAndClose(key, fd, staged, sizeBytes)
      if (!(await placeOnce(staged, final))) await this.#requireComplete(key, sizeBytes)
      await Promise.all([this.#syncFolder(key, final), unlinkIfThere(staged)])
    } catch (error) {
      throw asProblem(error)
    }
  }

  async discard(key: ObjectKey, state: UploadState | null) {
    const uuid = uuidOf(key)
    if (state !== null) await unlinkIfThere(this.#pathOf(key, state))
    for (const token of await this.#tokens(uuid)) await unlinkIfThere(this.#staged(uuid, token))
  }

  async stat(key: ObjectKey) {
    const found = await statOrNull(join(this.#root, readable(key)))
    return found?.isFile() ? { sizeBytes: found.size } : null
  }

  async send(key: ObjectKey, { offset, length }: ByteRange, to: Writable, signal?: AbortSignal) {
    using outlet = new Outlet(to, signal)
    const fd = await this.#openObject(key)
    this.#pool.enter()
    let reading: Promise<Filled> | null = null
    try {
      const readAt = (at: number) => {
        const left = offset + length - at
        const fresh = outlet.keepsBuffers ? Buffer.allocUnsafeSlow(READ_BYTES) : this.#pool.take(left)
        const filled = readOnce(fd, fresh, Math.min(fresh.length, left), at)
        // Who fails to read has let go of the buffer.
        filled.catch(() => outlet.keepsBuffers || this.#pool.give(fresh))
        return filled
      }
      let at = offset
      if (length > 0) reading = readAt(at)
      while (reading) {
        const { buffer, bytes } = await reading
        reading = null
        try {
          outlet.throwIfClosed()
          if (bytes === 0) throw new ObjectTruncated(key, offset + length - at)
          at += bytes
          // One read ahead: the disk works while the socket does. Among hundreds it works for others meanwhile.
          if (at < offset + length && !this.#pool.isCrowded) reading = readAt(at)
          await outlet.write(buffer.subarray(0, bytes))
        } catch (error) {
          if (!outlet.keepsBuffers) this.#pool.drop(buffer)
          throw error
        }
        if (!outlet.keepsBuffers) this.#pool.give(buffer)
        if (at < offset + length) reading ??= readAt(at)
      }
    } finally {
      // A descriptor must not be closed, nor a buffer reused, under a read in flight.
      const ahead = await reading?.catch(() => null)
      if (ahead && !outlet.keepsBuffers) this.#pool.give(ahead.buffer)
      this.#pool.leave()
      // At once: nothing is to be written back, and a way to a worker thread and back costs thirty times as much.
      closeSync(fd)
    }
  }

  read(key: ObjectKey, range?: ByteRange, signal?: AbortSignal): Readable {
    const pieces = async function* (this: FileStorage) {
      const fd = await this.#openObject(key)
      try {
        let at = range?.offset ?? 0
        const end = range ? range.offset + range.length : Infinity
        while (at < end) {
          const { buffer, bytes } = await readOnce(
            fd,
            Buffer.allocUnsafeSlow(READ_BYTES),
            Math.min(READ_BYTES, end - at),
            at,
          )
          if (bytes === 0 && range) throw new ObjectTruncated(key, end - at)
          if (bytes === 0) return
          at += bytes
          yield buffer.subarray(0, bytes)
        }
      } finally {
        await closeFile(fd)
      }
    }
    return Readable.from(pieces.call(this), { objectMode: false, ...(signal && { signal }) })
  }

  async remove(keys: readonly ObjectKey[]): Promise<RemoveResult> {
    const result: RemoveResult = { removed: [], failed: [] }
    const rest = keys.values()
    const worker = async () => {
      for (const key of rest) {
        try {
          await unlinkIfThere(join(this.#root, readable(key)))
          result.removed.push(key)
        } catch (error) {
          result.failed.push({ key, error: error as Error })
        }
      }
    }
    await Promise.all(Array.from({ length: REMOVALS_AT_ONCE }, worker))
    return result
  }

  async *list(after = ''): AsyncGenerator<StoredObject> {
    for (const shard of shards()) {
      const folder = `o/${shard}`
      if (`${folder}/~` <= after) continue
      const keys = (await readdir(join(this.#root, folder)))
        .map((name) => `${folder}/${name}`)
        .filter((key) => key > after && isObjectKey(key))
        .sort()
      for (let at = 0; at < keys.length; at += STATS_AT_ONCE) {
        const batch = keys.slice(at, at + STATS_AT_ONCE)
        const found = await Promise.all(batch.map((key) => statOrNull(join(this.#root, key))))
        for (const [i, key] of batch.entries()) {
          const file = found[i]
          if (file?.isFile()) yield { key, sizeBytes: file.size, modifiedAt: file.mtime }
        }
      }
    }
  }

  async *listUnfinished(): AsyncGenerator<UnfinishedUpload> {
    for (const name of await readdir(join(this.#root, INCOMING))) {
      const key = newObjectKey(name.slice(0, name.indexOf('.')))
      if (!isObjectKey(key)) continue
      const file = await statOrNull(join(this.#root, INCOMING, name))
      // Some file systems keep no time of birth.
      if (file) yield { key, startedAt: file.birthtimeMs > 0 ? file.birthtime : file.mtime }
    }
  }

  async check() {
    try {
      await this.#makeFolders()
      await probe(this)
    } catch (error) {
      if (problems.diskFull.is(error)) throw error
      throw problems.storageUnreachable(
        { reason: `its folder fails a write, read and delete (${codeOf(error)})` },
        { cause: error },
      )
    }
  }

  async [Symbol.asyncDispose]() {
    await this.#folders[Symbol.asyncDispose]()
  }

  #staged(uuid: string, token: string): string {
    return join(this.#root, INCOMING, `${uuid}.${token}`)
  }

  /**
   * Fills one buffer while the other is used.
   * @param whole one buffer is to hold all of it
   * @param use with the position of its bytes; the buffer is theirs until all that it returns is settled.
   * @returns how many bytes came.
   */
  async #gather(
    source: ByteSource,
    sizeHint: number,
    whole: boolean,
    signal: AbortSignal | undefined,
    use: (buffer: Buffer, filled: number, at: number) => Promise<unknown>[],
  ): Promise<number> {
    this.#gathering.enter()
    const taken: Buffer[] = []
    const take = () => {
      const buffer = this.#gathering.take(sizeHint, whole)
      taken.push(buffer)
      return buffer
    }
    let uses: Promise<unknown>[] = []
    let intake: Intake | null = null
    let gathered = 0
    try {
      intake = await intakeOf(source, signal)
      let filling = take()
      let used: Buffer | null = null
      for (;;) {
        const filled = await intake.fill(filling)
        await Promise.all(uses)
        if (filled === 0) break
        uses = use(filling, filled, gathered)
        // Awaited before the next ones and at the end; until then a rejection must not count as unhandled.
        for (const each of uses) each.catch(() => {})
        gathered += filled
        if (filled < filling.length) break
        // Behind the last byte there is only the end, unless more comes than was said.
        const next: Buffer = used ?? (gathered < sizeHint ? take() : Buffer.allocUnsafe(PAGE))
        used = filling
        filling = next
      }
      await Promise.all(uses)
      return gathered
    } finally {
      intake?.close()
      // A buffer must not be filled again, for another upload, while it is written or summed.
      await Promise.allSettled(uses)
      for (const buffer of taken) this.#gathering.give(buffer)
      this.#gathering.leave()
    }
  }

  async #writeOut(file: UploadFile, buffer: Buffer, length: number, position: number): Promise<void> {
    const pages = length - (length % PAGE)
    let written = 0
    if (this.#direct && pages >= DIRECT_BYTES && position % PAGE === 0 && this.#gathering.isAligned(buffer)) {
      // A file system may refuse only after it has made the file.
      if (this.#direct === 'untried') await file.open()
      this.#direct = await file.writeDirectly(buffer, pages, position)
      if (this.#direct) written = pages
    }
    if (written < length) await file.write(buffer, written, length - written, position + written)
  }

  /** Where the bytes that a state stands for are, if nobody else has gone on. */
  #pathOf(key: ObjectKey, state: UploadState): string {
    return state.placed === true ? join(this.#root, key) : this.#staged(uuidOf(key), tokenOf(state))
  }

  async #openNew(key: ObjectKey, path: string, offset: number, flags: number): Promise<number> {
    if (offset !== 0) throw new RangeError('an upload without state has no bytes')
    const { O_CREAT, O_EXCL, O_WRONLY } = constants
    try {
      return await openFile(path, O_CREAT | O_EXCL | O_WRONLY | flags, 0o640)
    } catch (error) {
      if (codeOf(error) === 'EEXIST') throw new UploadLost(key, 'another attempt has written it', { cause: error })
      throw asProblem(error)
    }
  }

  async #makeFolders() {
    await mkdir(join(this.#root, INCOMING), { recursive: true })
    const before = new Set(await readdir(join(this.#root, 'o')).catch(() => []))
    const missing = [...shards()].filter((shard) => !before.has(shard))
    // All at once and synced here, so that completing an object never makes a folder.
    for (const shard of missing) await mkdir(join(this.#root, 'o', shard), { recursive: true })
    if (missing.length > 0) {
      await this.#folders.sync(join(this.#root, 'o', 'any'))
      await this.#folders.sync(join(this.#root, 'o'))
    }
  }

  /** Takes the staged file of an upload over, so that no earlier writer can reach it, and opens it at `offset`. */
  async #claim(key: ObjectKey, from: UploadState, staged: string, offset: number): Promise<number> {
    try {
      await rename(this.#pathOf(key, from), staged)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw asProblem(error)
      await this.#takeOver(key, staged, offset)
    }
    const size = (await stat(staged)).size
    if (size < offset) throw new UploadLost(key, `${offset - size} of its ${offset} bytes are gone`)
    if (size > offset) await truncate(staged, offset)
    return openFile(staged, 'r+')
  }

  async #takeOver(key: ObjectKey, staged: string, offset: number) {
    const uuid = uuidOf(key)
    for (const token of await this.#tokens(uuid)) {
      const other = this.#staged(uuid, token)
      const found = await statOrNull(other)
      if (!found || found.size < offset) continue
      try {
        await copyFile(other, staged, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL)
        await unlinkIfThere(other)
        return
      } catch (error) {
        await unlinkIfThere(staged)
        if (codeOf(error) !== 'ENOENT') throw asProblem(error)
      }
    }
    throw new UploadLost(key, 'its file is gone')
  }

  /** The tokens under which bytes of an upload lie. */
  async #tokens(uuid: string): Promise<string[]> {
    const names = await readdir(join(this.#root, INCOMING))
    return names.filter((name) => name.startsWith(`${uuid}.`)).map((name) => name.slice(uuid.length + 1))
  }

  /** An upload that never got a byte has no file yet, unless it is complete. */
  async #openEmpty(key: ObjectKey, final: string, staged: string): Promise<number | null> {
    return (await statOrNull(final)) ? null : this.#openNew(key, staged, 0, 0)
  }

  /** After a failure the object goes: a folder's sync, too, reports an error once and would succeed the next time. */
  async #syncFolder(key: ObjectKey, final: string) {
    try {
      await this.#folders.sync(final)
    } catch (error) {
      await unlinkIfThere(final)
      throw new UploadLost(key, 'the disk refused its name', { cause: asProblem(error) })
    }
  }

  /** Of an object that was placed. @param named by an attempt that has synced the folder, too */
  async #requireComplete(key: ObjectKey, sizeBytes: number, named = false) {
    const final = join(this.#root, key)
    // At once: whoever asks has just written it or met it.
    const found = statSync(final, { throwIfNoEntry: false })
    if (!found) throw new UploadLost(key, 'its file is gone')
    if (found.size !== sizeBytes) throw new SizeMismatch(key, sizeBytes, found.size)
    if (!named) await this.#syncFolder(key, final)
  }

  async #syncAndClose(key: ObjectKey, fd: number, staged: string, sizeBytes: number) {
    try {
      const { size } = fstatSync(fd)
      if (size !== sizeBytes) throw new SizeMismatch(key, sizeBytes, size)
      await syncData(fd).catch(async (error: unknown) => {
        // The kernel reports a lost page once and then calls it clean, so a second sync would succeed on a damaged file.
        await unlinkIfThere(staged)
        throw new UploadLost(key, 'the disk refused its bytes', { cause: asProblem(error) })
      })
    } finally {
      // At once, as in send: what was to be written has been.
      closeSync(fd)
    }
  }

  async #openObject(key: ObjectKey): Promise<number> {
    try {
      return await openFile(join(this.#root, readable(key)), 'r')
    } catch (error) {
      if (codeOf(error) === 'ENOENT') throw new ObjectMissing(key, { cause: error })
      throw error
    }
  }
}

/** After a failed append: the file goes back under the name that the caller's state knows, or away. */
async function giveBack(path: string, previous: string | null, offset: number) {
  if (previous === null) return unlinkIfThere(path)
  try {
    await truncate(path, offset)
    await rename(path, previous)
  } catch (error) {
    // Taken over meanwhile: the upload is another writer's now.
    if (codeOf(error) !== 'ENOENT') throw error
  }
}

function tokenOf(state: UploadState): string {
  const token = state.token
  if (typeof token !== 'string' || !/^[0-9a-f-]{36}$/.test(token)) throw new TypeError('not the state of a file upload')
  return token
}

function* shards(): Generator<string> {
  for (let i = 0; i < 256; i += 1) yield i.toString(16).padStart(2, '0')
}
