import { open, type FileHandle } from 'node:fs/promises'
import { dirname } from 'node:path'

interface Folder {
  readonly handle: Promise<FileHandle>
  running: Promise<void> | null
  next: Promise<void> | null
}

/**
 * Makes renames durable. Whoever asks while a sync of the same folder runs shares the next one with all others who ask in that
 * time: the running one may have started before their rename. Folders stay open, one descriptor each.
 */
export class FolderSync implements AsyncDisposable {
  readonly #folders = new Map<string, Folder>()

  /** Resolves when the entry `path` of its folder would survive a power cut. */
  async sync(path: string): Promise<void> {
    const name = dirname(path)
    let folder = this.#folders.get(name)
    if (!folder) {
      folder = { handle: open(name, 'r'), running: null, next: null }
      this.#folders.set(name, folder)
      folder.handle.catch(() => this.#folders.delete(name))
    }
    if (!folder.running) return this.#run(folder)
    const { running } = folder
    folder.next ??= running.then(
      () => this.#run(folder),
      () => this.#run(folder),
    )
    return folder.next
  }

  async [Symbol.asyncDispose]() {
    const folders = [...this.#folders.values()]
    this.#folders.clear()
    await Promise.all(folders.map(async ({ handle }) => (await handle).close()))
  }

  #run(folder: Folder): Promise<void> {
    folder.next = null
    const run = folder.handle
      .then((handle) => handle.sync())
      .finally(() => {
        if (folder.running === run) folder.running = null
      })
    folder.running = run
    return run
  }
}
