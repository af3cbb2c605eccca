import {
  algorithmOf,
  bareMediaType,
  digestOf,
  isSupportedAlgorithm,
  maxManifestBytes,
  mediaTypes,
  parseDigest,
  type Digest,
  type Reference,
  type RepositoryName,
} from '@haven/oci'
import { bytesOf, type OutboundResponse } from '@haven/outbound'
import { problems } from '@haven/errors'
import { checkDigestHeader, digestHeader, expectStatus, failed, headerOf, headOf, lengthOf } from './answers.ts'
import { scopeOf, type Transport } from './transport.ts'

export type ManifestHead = {
  readonly digest: Digest
  readonly mediaType: string
  readonly sizeBytes: number
}

export type RemoteManifest = ManifestHead & { readonly bytes: Buffer }

// Without a list Distribution converts to schema 1; what is not on it is still welcome.
const ACCEPT = [
  mediaTypes.ociManifest,
  mediaTypes.ociIndex,
  mediaTypes.dockerManifest,
  mediaTypes.dockerList,
  mediaTypes.ociArtifact,
  '*/*;q=0.1',
].join(', ')

/**
 * The manifest, null when there is none. Its bytes are those of the digest: of the one asked for, and of the one that the registry names
 * (CVE-2026-85747). They are not parsed.
 */
export async function getManifest(
  transport: Transport,
  name: RepositoryName,
  reference: Reference,
  signal?: AbortSignal,
): Promise<RemoteManifest | null> {
  const answer = await request(transport, 'GET', name, reference, signal)
  if (answer.status === 404) return headOf(answer) && null
  expectStatus(answer, 200)
  const bytes = await bytesOf(answer)
  const said = digestHeader(answer)
  const algorithm = algorithmOf(reference.digest ?? said ?? digestOf(''))
  if (!isSupportedAlgorithm(algorithm))
    throw problems.digestInvalid({ reason: `a digest of ${algorithm} cannot be verified` })
  const digest = digestOf(bytes, algorithm)
  if (reference.digest !== undefined && digest !== reference.digest)
    throw failed(answer.url, 'the manifest is not the one of its digest')
  checkDigestHeader(answer, digest)
  return { digest, mediaType: mediaTypeOf(answer), sizeBytes: bytes.length, bytes }
}

/** What a reference stands for, null when for nothing. Of a tag it is what the registry says; `getManifest` of the digest verifies it. */
export async function headManifest(
  transport: Transport,
  name: RepositoryName,
  reference: Reference,
  signal?: AbortSignal,
): Promise<ManifestHead | null> {
  const answer = headOf(await request(transport, 'HEAD', name, reference, signal))
  if (answer.status === 404) return null
  const sizeBytes = lengthOf(answer)
  if (reference.digest !== undefined && answer.status === 200) checkDigestHeader(answer, reference.digest)
  const digest = reference.digest ?? digestHeader(answer)
  // Not every registry answers HEAD, or with a digest (OCI Distribution 1.1 only says that it should).
  if (answer.status === 405 || (answer.status === 200 && (digest === null || sizeBytes === null))) {
    const whole = await getManifest(transport, name, reference, signal)
    return whole && { digest: whole.digest, mediaType: whole.mediaType, sizeBytes: whole.sizeBytes }
  }
  expectStatus(answer, 200)
  return { digest: digest!, mediaType: mediaTypeOf(answer), sizeBytes: sizeBytes! }
}

/** Pushes by tag or digest. `subject` is what the registry recorded as such (`OCI-Subject`): when null, the fallback tag is ours to keep. */
export async function putManifest(
  transport: Transport,
  name: RepositoryName,
  reference: Reference,
  { mediaType, bytes }: { readonly mediaType: string; readonly bytes: Uint8Array },
  signal?: AbortSignal,
): Promise<{ readonly digest: Digest; readonly subject: Digest | null }> {
  const algorithm = algorithmOf(reference.digest ?? digestOf(''))
  if (!isSupportedAlgorithm(algorithm))
    throw problems.digestInvalid({ reason: `a digest of ${algorithm} cannot be verified` })
  const digest = digestOf(bytes, algorithm)
  if (reference.digest !== undefined && reference.digest !== digest)
    throw problems.digestInvalid({ digest: reference.digest })
  const url = transport.url({ kind: 'manifest', name, reference })
  const answer = await transport.send(url, {
    method: 'PUT',
    scopes: [scopeOf(name, 'pull', 'push')],
    headers: { 'content-type': mediaType },
    body: bytes,
    signal,
  })
  headOf(expectStatus(answer, 200, 201, 202))
  checkDigestHeader(answer, digest)
  return { digest, subject: parseDigest(headerOf(answer, 'oci-subject') ?? '') }
}

/** Deletes a manifest, or a tag where the registry offers that. False when there was none. */
export async function deleteManifest(
  transport: Transport,
  name: RepositoryName,
  reference: Reference,
  signal?: AbortSignal,
): Promise<boolean> {
  const url = transport.url({ kind: 'manifest', name, reference })
  const answer = await transport.send(url, { method: 'DELETE', scopes: [scopeOf(name, 'delete')], signal })
  return headOf(expectStatus(answer, 200, 202, 204, 404)).status !== 404
}

function request(
  transport: Transport,
  method: string,
  name: RepositoryName,
  reference: Reference,
  signal?: AbortSignal,
) {
  return transport.send(transport.url({ kind: 'manifest', name, reference }), {
    method,
    scopes: [scopeOf(name, 'pull')],
    headers: { accept: ACCEPT },
    maxBytes: maxManifestBytes,
    signal,
  })
}

function mediaTypeOf(answer: OutboundResponse): string {
  return bareMediaType(headerOf(answer, 'content-type') ?? '')
}
