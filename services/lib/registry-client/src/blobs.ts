import { Readable } from 'node:stream'
import { problems } from '@haven/errors'
import {
  algorithmOf,
  createDigestHasher,
  isSupportedAlgorithm,
  parseUploadRange,
  type ByteRange,
  type Digest,
  type RepositoryName,
} from '@haven/oci'
import type { OutboundResponse } from '@haven/outbound'
import { checkDigestHeader, expectStatus, failed, headerOf, headOf, lengthOf, refusal } from './answers.ts'
import { scopeOf, type RegistryRequest, type Transport } from './transport.ts'

// Threats.md §5: replication blobs may be silent for 60 s and take as long as they take.
const STREAMED = { idleMs: 60_000, totalMs: 0 }
/** Distribution copies the whole blob once more before it answers the last request of an upload. */
const COMMIT = { idleMs: 300_000, totalMs: 0 }
const MAX_UNANNOUNCED_BYTES = 10 * 1024 ** 3
const MAX_RESUMES = 5

export type BlobStream = {
  /** Null when the registry did not say; a range's is its length. */
  readonly sizeBytes: number | null
  /** Errors instead of ending when the bytes are not those of the digest: until it ended, nothing of it may be believed. */
  readonly body: Readable
}

export type BlobUpload = {
  readonly digest: Digest
  readonly sizeBytes: number
  /** Opens the content, or again a part of it after something broke. */
  readonly open: (range: ByteRange) => Readable | Promise<Readable>
}

export type PushedBlob = 'mounted' | 'pushed'

/** Null when there is none. */
export async function headBlob(
  transport: Transport,
  name: RepositoryName,
  digest: Digest,
  signal?: AbortSignal,
): Promise<{ readonly sizeBytes: number | null } | null> {
  const url = transport.url({ kind: 'blob', name, digest })
  const answer = await transport.send(url, { method: 'HEAD', scopes: [scopeOf(name, 'pull')], signal })
  if (headOf(answer).status === 404) return null
  expectStatus(answer, 200)
  checkDigestHeader(answer, digest)
  return { sizeBytes: lengthOf(answer) }
}

/**
 * A blob as a stream, null when there is none. Of the whole blob digest and length are verified, and a connection that breaks is resumed
 * where it broke; of a range only the length can be.
 *
 * @param sizeBytes what the manifest says of it, when known: any other length fails.
 */
export async function getBlob(
  transport: Transport,
  name: RepositoryName,
  digest: Digest,
  {
    range,
    sizeBytes,
    signal,
  }: { readonly range?: ByteRange; readonly sizeBytes?: number; readonly signal?: AbortSignal } = {},
): Promise<BlobStream | null> {
  const url = transport.url({ kind: 'blob', name, digest })
  const request = { scopes: [scopeOf(name, 'pull')], signal, ...STREAMED, maxBytes: sizeBytes ?? MAX_UNANNOUNCED_BYTES }
  const rest = async ({ first, last }: { first: number; last?: number }, total: number | null) => {
    const answer = await transport.send(url, { ...request, headers: { range: `bytes=${first}-${last ?? ''}` } })
    if (answer.status === 404) return answer
    checkRange(expectStatus(answer, 206), first, last, total)
    return answer
  }
  if (range !== undefined) {
    const answer = await rest(range, sizeBytes ?? null)
    if (answer.status === 404) return headOf(answer) && null
    const length = lengthOf(answer) ?? range.last - range.first + 1
    return { sizeBytes: length, body: streamOf(counted(answer, length)) }
  }

  const algorithm = algorithmOf(digest)
  if (!isSupportedAlgorithm(algorithm))
    throw problems.digestInvalid({ reason: `a digest of ${algorithm} cannot be verified` })
  const answer = await transport.send(url, request)
  if (answer.status === 404) return headOf(answer) && null
  expectStatus(answer, 200)
  checkDigestHeader(answer, digest)
  const announced = lengthOf(answer)
  if (sizeBytes !== undefined && announced !== null && announced !== sizeBytes) {
    headOf(answer)
    throw failed(answer.url, 'the blob is not as long as its manifest says')
  }
  const size = sizeBytes ?? announced
  const resume = (offset: number) => rest({ first: offset }, size)
  return { sizeBytes: size, body: streamOf(verified(answer, resume, createDigestHasher(algorithm), digest, size)) }
}

const streamOf = (bytes: AsyncGenerator<Uint8Array>) => Readable.from(bytes, { objectMode: false })

async function* verified(
  first: OutboundResponse,
  resume: (offset: number) => Promise<OutboundResponse>,
  hasher: ReturnType<typeof createDigestHasher>,
  digest: Digest,
  size: number | null,
): AsyncGenerator<Uint8Array> {
  let answer = first
  let offset = 0
  for (let resumes = 0, from = 0; ; resumes++, from = offset) {
    try {
      for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
        offset += chunk.length
        hasher.update(chunk)
        yield chunk
      }
      break
    } catch (error) {
      const stuck = offset === from || resumes >= MAX_RESUMES || (size !== null && offset >= size)
      if (stuck || !problems.outboundFailed.is(error)) throw error
      answer = expectStatus(await resume(offset), 206)
    }
  }
  if (size !== null && offset !== size) throw failed(answer.url, 'the blob is not as long as it should be')
  if (hasher.digest() !== digest) throw failed(answer.url, 'the blob is not the one of its digest')
}

async function* counted(answer: OutboundResponse, length: number): AsyncGenerator<Uint8Array> {
  let seen = 0
  for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
    seen += chunk.length
    if (seen > length) break
    yield chunk
  }
  if (seen !== length) throw failed(answer.url, 'the range is not as long as it should be')
}

