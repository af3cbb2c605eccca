import { problems, type Problem } from '@haven/errors'
import { algorithmOf, parseDigest, type Digest } from '@haven/oci'
import { textOf, type OutboundResponse } from '@haven/outbound'

/** What every failure of the other side becomes. The reason is ours: nothing of the answer but its status is repeated (threats.md R11). */
export function failed(url: URL, reason: string, status?: number): Problem {
  const facts = { host: url.host, reason, ...(status !== undefined && { status }) }
  return problems.outboundFailed(facts)
}

/** The status with which a registry refused, of a problem of this client; undefined when it was no refusal. */
export function upstreamStatus(error: unknown): number | undefined {
  return problems.outboundFailed.is(error) && typeof error.facts.status === 'number' ? error.facts.status : undefined
}

const REASONS: Record<number, string> = {
  401: 'it wants another credential',
  403: 'it does not allow this',
  404: 'it does not know what was asked for',
  405: 'it does not offer this',
  413: 'it takes nothing of this size',
  429: 'it is asked too often',
}

/** Closes the connection and says why the answer is of no use. */
export function refusal({ url, status, body }: OutboundResponse): Problem {
  body.destroy()
  return failed(url, REASONS[status] ?? `it answered ${status}`, status)
}

/** The answer when its status is one of these. @throws problems.outboundFailed */
export function expectStatus(answer: OutboundResponse, ...statuses: number[]): OutboundResponse {
  if (!statuses.includes(answer.status)) throw refusal(answer)
  return answer
}

/** Ends an answer of which only the head matters. */
export function headOf(answer: OutboundResponse): OutboundResponse {
  answer.body.destroy()
  return answer
}

/** A JSON object. @throws problems.outboundFailed for anything else. */
export async function objectOf(answer: OutboundResponse): Promise<Record<string, unknown>> {
  const text = await textOf(answer)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw failed(answer.url, 'its answer is no JSON')
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw failed(answer.url, 'its answer is no JSON object')
  return value as Record<string, unknown>
}

export function headerOf({ headers }: OutboundResponse, name: string): string | undefined {
  const value = headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** Content-Length, null when there is none. */
export function lengthOf(answer: OutboundResponse): number | null {
  const text = headerOf(answer, 'content-length') ?? ''
  return /^\d{1,15}$/.test(text) ? Number(text) : null
}

/** `Docker-Content-Digest`, null when there is none that can be read. */
export function digestHeader(answer: OutboundResponse): Digest | null {
  return parseDigest(headerOf(answer, 'docker-content-digest') ?? '')
}

/**
 * Compares what the answer calls a content with what it is (threats.md A83). One of another algorithm says nothing: Distribution answers
 * the sha256 of what was pushed by sha512.
 */
export function checkDigestHeader(answer: OutboundResponse, expected: Digest) {
  const said = digestHeader(answer)
  if (said !== null && algorithmOf(said) === algorithmOf(expected) && said !== expected) {
    answer.body.destroy()
    throw failed(answer.url, 'its digest is not that of the content')
  }
}
