import { closeSync, constants } from 'node:fs'
import { closeFile, codeOf, openFile, writeFully } from './calls.ts'

/** The file that one append writes to, one buffer after the other. Whoever makes it closes it. */
export class UploadFile {
  readonly #path: string
  readonly #begin: () => Promise<number>
  readonly #sync: number
  #fd: number | null = null
  #directFd: number | null = null

  /**
   * @param begin opens the file for writing, when it is to be there.
   * @param sync flags of open(2) by which a write reaches the disk before it returns; 0: a sync of its own follows.
   */
  constructor(path: string, begin: () => Promise<number>, sync: number) {
    this.#path = path
    this.#begin = begin
    this.#sync = sync
  }

  get isOpen(): boolean {
    return this.#fd !== null
  }

  async open(): Promise<number> {
    return (this.#fd ??= await this.#begin())
  }

  async write(buffer: Buffer, length: number, position: number): Promise<void> {
    await writeFully(await this.open(), buffer, length, position)
  }

  /** As `write`, around the page cache: for whole pages. @returns false when the file system cannot, and nothing was written */
  async writeDirectly(buffer: Buffer, position: number): Promise<boolean> {
    await this.open()
    try {
      this.#directFd ??= await openFile(this.#path, constants.O_WRONLY | constants.O_DIRECT | this.#sync)
      await writeFully(this.#directFd, buffer, buffer.length, position)
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
}
