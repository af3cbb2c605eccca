import { setTimeout as sleep } from 'node:timers/promises'
import { problems } from '@haven/errors'

/** What the store answered instead of what was asked for. */
export class S3Failure extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string, options?: ErrorOptions) {
    super(`the store answered ${status} ${code}${message === '' ? '' : `: ${message}`}`, options)
    this.name = 'S3Failure'
    this.status = status
    this.code = code
  }
}

const transientStatus = new Set([408, 429, 500, 502, 503, 504])
const transientCode = new Set(
  (
    'InternalError SlowDown ServiceUnavailable RequestTimeout OperationAborted ' +
    'ECONNRESET ECONNREFUSED ETIMEDOUT EPIPE EAI_AGAIN EHOSTUNREACH ENETUNREACH HPE_INVALID_CONSTANT'
  ).split(' '),
)
const fullCode = new Set([
  'XMinioStorageFull',
  'InsufficientStorage',
  'QuotaExceeded',
  'XMinioAdminBucketQuotaExceeded',
])

/** An error of the `minio` package, which has a code or only a text, in our terms. */
export function failureOf(error: unknown): Error {
  if (error instanceof S3Failure) return error
  // An error document after 200, as minio throws it.
  if (!(error instanceof Error)) return new S3Failure(200, codeOf(error) || 'InternalError', '', { cause: error })
  const status = Number(/Retryable HTTP status: (\d+)/.exec(error.message)?.[1] ?? NaN)
  if (!Number.isNaN(status))
    return new S3Failure(status, status === 503 ? 'SlowDown' : 'InternalError', '', { cause: error })
  const code = codeOf(error)
  const isAnswer = /^(?=.*[a-z])[A-Z][A-Za-z]+$/.test(code)
  return isAnswer
    ? new S3Failure(code.startsWith('NoSuch') || code === 'NotFound' ? 404 : 400, code, error.message, { cause: error })
    : error
}

export function codeOf(error: unknown): string {
  const known = error as { code?: unknown; Code?: unknown } | null
  return String(known?.code ?? known?.Code ?? '')
}

/** Whether asking again may help. */
export function isTransient(error: unknown): boolean {
  return transientCode.has(codeOf(error)) || (error instanceof S3Failure && transientStatus.has(error.status))
}

export interface RetryPolicy {
  readonly attempts: number
  readonly baseDelayMs: number
  readonly maxDelayMs: number
}

/**
 * Runs `operation` until it succeeds or fails for good, with exponential back-off and full jitter. `settled` is asked before a
 * repetition whether the failed attempt took effect after all; its answer then counts.
 */
export async function retrying<T>(
  policy: RetryPolicy,
  operation: (attempt: number) => Promise<T>,
  { signal, settled }: { signal?: AbortSignal | undefined; settled?: (error: Error) => Promise<T | null> } = {},
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    signal?.throwIfAborted()
    try {
      return await operation(attempt)
    } catch (thrown) {
      const error = failureOf(thrown)
      signal?.throwIfAborted()
      const outcome = await settled?.(error)
      if (outcome !== null && outcome !== undefined) return outcome
      if (!isTransient(error) || attempt >= policy.attempts) throw asProblem(error)
    }
    const ceiling = Math.min(policy.maxDelayMs, policy.baseDelayMs * 2 ** (attempt - 1))
    await sleep(Math.random() * ceiling, undefined, signal && { signal })
  }
}

function asProblem(error: Error): Error {
  if (fullCode.has(codeOf(error)) || (error instanceof S3Failure && error.status === 507)) {
    return problems.diskFull({ reason: 'the blob store is full' }, { cause: error })
  }
  if (!isTransient(error)) return error
  return problems.serviceUnavailable(
    { message: 'the blob store does not answer as it should', retryAfterSeconds: 5 },
    { cause: error },
  )
}
