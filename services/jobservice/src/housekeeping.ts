/** Work that is due again and again, in any number of processes: each run must stand being done twice at once. */
export type Chore = {
  name: string
  everyMs: number
  run(signal: AbortSignal): Promise<unknown>
}

/** Runs each chore at its pace, beginning at once; one that fails is told of and tried again at its next time. */
export class Housekeeping implements AsyncDisposable {
  readonly #chores: readonly Chore[]
  readonly #onFailure: (failure: Error) => void
  readonly #stop = new AbortController()
  readonly #timers = new Map<Chore, NodeJS.Timeout>()
  readonly #running = new Map<Chore, Promise<void>>()

  constructor(chores: readonly Chore[], onFailure: (failure: Error) => void) {
    this.#chores = chores
    this.#onFailure = onFailure
  }

  start(): void {
    for (const chore of this.#chores) this.#running.set(chore, this.#round(chore))
  }

  async #round(chore: Chore): Promise<void> {
    const { signal } = this.#stop
    try {
      await chore.run(signal)
    } catch (cause) {
      if (!signal.aborted) this.#onFailure(new Error(chore.name, { cause }))
    }
    if (signal.aborted) return
    const timer = setTimeout(() => this.#running.set(chore, this.#round(chore)), chore.everyMs)
    this.#timers.set(chore, timer)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('going down'))
    for (const timer of this.#timers.values()) clearTimeout(timer)
    await Promise.all(this.#running.values())
  }
}
