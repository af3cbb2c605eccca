import { parseManifest, referrersTag, type Descriptor, type Digest, type RepositoryName } from '@haven/oci'
import { bytesOf } from '@haven/outbound'
import { expectStatus, headerOf, headOf } from './answers.ts'
import { pages } from './lists.ts'
import { getManifest } from './manifests.ts'
import { scopeOf, type Transport } from './transport.ts'

/**
 * What refers to a manifest: by the API, or by the fallback tag where a registry has none (OCI Distribution 1.1, "Listing Referrers").
 * The registry's word: a referrer's own subject is known only when it was pulled.
 *
 * @throws problems.manifestInvalid for a list that is no index.
 */
export async function listReferrers(
  transport: Transport,
  name: RepositoryName,
  subject: Digest,
  { artifactType, signal }: { readonly artifactType?: string; readonly signal?: AbortSignal } = {},
): Promise<readonly Descriptor[]> {
  const first = transport.url(
    { kind: 'referrers', name, digest: subject },
    { ...(artifactType !== undefined && { artifactType }) },
  )
  const found: Descriptor[] = []
  const accept = { headers: { accept: 'application/vnd.oci.image.index.v1+json' } }
  for await (const answer of pages(transport, first, [scopeOf(name, 'pull')], signal, accept)) {
    // Registries older than the API answer one of these for a path that they do not know.
    if ([400, 404, 405, 501].includes(answer.status)) {
      headOf(answer)
      found.push(...(await listedByTag(transport, name, subject, signal)))
      break
    }
    expectStatus(answer, 200)
    found.push(...readIndex(headerOf(answer, 'content-type'), await bytesOf(answer)))
  }
  // A registry may leave the filter out.
  return artifactType === undefined ? found : found.filter((referrer) => referrer.artifactType === artifactType)
}

async function listedByTag(transport: Transport, name: RepositoryName, subject: Digest, signal?: AbortSignal) {
  const index = await getManifest(transport, name, { tag: referrersTag(subject) }, signal)
  return index === null ? [] : readIndex(index.mediaType, index.bytes)
}

function readIndex(contentType: string | undefined, bytes: Uint8Array): readonly Descriptor[] {
  return parseManifest(contentType, bytes).children
}
