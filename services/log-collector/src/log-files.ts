import { constants, createReadStream, createWriteStream } from 'node:fs'
import { access, mkdir, open, readdir, rename, stat, unlink, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { problems } from '@haven/errors'
import type { Logger } from '@haven/runtime'
import { isServiceName } from './line.ts'

export interface RotationRules {
  /** A file of this size is rotated. */
  readonly maxFileBytes: number
  /** And one of this age. */
  readonly maxAgeMs: number
  /** Rotated files kept for each service. */
  readonly keep: number
  /** Rotated files of all services together; the oldest go first. */
  readonly maxTotalBytes: number
}

/** One file of a service. `endedAt` is null for the one that is written to. */
export interface LogFile {
  readonly path: string
  readonly service: string
  readonly endedAt: Date | null
  readonly compressed: boolean
}

// More services than we have: one that is asked to write under ever new names must not exhaust descriptors.
const MAX_SERVICES = 64
const MAX_PENDING_BYTES = 16 * 1024 * 1024
const AGE_CHECK_MS = 30_000

/** `<service>.log`, and `<service>.<end in UTC>.log.gz` of earlier times, in one folder. */
export class LogFiles implements AsyncDisposable {
  readonly folder: string
  readonly #rules: RotationRules
  readonly #log: Logger
  readonly #writers = new Map<string, ServiceFile>()
  readonly #timer: NodeJS.Timeout
  #tidying: Promise<void> = Promise.resolve()

  private constructor(folder: string, rules: RotationRules, log: Logger) {
    this.folder = folder
    this.#rules = rules
    this.#log = log
    this.#timer = setInterval(() => {
      for (const writer of this.#writers.values())
        writer.append('').catch((err: unknown) => log.error({ err }, 'rotation failed'))
    }, AGE_CHECK_MS)
    this.#timer.unref()
  }

  /** Opens the folder, making it when it is missing, and finishes what an earlier process left half done. */
  static async open(folder: string, rules: RotationRules, log: Logger): Promise<LogFiles> {
    await mkdir(folder, { recursive: true, mode: 0o750 })
    const files = new LogFiles(folder, rules, log)
    files.#tidy()
    return files
  }

  /**
   * Appends text that ends with a line break to the file of a service. Resolves when the system has it.
   * @throws problems.diskFull, problems.tooManyRequests when the disk cannot follow
   */
  append(service: string, text: string): Promise<void> {
    if (!isServiceName(service)) throw new TypeError(`not the name of a service: ${JSON.stringify(service)}`)
    const name = this.#writers.has(service) || this.#writers.size < MAX_SERVICES ? service : 'unreadable'
    let writer = this.#writers.get(name)
    if (!writer) {
      writer = new ServiceFile(this.folder, name, this.#rules, () => this.#tidy())
      this.#writers.set(name, writer)
    }
    return writer.append(text)
  }

  /** @throws problems.storageUnreachable when the folder cannot be written to */
  async check(): Promise<void> {
    try {
      await access(this.folder, constants.W_OK)
    } catch (cause) {
      const reason = `the folder of the logs: ${(cause as NodeJS.ErrnoException).code}`
      throw problems.storageUnreachable({ reason }, { cause })
    }
  }

  /** Names of the services that have files. */
  async services(): Promise<string[]> {
    return [...new Set((await this.list()).map(({ service }) => service))].sort()
  }

  /** All files, of each service the newest first. */
  async list(): Promise<LogFile[]> {
    const found: LogFile[] = []
    const names = new Set(await readdir(this.folder))
    for (const name of names) {
      const match = /^([a-z][a-z0-9-]{0,31})(?:\.(\d{8}T\d{9}Z))?\.log(\.gz)?$/.exec(name)
      if (!match) continue
      const [, service, ended, gz] = match
      if (ended === undefined && gz !== undefined) continue
      // Between the end of its compression and its removal a file stands there twice.
      if (gz === undefined && names.has(`${name}.gz`)) continue
      const endedAt = ended === undefined ? null : parseStamp(ended)
      found.push({ path: join(this.folder, name), service: service!, endedAt, compressed: gz !== undefined })
    }
    const end = (file: LogFile) => file.endedAt?.getTime() ?? Infinity
    return found.sort((a, b) => (a.service === b.service ? compare(end(b), end(a)) : a.service < b.service ? -1 : 1))
  }

  /** Resolves when compression and deletion of old files have caught up. */
  async settled(): Promise<void> {
    let seen: Promise<void>
    do {
      seen = this.#tidying
      await seen
    } while (seen !== this.#tidying)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all([...this.#writers.values()].map((writer) => writer.close()))
    await this.settled()
  }

  #tidy(): void {
    this.#tidying = this.#tidying
      .then(() => this.#compressAndDrop())
      .catch((err: unknown) => this.#log.error({ err }, 'old log files could not be tidied'))
  }

  async #compressAndDrop(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      if (name.endsWith('.gz.part')) await removeFile(join(this.folder, name))
    }
    for (const file of await this.list()) {
      if (file.endedAt !== null && !file.compressed) await compressFile(file.path)
    }
    const rotated = (await this.list()).filter(({ endedAt }) => endedAt !== null)
    const perService = new Map<string, number>()
    const kept: { file: LogFile; bytes: number }[] = []
    for (const file of rotated) {
      const count = (perService.get(file.service) ?? 0) + 1
      perService.set(file.service, count)
      if (count > this.#rules.keep) await removeFile(file.path)
      else kept.push({ file, bytes: (await stat(file.path)).size })
    }
    let total = kept.reduce((sum, { bytes }) => sum + bytes, 0)
    kept.sort((a, b) => a.file.endedAt!.getTime() - b.file.endedAt!.getTime())
    for (const { file, bytes } of kept) {
      if (total <= this.#rules.maxTotalBytes) break
      await removeFile(file.path)
      total -= bytes
    }
  }
}

interface Waiter {
  readonly text: string
  readonly done: (error: unknown) => void
}

/** The file of one service: writes in order, joined while one is under way. */
class ServiceFile {
  readonly #folder: string
  readonly #service: string
  readonly #rules: RotationRules
  readonly #rotated: () => void
  #handle: FileHandle | null = null
  #bytes = 0
  #since = 0
  #waiting: Waiter[] = []
  #pendingBytes = 0
  #busy = false
  #writing: Promise<void> = Promise.resolve()

  constructor(folder: string, service: string, rules: RotationRules, rotated: () => void) {
    this.#folder = folder
    this.#service = service
    this.#rules = rules
    this.#rotated = rotated
  }

  append(text: string): Promise<void> {
    if (this.#pendingBytes > MAX_PENDING_BYTES) {
      return Promise.reject(problems.tooManyRequests({ retryAfterSeconds: 1, message: 'the disk cannot follow' }))
    }
    this.#pendingBytes += text.length
    return new Promise((resolve, reject) => {
      this.#waiting.push({ text, done: (error) => (error === null ? resolve() : reject(error)) })
      if (!this.#busy) this.#writing = this.#writeAll()
    })
  }

  async close(): Promise<void> {
    while (this.#busy) await this.#writing
    await this.#handle?.close()
    this.#handle = null
  }

  async #writeAll(): Promise<void> {
    this.#busy = true
    while (this.#waiting.length > 0) {
      const batch = this.#waiting
      this.#waiting = []
      let failure: unknown = null
      try {
        await this.#write(Buffer.from(batch.map(({ text }) => text).join('')))
      } catch (error) {
        failure = asProblem(error)
      }
      for (const { text, done } of batch) {
        this.#pendingBytes -= text.length
        done(failure)
      }
    }
    // In the turn that saw nothing waiting: a caller that was just told may append before any continuation of ours.
    this.#busy = false
  }

  async #write(bytes: Buffer): Promise<void> {
    this.#handle ??= await this.#openFile()
    const { maxFileBytes, maxAgeMs } = this.#rules
    const due = this.#bytes + bytes.length > maxFileBytes || Date.now() - this.#since > maxAgeMs
    if (due && this.#bytes > 0) await this.#rotate()
    if (bytes.length === 0) return
    const start = this.#bytes
    try {
      await this.#handle.appendFile(bytes)
      this.#bytes += bytes.length
    } catch (error) {
      // A disk that filled up in the middle would leave half a line for the next to continue.
      await this.#handle.truncate(start).catch(() => this.#reopen())
      throw error
    }
  }

  async #openFile(): Promise<FileHandle> {
    const handle = await open(this.#path, 'a', 0o640)
    const { size, birthtimeMs, mtimeMs } = await handle.stat()
    this.#bytes = size
    this.#since = size === 0 ? Date.now() : Math.min(birthtimeMs || mtimeMs, mtimeMs)
    return handle
  }

  async #reopen(): Promise<void> {
    await this.#handle?.close()
    this.#handle = null
  }

  async #rotate(): Promise<void> {
    await this.#reopen()
    await rename(this.#path, join(this.#folder, `${this.#service}.${stampOf(nextInstant())}.log`))
    this.#handle = await this.#openFile()
    this.#rotated()
  }

  get #path(): string {
    return join(this.#folder, `${this.#service}.log`)
  }
}

let lastInstant = 0
/** The time in milliseconds, never twice the same: it names files. */
function nextInstant(): Date {
  lastInstant = Math.max(Date.now(), lastInstant + 1)
  return new Date(lastInstant)
}

const stampOf = (date: Date) => date.toISOString().replaceAll(/[-:.]/g, '')

function parseStamp(stamp: string): Date {
  return new Date(stamp.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)(\d{3})Z$/, '$1-$2-$3T$4:$5:$6.$7Z'))
}

async function compressFile(path: string): Promise<void> {
  const part = `${path}.gz.part`
  await pipeline(createReadStream(path), createGzip({ level: 6 }), createWriteStream(part, { mode: 0o640 }))
  await rename(part, `${path}.gz`)
  await removeFile(path)
}

async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function asProblem(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? problems.diskFull({ reason: 'the folder of the logs is full' }, { cause: error })
    : error
}

const compare = (a: number, b: number) => (a === b ? 0 : a < b ? -1 : 1)
