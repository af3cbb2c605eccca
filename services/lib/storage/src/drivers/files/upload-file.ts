import { closeSync, constants } from 'node:fs'
import { closeFile, codeOf, openFile, writeFully } from './calls.ts'

/** The file that one append writes to, one buffer after the other. Whoever makes it closes it. */
export class UploadFile {
  readonly #path: string
  readonly #begin: (flags: number) => Promise<number>
  readonly #sync: number
  #fd: number | null = null
  #directFd: number | null = null

  /**
   * @param begin opens the file for writing, with these flags of open(2) besides, when it is to be there.
   * @param sync flags by which a write reaches the disk before it returns; 0: a sync of its own follows.
   */
  constructor(path: string, begin: (flags: number) => Promise<number>, sync: number) {
    this.#path = path
    this.#begin = begin
    this.#sync = sync
  }

  get isOpen(): boolean {
    return this.#fd !== null || this.#directFd !== null
  }

  async open(): Promise<number> {
    return (this.#fd ??= await this.#openAs(0))
  }

  /** Writes a part of the buffer. */
  async write(buffer: Buffer, from: number, length: number, position: number): Promise<void> {
    await writeFully(await this.open(), buffer, from, length, position)
  }

  /** As `write`, around the page cache: for whole pages. @returns false when the file system cannot, and nothing was written */
  async writeDirectly(buffer: Buffer, length: number, position: number): Promise<boolean> {
    try {
      this.#directFd ??= await this.#openAs(constants.O_DIRECT)
      await writeFully(this.#directFd, buffer, 0, length, position)
      return true
    } catch (error) {
      if (codeOf(error) === 'EINVAL') return false
      throw error
    }
  }

  async close(): Promise<void> {
    for (const fd of [this.#fd, this.#directFd]) {
      if (fd === null) continue
      // At once where nothing is left to be written.
      if (this.#sync !== 0) closeSync(fd)
      else await closeFile(fd)
    }
  }

  #openAs(flags: number): Promise<number> {
    return this.isOpen ? openFile(this.#path, constants.O_WRONLY | this.#sync | flags) : this.#begin(flags)
  }
}
