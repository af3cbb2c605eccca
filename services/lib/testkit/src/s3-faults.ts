/** What a request to S3 is, by the names of its manual. */
export type S3Operation =
  | 'HeadBucket'
  | 'CreateBucket'
  | 'ListObjectsV2'
  | 'ListMultipartUploads'
  | 'DeleteObjects'
  | 'PutObject'
  | 'GetObject'
  | 'HeadObject'
  | 'DeleteObject'
  | 'CreateMultipartUpload'
  | 'UploadPart'
  | 'CompleteMultipartUpload'
  | 'AbortMultipartUpload'

/**
 * How a request goes wrong. `after`: the store did what was asked and says that it did not, or nothing at all. The last three only at the proxy:
 * no room, a listing that shows nothing, an answer at a few bytes a second.
 */
export type S3Fault =
  | 'slow down'
  | 'error before'
  | 'error after'
  | 'silence before'
  | 'silence after'
  | 'hang up before'
  | 'hang up after'
  | 'truncated'
  | 'wrong etag'
  | 'error in 200'
  | 'full'
  | 'empty'
  | 'drip'

/** Which of the coming requests fail, and a count of all. */
export class S3Faults {
  /** Requests by operation since the last `reset`. */
  readonly requests = new Map<S3Operation, number>()
  /** Failures that were brought about since the last `reset`. */
  failures = 0
  /** Part of the requests that fail by chance, before anything is applied or after. */
  chance = { slowDown: 0, errorBefore: 0, errorAfter: 0 }
  readonly #faults: { operation: S3Operation; fault: S3Fault; skip: number; times: number }[] = []

  get total(): number {
    return [...this.requests.values()].reduce((sum, count) => sum + count, 0)
  }

  /** Lets the next requests of an operation fail, behind `skip` that go well. Faults of one operation come in the order in which they were given. */
  fail(operation: S3Operation, fault: S3Fault, times = 1, skip = 0): void {
    this.#faults.push({ operation, fault, times, skip })
  }

  reset(): void {
    this.requests.clear()
    this.failures = 0
    this.#faults.length = 0
    this.chance = { slowDown: 0, errorBefore: 0, errorAfter: 0 }
  }

  protected count(operation: S3Operation): void {
    this.requests.set(operation, (this.requests.get(operation) ?? 0) + 1)
  }

  protected nextFault(operation: S3Operation): S3Fault | null {
    const fault = this.#planned(operation) ?? this.#drawn()
    if (fault) this.failures += 1
    return fault
  }

  #planned(operation: S3Operation): S3Fault | null {
    const next = this.#faults.find((fault) => fault.operation === operation && fault.times > 0)
    if (!next) return null
    if (next.skip > 0) {
      next.skip -= 1
      return null
    }
    next.times -= 1
    return next.fault
  }

  #drawn(): S3Fault | null {
    const drawn = Math.random()
    const { slowDown, errorBefore, errorAfter } = this.chance
    if (drawn < slowDown) return 'slow down'
    if (drawn < slowDown + errorBefore) return 'error before'
    return drawn < slowDown + errorBefore + errorAfter ? 'error after' : null
  }
}

/** Path style. */
export function operationOf(method: string, key: string, query: URLSearchParams): S3Operation {
  if (key === '') {
    if (method === 'HEAD') return 'HeadBucket'
    if (method === 'PUT') return 'CreateBucket'
    if (method === 'POST') return 'DeleteObjects'
    return query.has('uploads') ? 'ListMultipartUploads' : 'ListObjectsV2'
  }
  if (method === 'POST') return query.has('uploads') ? 'CreateMultipartUpload' : 'CompleteMultipartUpload'
  if (method === 'PUT') return query.has('partNumber') ? 'UploadPart' : 'PutObject'
  if (method === 'DELETE') return query.has('uploadId') ? 'AbortMultipartUpload' : 'DeleteObject'
  return method === 'HEAD' ? 'HeadObject' : 'GetObject'
}

export function errorDocument(code: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>as the test wants it</Message></Error>`
}
