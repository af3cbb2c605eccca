import type { IncomingMessage } from 'node:http'
import { deleteBlob, getBlob, headBlob, headBlobForPush, reportUnreadable } from '@haven/artifacts'
import { problems } from '@haven/errors'
import { formatContentRange, parseRange, type ByteRange, type Digest, type RegistryPath } from '@haven/oci'
import { contextOf, settle } from '@haven/runtime'
import { headFirst, ObjectCorrupt, ObjectMissing, ObjectTruncated, type BlobStorage } from '@haven/storage'
import { answer, begin, matchesEtag, type Call, type RegistryContext } from '../call.ts'
import { redirectFor } from '../redirect.ts'
import { sendPart, sendParts } from '../send-blob.ts'
import { MAX_SMALL_BYTES } from '../small-blobs.ts'

/** Smaller ones are copied sooner than written by themselves. */
const WORTH_A_WRITE_BYTES = 64 * 1024

type At = Extract<RegistryPath, { kind: 'blob' }>

export async function head(call: Call, at: At, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = access.known(call.req, 'pull', at.name) ?? (await access.require(call.req, 'pull', at.name))
  const pushing = access.known(call.req, 'push', at.name) ?? (await access.allows(call.req, 'push', at.name))
  const blob = pushing
    ? await headBlobForPush(artifacts, pushing, at.digest)
    : await headBlob(artifacts, grant, at.digest)
  const headers = headersOf(at.digest)
  if (matchesEtag(call.req.headers['if-none-match'], headers.ETag)) return answer(call, 304, unchanged(headers))
  answer(call, 200, { ...headers, 'Content-Length': blob.sizeBytes })
}

export async function get(
  call: Call,
  at: At,
  { access, artifacts, blobReads, smallBlobs }: RegistryContext,
): Promise<void> {
  const { req, res } = call
  const grant = access.known(req, 'pull', at.name) ?? (await access.require(req, 'pull', at.name))
  const { key, sizeBytes } = await getBlob(artifacts, grant, at.digest)
  const { storage } = artifacts
  const headers = headersOf(at.digest)
  if (matchesEtag(req.headers['if-none-match'], headers.ETag)) return answer(call, 304, unchanged(headers))

  const type = headers['Content-Type']
  const Location = blobReads === 'redirect' ? await redirectFor(req, storage, { key, sizeBytes }, type) : null
  if (Location !== null) {
    // No store's answer to the URL is for longer than the URL is valid, and the digest header is not the store's to send.
    return answer(call, 307, { Location, 'Docker-Content-Digest': at.digest, 'Cache-Control': 'no-store' })
  }

  const wanted = wantedOf(req, headers, sizeBytes)
  try {
    const isSmall = wanted === 'whole' && sizeBytes <= MAX_SMALL_BYTES && !contextOf(req).handOver
    const bytes = isSmall ? await smallBlobs.bytes(key, at.digest, sizeBytes) : null
    if (bytes) {
      begin(call, 200, { ...headers, 'Content-Length': sizeBytes })
      if (sizeBytes >= WORTH_A_WRITE_BYTES) headFirst(res)
      res.end(bytes)
    } else await send(call, storage, { key, sizeBytes }, headers, wanted)
  } catch (error) {
    const corrupt = error instanceof ObjectCorrupt
    if (!(corrupt || error instanceof ObjectMissing || error instanceof ObjectTruncated)) throw error
    const lost = await reportUnreadable(artifacts, key, corrupt ? 'corrupt' : 'missing')
    if (!lost || res.headersSent) throw error
    for (const name of [...Object.keys(headers), 'Content-Range', 'Content-Length']) res.removeHeader(name)
    throw problems.blobUnknown({ digest: at.digest }, { cause: error })
  }
}

type Wanted = 'whole' | readonly ByteRange[]

/** @throws rangeInvalid (416) when the blob has nothing of what is asked for. */
function wantedOf(
  req: IncomingMessage,
  { ETag, 'Docker-Content-Digest': digest }: BlobHeaders,
  sizeBytes: number,
): Wanted {
  const { range, 'if-range': ifRange } = req.headers
  // RFC 9110, 13.1.5: a range of another version than the client has is of no use to it.
  const wanted = ifRange === undefined || ifRange === ETag ? parseRange(range, sizeBytes) : 'whole'
  if (wanted !== null) return wanted
  const headers = { 'Content-Range': formatContentRange(null, sizeBytes), ETag, 'Docker-Content-Digest': digest }
  const reason = `no byte of the blob is in the range ${range}: it has ${sizeBytes}`
  throw problems.rangeInvalid({ reason }, { headers })
}

async function send(
  call: Call,
  storage: BlobStorage,
  { key, sizeBytes }: { key: string; sizeBytes: number },
  headers: BlobHeaders,
  wanted: Wanted,
): Promise<void> {
  const { req, res } = call
  settle(req, res)
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
  res.statusCode = wanted === 'whole' ? 200 : 206
  if (wanted !== 'whole' && wanted.length > 1) {
    return sendParts(res, storage, key, wanted, { sizeBytes, type: headers['Content-Type'] })
  }
  const part = wanted === 'whole' ? { first: 0, last: sizeBytes - 1 } : wanted[0]!
  if (wanted !== 'whole') res.setHeader('Content-Range', formatContentRange(part, sizeBytes))
  const { handOver } = contextOf(req)
  if (handOver) call.moved.handedOverBytes = part.last - part.first + 1
  await sendPart(res, storage, key, part, { handOver })
}

/** Only the link goes: another repository's is another's (threats.md A28). */
export async function remove(call: Call, at: At, { access, artifacts }: RegistryContext): Promise<void> {
  await deleteBlob(artifacts, await access.require(call.req, 'delete', at.name), at.digest)
  answer(call, 202)
}

export const headersOf = (digest: Digest) => ({
  'Content-Type': 'application/octet-stream',
  'Accept-Ranges': 'bytes',
  'Docker-Content-Digest': digest,
  ETag: `"${digest}"`,
  // A digest never means other bytes; who may read it may change, so shared caches must not keep it.
  'Cache-Control': 'private, max-age=31536000',
})

type BlobHeaders = ReturnType<typeof headersOf>

/** RFC 9110, 15.4.5: nothing that describes a body. */
const unchanged = ({ ETag, 'Docker-Content-Digest': digest, 'Cache-Control': cache }: BlobHeaders) => ({
  ETag,
  'Docker-Content-Digest': digest,
  'Cache-Control': cache,
})
