import { knownBlob, knownManifest } from '@haven/artifacts'
import { TwoGenerations } from '@haven/db'
import { canonicalPath, parseRegistryPath, type RegistryPath } from '@haven/oci'
import type { Asked, Metrics, ShortAnswer } from '@haven/runtime'
import type { Headers, RegistryContext } from './call.ts'
import * as blobs from './handlers/blobs.ts'
import * as manifests from './handlers/manifests.ts'
import { templateOf } from './routes.ts'

type At = Extract<RegistryPath, { kind: 'manifest' | 'blob' }>
type Found = { headers: Headers; body: string | Buffer }

const MAX_PATHS = 10_000

/**
 * Answers of pulls that are in memory with all they depend on: the verdict on the token, the rights of its owner, the project, what the repository has, and
 * the bytes. The handlers say the same and everything else (`handlers/manifests.ts`, `handlers/blobs.ts`).
 * @param ofEvery the lines of headers that every answer has
 */
export function answersFromMemory(
  context: RegistryContext,
  { metrics, ofEvery }: { metrics: Metrics; ofEvery: string },
): (asked: Asked) => ShortAnswer | null {
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
  return (asked) => {
    const startedAt = performance.now()
    const at = pathOf(asked.target)
    const found = at && (at.kind === 'manifest' ? manifestOf(context, asked, at) : blobOf(context, asked, at))
    if (!found) return null
    const { method, requestId } = asked
    const route = templateOf(at.kind)
    const headers = linesOf(found.headers)
    if (headers === null) return null
    return {
      status: 200,
      headers: `X-Request-Id: ${requestId}\r\n${ofEvery}${headers}`,
      body: method === 'HEAD' ? null : found.body,
      left(bytes) {
        const seconds = (performance.now() - startedAt) / 1000
        metrics.observe({ service: 'registry', method, route, status: 200, seconds })
        context.metrics.answered(route, bytes)
      },
    }
  }
}

function manifestOf(
  { access, artifacts, pulls, pullLog }: RegistryContext,
  asked: Asked,
  at: Extract<At, { kind: 'manifest' }>,
): Found | null {
  const may = access.recall(asked.token, at.name)
  const grant = may?.('pull', asked)
  const found = grant && knownManifest(artifacts, grant, at.reference, may!('push', asked) !== null)
  if (!found) return null
  if (asked.method === 'GET') {
    pulls.count(found.facts)
    pullLog.note(grant, found.facts, at.reference.tag)
  }
  return { headers: manifests.headersOf(found.facts), body: manifests.inOneWrite(found.payload) }
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