/** A range that is not the one asked for would be bytes in the wrong place. */
function checkRange(answer: OutboundResponse, first: number, last: number | undefined, size: number | null) {
  const [, from, to, of] =
    /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/.exec(headerOf(answer, 'content-range') ?? '') ?? []
  const length = lengthOf(answer)
  const right =
    Number(from) === first &&
    (last === undefined || Number(to) <= last) &&
    (length === null || length === Number(to) - first + 1) &&
    (size === null || of === '*' || Number(of) === size)
  if (right) return
  headOf(answer)
  throw failed(answer.url, 'it answered another range')
}

/**
 * Pushes a blob: mounted from another repository of the same registry when that works, else in one request, else (`chunkBytes`) in chunks,
 * each repeated from where the registry stopped. An upload that failed is cancelled.
 */
export async function pushBlob(
  transport: Transport,
  name: RepositoryName,
  blob: BlobUpload,
  {
    mountFrom,
    chunkBytes,
    signal,
  }: { readonly mountFrom?: RepositoryName; readonly chunkBytes?: number; readonly signal?: AbortSignal } = {},
): Promise<PushedBlob> {
  const scopes = [scopeOf(name, 'pull', 'push')]
  let started: OutboundResponse | null = null
  if (mountFrom !== undefined) {
    const url = transport.url({ kind: 'uploads', name }, { mount: blob.digest, from: mountFrom })
    const answer = headOf(
      await transport.send(url, { method: 'POST', scopes: [...scopes, scopeOf(mountFrom, 'pull')], signal }),
    )
    if (answer.status === 201) {
      checkDigestHeader(answer, blob.digest)
      return 'mounted'
    }
    // Whatever the registry has against the mount, the bytes may still be welcome.
    if (answer.status === 202) started = answer
  }
  const send = (url: URL, request: Partial<RegistryRequest>) => transport.send(url, { ...request, scopes, signal })
  started ??= headOf(await send(transport.url({ kind: 'uploads', name }), { method: 'POST' }))
  expectStatus(started, 202)
  let upload = transport.own(headerOf(started, 'location'), started.url)
  try {
    let rest: Readable | string = ''
    if (chunkBytes !== undefined && blob.sizeBytes > 0) {
      const atLeast = Number(/^\d{1,10}$/.exec(headerOf(started, 'oci-chunk-min-length') ?? '')?.[0] ?? 0)
      for await (const moved of sendChunks(transport, blob, upload, Math.max(chunkBytes, atLeast), send, signal))
        upload = moved
    } else if (blob.sizeBytes > 0) rest = await blob.open({ first: 0, last: blob.sizeBytes - 1 })
    const url = new URL(upload)
    url.searchParams.set('digest', blob.digest)
    const length = typeof rest === 'string' ? 0 : blob.sizeBytes
    const headers = { 'content-type': 'application/octet-stream', 'content-length': String(length) }
    const answer = headOf(await send(url, { method: 'PUT', headers, body: rest, ...COMMIT }))
    expectStatus(answer, 201, 204)
    checkDigestHeader(answer, blob.digest)
    return 'pushed'
  } catch (error) {
    await cancel(transport, upload, scopes)
    throw error
  }
}

/** Sends one chunk after the other; yields where the upload goes on. */
async function* sendChunks(
  transport: Transport,
  { sizeBytes, open }: BlobUpload,
  start: URL,
  chunkBytes: number,
  send: (url: URL, request: Partial<RegistryRequest>) => Promise<OutboundResponse>,
  signal?: AbortSignal,
): AsyncGenerator<URL> {
  let upload = start
  let offset = 0
  let failures = 0
  while (offset < sizeBytes) {
    const range = { first: offset, last: Math.min(offset + chunkBytes, sizeBytes) - 1 }
    let answer: OutboundResponse
    let taken = true
    try {
      answer = headOf(
        await send(upload, {
          method: 'PATCH',
          body: await open(range),
          headers: {
            'content-type': 'application/octet-stream',
            'content-length': String(range.last - range.first + 1),
            'content-range': `${range.first}-${range.last}`,
          },
          ...STREAMED,
        }),
      )
      if (answer.status !== 202) throw refusal(answer)
    } catch (error) {
      if (++failures > MAX_RESUMES || !problems.outboundFailed.is(error)) throw error
      await transport.retries.pause(250 * 2 ** failures, signal)
      taken = false
      answer = headOf(await send(upload, { method: 'GET' }))
      if (answer.status !== 204 && answer.status !== 202) throw error
    }
    const received = parseUploadRange(headerOf(answer, 'range') ?? '')
    let next = received === null ? (taken ? range.last + 1 : range.first) : received.last + 1
    // `0-0` is one byte, and also what an upload without a byte says (oci, formatUploadRange).
    if (received?.last === 0 && !(taken && range.last === 0)) next = 0
    if (next > range.last + 1 || (received !== null && received.first !== 0)) {
      throw failed(transport.base, 'it has more than was sent')
    }
    if (next > offset) failures = 0
    else if (taken && ++failures > MAX_RESUMES) throw failed(transport.base, 'it takes no more bytes')
    offset = next
    const location = headerOf(answer, 'location')
    if (location !== undefined) upload = transport.own(location, answer.url)
    yield upload
  }
}

async function cancel(transport: Transport, upload: URL, scopes: RegistryRequest['scopes']) {
  try {
    // Not by the caller's signal, which may be why we are here.
    headOf(await transport.send(upload, { method: 'DELETE', scopes, totalMs: 5_000 }))
  } catch (error) {
    // The registry drops it by itself in time; what the caller should hear of is why the push failed.
    if (!problems.outboundFailed.is(error)) throw error
  }
}
