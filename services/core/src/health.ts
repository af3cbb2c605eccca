import { toProblem } from '@haven/errors'

export type Component = { name: string; status: 'healthy' | 'unhealthy'; error?: string }

const MAX_AGE_MS = 1_000
const CHECK_MS = 5_000

/** Asks every component, at most once a second however many clients want to know. */
export class PlatformHealth {
  readonly #checks: Readonly<Record<string, () => Promise<void>>>
  #last: { at: number; answer: Promise<Component[]> } | null = null

  constructor(checks: Readonly<Record<string, () => Promise<void>>>) {
    this.#checks = checks
  }

  components(): Promise<Component[]> {
    const now = performance.now()
    if (!this.#last || now - this.#last.at > MAX_AGE_MS) this.#last = { at: now, answer: this.#ask() }
    return this.#last.answer
  }

  #ask(): Promise<Component[]> {
    const names = ['core', ...Object.keys(this.#checks)].sort()
    return Promise.all(names.map((name) => this.#askOne(name)))
  }

  async #askOne(name: string): Promise<Component> {
    const check = this.#checks[name]
    if (!check) return { name, status: 'healthy' } // ourselves: we are answering
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(reject, CHECK_MS, new Error(`no answer within ${CHECK_MS / 1000} s`))
    })
    try {
      await Promise.race([check(), late])
      return { name, status: 'healthy' }
    } catch (error) {
      // A Problem's text may be shown; what else was thrown may hold addresses.
      const problem = toProblem(error)
      return { name, status: 'unhealthy', error: problem.status === 500 ? 'not reachable' : problem.message }
    } finally {
      clearTimeout(timer)
    }
  }
}
