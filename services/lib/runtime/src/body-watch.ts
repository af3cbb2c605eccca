import type { IncomingMessage, ServerResponse } from 'node:http'
import { problems } from '@haven/errors'
import { awaitsReader } from './body-intake.ts'
import type { Limits } from './limits.ts'
import { answerPlainly } from './plain-answers.ts'

interface OpenBody {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly upload: boolean
  windowStart: number
  windowBytes: number
}

type BodyLimits = Pick<Limits, 'bodyTimeoutMs' | 'uploadRate' | 'isUpload'>

/** Answers 408 to a request whose body does not come: an upload slower than its rate, any other that takes longer than its time. */
export class BodyWatch implements Disposable {
  readonly #limits: BodyLimits
  readonly #open = new Set<OpenBody>()
  readonly #timer: NodeJS.Timeout

  constructor(limits: BodyLimits) {
    this.#limits = limits
    // Often enough to be late by no more than a quarter, or a second.
    const everyMs = Math.max(20, Math.min(limits.bodyTimeoutMs, limits.uploadRate.windowMs, 4_000) / 4)
    this.#timer = setInterval(() => this.#look(), everyMs)
    this.#timer.unref()
  }

  add(req: IncomingMessage, res: ServerResponse): void {
    const upload = this.#limits.isUpload(req)
    this.#open.add({ req, res, upload, windowStart: Date.now(), windowBytes: req.socket.bytesRead })
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const { bodyTimeoutMs, uploadRate } = this.#limits
    const now = Date.now()
    for (const open of this.#open) {
      const { req, res, upload } = open
      const { socket } = req
      if (req.complete || socket.destroyed) {
        this.#open.delete(open)
        continue
      }
      const elapsed = now - open.windowStart
      // Bytes that the handler has not asked for: the pace is ours.
      if (!awaitsReader(req)) {
        if (elapsed < (upload ? uploadRate.windowMs : bodyTimeoutMs)) continue
        const received = socket.bytesRead - open.windowBytes
        if (!upload || received < (uploadRate.bytesPerSecond * elapsed) / 1000) {
          this.#open.delete(open)
          refuse(req, res)
          continue
        }
      }
      open.windowStart = now
      open.windowBytes = socket.bytesRead
    }
  }
}

function refuse(req: IncomingMessage, res: ServerResponse): void {
  if (res.headersSent) {
    req.socket.destroy()
    return
  }
  res.once('finish', () => req.destroy(problems.requestTimeout()))
  answerPlainly(res, 408)
}
