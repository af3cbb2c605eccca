import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { Errand, Forwarder } from './forward.ts'

type Controller = Dispatcher.DispatchController

/** What undici tells of a request without a body, brought to the client as it comes. */
export class WithoutBody implements Dispatcher.DispatchHandler {
  readonly #forwarder: Forwarder
  readonly #errand: Errand
  #copied = false

  constructor(forwarder: Forwarder, errand: Errand) {
    this.#forwarder = forwarder
    this.#errand = errand
  }

  onRequestStart(controller: Controller): void {
    const { res } = this.#errand
    const leave = () => {
      if (!res.writableFinished) controller.abort(new Error('the client went away'))
    }
    // It may have gone while the request waited for a connection.
    if (res.destroyed) leave()
    else res.once('close', leave)
  }

  onResponseStart(controller: Controller, status: number, headers: IncomingHttpHeaders): void {
    // What comes before the answer says nothing that a client needs.
    if (status < 200) return
    const rawHeaders = (controller.rawHeaders as Buffer[]).map((each) => each.toString('latin1'))
    this.#copied = this.#forwarder.answered(this.#errand, { status, headers, rawHeaders })
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    const { res } = this.#errand
    if (!this.#copied || res.write(chunk)) return
    controller.pause()
    res.once('drain', () => controller.resume())
  }

  onResponseEnd(): void {
    if (this.#copied) this.#errand.res.end()
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.#forwarder.failed(this.#errand, error)
  }
}
