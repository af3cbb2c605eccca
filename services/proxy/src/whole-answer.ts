import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { Answer, WholeReply } from './forward.ts'

type Controller = Dispatcher.DispatchController

/** Twice the longest manifest (clients.md §1). */
const MAX_BYTES = 8 * 1024 * 1024

/** Takes an answer that is short as a whole from undici. Null when there is none, or it is long after all. */
export class WholeAnswer implements Dispatcher.DispatchHandler {
  readonly #resolve: (answer: WholeReply | null) => void
  #answer: Answer | null = null
  #pieces: Buffer[] = []
  #bytes = 0

  constructor(resolve: (answer: WholeReply | null) => void) {
    this.#resolve = resolve
  }

  onRequestStart(): void {}

  onResponseStart(controller: Controller, status: number, headers: IncomingHttpHeaders): void {
    // What comes before the answer says nothing that a client needs.
    if (status < 200) return
    const rawHeaders = (controller.rawHeaders as Buffer[]).map((each) => each.toString('latin1'))
    this.#answer = { status, headers, rawHeaders }
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#pieces.push(chunk)
    this.#bytes += chunk.length
    if (this.#bytes > MAX_BYTES) controller.abort(new Error('the answer is not short'))
  }

  onResponseEnd(): void {
    const body = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces)
    this.#resolve(this.#answer && { ...this.#answer, body })
  }

  onResponseError(): void {
    this.#resolve(null)
  }
}
