import {
  createServer,
  request,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { errorDocument, operationOf, S3Faults, type S3Fault, type S3Operation } from './s3-faults.ts'

/** One request that came by. Bytes of objects only: what is said in XML does not count. */
export type S3Request = {
  readonly operation: S3Operation
  readonly key: string
  readonly bytesIn: number
  /** `x-amz-copy-source`: bytes that the store copied inside itself. */
  readonly copies: boolean
  readonly status: number | null
}

type Answer = { status: number; headers: IncomingHttpHeaders; body: Buffer }

const DRIP_BYTES = 16
const DRIP_MS = 100

/** Stands before a real S3 server, counts what is asked of it, and spoils what it is told to. Signatures pass, since the Host header does. */
export class S3Proxy extends S3Faults implements AsyncDisposable {
  /** Every request since the last `reset`. */
  readonly seen: S3Request[] = []
  /** Where the real server is; a test may put another in its place. */
  target: string
  readonly #dripping = new Set<NodeJS.Timeout>()
  readonly #listener: RequestListener = (req, res) => {
    this.#serve(req, res).catch(() => res.destroy()) // whoever asked has left, or the server has: both see a broken connection
  }
  readonly #server = createServer(this.#listener)

  private constructor(target: string) {
    super()
    this.target = target
  }

  static async start(target: string): Promise<S3Proxy> {
    const proxy = new S3Proxy(target)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.port}`
  }

  override reset(): void {
    super.reset()
    this.seen.length = 0
  }

  async [Symbol.asyncDispose]() {
    for (const timer of this.#dripping) clearInterval(timer)
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #serve(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = new URL(req.url ?? '/', 'http://s3')
    const [, , ...rest] = url.pathname.split('/').map(decodeURIComponent)
    const key = rest.join('/')
    const operation = operationOf(req.method ?? '', key, url.searchParams)
    this.count(operation)
    const fault = this.nextFault(operation)
    const sent = await buffer(req)
    const note = (status: number | null) =>
      this.seen.push({ operation, key, bytesIn: sent.length, copies: 'x-amz-copy-source' in req.headers, status })

    const instead = insteadOf(fault, operation)
    if (instead === 'silence') return void note(null)
    if (instead === 'hang up') {
      note(null)
      return void res.destroy()
    }
    if (instead) {
      note(instead.status)
      return send(res, req.method, instead)
    }
    const answer = await this.#forward(req, sent)
    note(answer.status)
    switch (fault) {
      case 'error after':
        return send(res, req.method, refusal(500, 'InternalError'))
      case 'silence after':
        return
      case 'hang up after':
        return void res.destroy()
      case 'truncated':
        res.writeHead(answer.status, answer.headers)
        return void res.write(answer.body.subarray(0, answer.body.length / 2), () => res.destroy())
      case 'drip':
        return this.#drip(res, answer)
      case 'wrong etag':
        return send(res, req.method, withWrongEtag(answer))
      default:
        return send(res, req.method, answer)
    }
  }

  #forward(req: IncomingMessage, body: Buffer): Promise<Answer> {
    const { hostname, port } = new URL(this.target)
    return new Promise((resolve, reject) => {
      const { 'transfer-encoding': _, ...headers } = req.headers
      const onward = request({
        hostname,
        port,
        method: req.method,
        path: req.url,
        headers: { ...headers, 'content-length': body.length },
        setHost: false,
      })
      onward.once('error', reject)
      onward.once('response', (response) => {
        const {
          statusCode: status = 502,
          headers: { 'transfer-encoding': __, ...kept },
        } = response
        buffer(response).then((received) => resolve({ status, headers: kept, body: received }), reject)
      })
      onward.end(body)
    })
  }

  #drip(res: ServerResponse, { status, headers, body }: Answer): void {
    res.writeHead(status, headers)
    let at = 0
    const timer = setInterval(() => {
      if (at < body.length && !res.destroyed) res.write(body.subarray(at, (at += DRIP_BYTES)))
      else res.end()
    }, DRIP_MS)
    this.#dripping.add(timer)
    res.once('close', () => {
      clearInterval(timer)
      this.#dripping.delete(timer)
    })
  }
}

/** What is answered without asking the store; null when it is to be asked. */
function insteadOf(fault: S3Fault | null, operation: S3Operation): Answer | 'silence' | 'hang up' | null {
  switch (fault) {
    case 'slow down':
      return refusal(503, 'SlowDown')
    case 'error before':
      return refusal(500, 'InternalError')
    case 'error in 200':
      return refusal(200, 'InternalError')
    case 'full':
      return refusal(507, 'XMinioStorageFull')
    case 'silence before':
      return 'silence'
    case 'hang up before':
      return 'hang up'
    case 'empty': {
      const root = operation === 'ListMultipartUploads' ? 'ListMultipartUploadsResult' : 'ListBucketResult'
      return document(200, `<${root}><IsTruncated>false</IsTruncated></${root}>`)
    }
    default:
      return null
  }
}

const refusal = (status: number, code: string) => document(status, errorDocument(code))

const document = (status: number, text: string): Answer => ({
  status,
  headers: { 'content-type': 'application/xml' },
  body: Buffer.from(text),
})

function withWrongEtag({ status, headers, body }: Answer): Answer {
  const wrong = '0'.repeat(32)
  const text = body.toString('latin1').replace(/(?<=<ETag>).*?(?=<)/, `&quot;${wrong}-1&quot;`)
  return { status, headers: { ...headers, etag: `"${wrong}"` }, body: Buffer.from(text, 'latin1') }
}

function send(res: ServerResponse, method: string | undefined, { status, headers, body }: Answer): void {
  // The length of a HEAD's answer is that of a body it does not have.
  res.writeHead(status, method === 'HEAD' ? headers : { ...headers, 'content-length': body.length })
  res.end(method === 'HEAD' ? undefined : body)
}
