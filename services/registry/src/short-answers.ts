import { findManifest, knownBlob, type FoundManifest } from '@haven/artifacts'
import { TwoGenerations } from '@haven/db'
import { isUnavailable, ociEnvelope, toProblem } from '@haven/errors'
import { canonicalPath, parseRegistryPath, type RegistryPath } from '@haven/oci'
import type { Asked, Logger, Metrics, ShortAnswer, ShortAnswerer } from '@haven/runtime'
import type { Headers, RegistryContext } from './call.ts'
import * as blobs from './handlers/blobs.ts'
import * as manifests from './handlers/manifests.ts'
import { templateOf } from './routes.ts'

type At = Extract<RegistryPath, { kind: 'manifest' | 'blob' }>
/** `status` unless it is 200. */
type Found = { status?: number; headers: Headers; body: string | Buffer }

const MAX_PATHS = 10_000

/**
 * Answers pulls without an object of `node:http` where memory says that they are allowed: manifests, which are read if need be, and blobs whose bytes
 * are in memory. What the handlers answer (`handlers/manifests.ts`, `handlers/blobs.ts`) must be the same.
 * @param ofEvery the lines of headers that every answer has
 */
export function shortAnswers(
  context: RegistryContext,
  { log, metrics, ofEvery }: { log: Logger; metrics: Metrics; ofEvery: string },
): ShortAnswerer {
  const paths = new TwoGenerations<At>(MAX_PATHS)
  const pathOf = (target: string): At | null => {
    const known = paths.get(target)
    if (known) return known
    const canonical = canonicalPath(target)
    if ('refused' in canonical || canonical.path !== target) return null
    // V8 keeps a piece of a text with all of it: here the whole head, token included.
    const path = Buffer.from(target, 'latin1').toString('latin1')
    const at = parseRegistryPath(path)
    if (at?.kind !== 'manifest' && at?.kind !== 'blob') return null
    paths.set(path, at)
    return at
  }
  const answer = ({ method, requestId }: Asked, at: At, startedAt: number, found: Found): ShortAnswer | null => {
    const { status = 200 } = found
    const route = templateOf(at.kind)
    const headers = linesOf(found.headers)
    if (headers === null) return null
    return {
      status,
      headers: `X-Request-Id: ${requestId}\r\n${ofEvery}${headers}`,
      body: method === 'HEAD' ? null : found.body,
      onSent(bytes) {
        const seconds = (performance.now() - startedAt) / 1000
        metrics.observe({ service: 'registry', method, route, status, seconds })
        context.metrics.answered(route, bytes)
      },
    }
  }
  const late = async (asked: Asked, at: At, startedAt: number, coming: Promise<Found | null>) => {
    const flown = context.metrics.flies(templateOf(at.kind))
    try {
      const found = await coming
      return found && answer(asked, at, startedAt, found)
    } catch (error) {
      // The handler says what is wrong; but whoever waited for Postgres once is not to wait for as long again.
      if (!isUnavailable(error)) return null
      log.error({ err: error, status: 503, method: asked.method, url: asked.target }, 'a request failed')
      return answer(asked, at, startedAt, refusal(error, asked))
    } finally {
      flown()
    }
  }
  return (asked) => {
    const startedAt = performance.now()
    const at = pathOf(asked.target)
    const found = at && (at.kind === 'manifest' ? manifestOf(context, asked, at) : blobOf(context, asked, at))
    if (!found) return null
    return found instanceof Promise ? late(asked, at, startedAt, found) : answer(asked, at, startedAt, found)
  }
}

function refusal(error: unknown, { requestId }: Asked): Found {
  const problem = toProblem(error, requestId)
  const body = Buffer.from(JSON.stringify(ociEnvelope(problem)))
  return {
    status: problem.status,
    headers: {
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': body.length,
      ...problem.headers,
    },
    body,
  }
}

function manifestOf(
  { access, artifacts, pulls, pullLog }: RegistryContext,
  asked: Asked,
  at: Extract<At, { kind: 'manifest' }>,
): Found | null | Promise<Found | null> {
  const may = access.recall(asked.token, at.name)
  const grant = may?.('pull', asked)
  if (!grant) return null
  const mayPush = may!('push', asked) !== null
  const heads = asked.method === 'HEAD'
  const told = ({ facts, payload }: FoundManifest): Found => {
    if (!heads) {
      pulls.count(facts)
      pullLog.note(grant, facts, at.reference.tag)
    }
    return { headers: manifests.headersOf(facts), body: payload === null ? '' : manifests.inOneWrite(payload) }
  }
  const found = findManifest(artifacts, grant, at.reference, { mayPush, heads })
  return found instanceof Promise ? found.then((late) => late && told(late)) : found && told(found)
}

function blobOf(
  { access, artifacts, blobReads, smallBlobs }: RegistryContext,
  asked: Asked,
  at: Extract<At, { kind: 'blob' }>,
): Found | null {
  const heads = asked.method === 'HEAD'
  // A redirect or a handing over is the better answer.
  if (!heads && (blobReads === 'redirect' || asked.handOver)) return null
  const may = access.recall(asked.token, at.name)
  const grant = may?.('pull', asked)
  // To whoever may push a HEAD is a promise.
  if (!grant || (heads && may!('push', asked) !== null)) return null
  const blob = knownBlob(artifacts, grant, at.digest, { seen: heads })
  const body = heads ? '' : blob && smallBlobs.kept(blob.key)
  if (!blob || body === undefined || body === null) return null
  return { headers: { ...blobs.headersOf(at.digest), 'Content-Length': blob.sizeBytes }, body }
}

const printable = /^[ -~]*$/

/** Null if a value could be read as more than one. */
function linesOf(headers: Headers): string | null {
  let lines = ''
  for (const name of Object.keys(headers)) {
    const value = String(headers[name])
    if (!printable.test(value)) return null
    lines += `${name}: ${value}\r\n`
  }
  return lines
}
