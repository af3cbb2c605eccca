import type { Digest, Reference, RepositoryName } from '@haven/oci'
import type { OutboundClient } from '@haven/outbound'
import { expectStatus, headOf } from './answers.ts'
import { getBlob, headBlob, pushBlob, type BlobUpload } from './blobs.ts'
import { listCatalog, listTags } from './lists.ts'
import { deleteManifest, getManifest, headManifest, putManifest } from './manifests.ts'
import { listReferrers } from './referrers.ts'
import type { RetryOptions } from './retries.ts'
import { Transport } from './transport.ts'

export type Credential =
  | { readonly type: 'basic'; readonly username: string; readonly password: string }
  /** A ready token, sent to the registry itself and nowhere else. */
  | { readonly type: 'bearer'; readonly token: string }

export type Endpoint = {
  /** Without `/v2/`; a path before it is kept (`https://host/artifactory/api/docker/local`). */
  readonly url: string
  readonly credential?: Credential
  /** Origins of token services that may have the credential beside the obvious ones: `https://gitlab.example.com`. */
  readonly tokenOrigins?: readonly string[]
  /** Accept a certificate that nobody known has signed, from the registry's own host. */
  readonly insecure?: boolean
  /** PEM certificates to trust beside the system's. */
  readonly ca?: string
}

export type RegistryOptions = RetryOptions

type Signal = { readonly signal?: AbortSignal }
export type RegistryClient = ReturnType<typeof registry>

/**
 * A client of another registry's OCI Distribution API. It keeps tokens and a retry budget, so use one for all calls of a job.
 *
 * Every call throws problems.outboundRefused for an address that may not be reached, problems.outboundFailed when the registry refuses
 * (`upstreamStatus`), fails or lies, and the reason of a signal.
 *
 * @throws problems.outboundRefused for an endpoint that is no http or https URL.
 */
export function registry(endpoint: Endpoint, outbound: OutboundClient, options: RegistryOptions = {}) {
  const transport = new Transport(endpoint, outbound, options)
  return {
    /**
     * Whether there is a registry that takes the credential, and how it authenticates. Without a credential a registry that wants one
     * counts as reached.
     */
    async ping({ signal }: Signal = {}): Promise<{ readonly auth: 'none' | 'basic' | 'bearer' }> {
      const answer = await transport.send(transport.url({ kind: 'ping' }), { scopes: [], signal })
      const { scheme } = transport.authorizer
      if (answer.status !== 401 || endpoint.credential !== undefined || scheme === 'none') expectStatus(answer, 200)
      headOf(answer)
      return { auth: scheme }
    },
    getManifest: (name: RepositoryName, reference: Reference, { signal }: Signal = {}) =>
      getManifest(transport, name, reference, signal),
    headManifest: (name: RepositoryName, reference: Reference, { signal }: Signal = {}) =>
      headManifest(transport, name, reference, signal),
    putManifest: (
      name: RepositoryName,
      reference: Reference,
      manifest: { readonly mediaType: string; readonly bytes: Uint8Array },
      { signal }: Signal = {},
    ) => putManifest(transport, name, reference, manifest, signal),
    deleteManifest: (name: RepositoryName, reference: Reference, { signal }: Signal = {}) =>
      deleteManifest(transport, name, reference, signal),
    headBlob: (name: RepositoryName, digest: Digest, { signal }: Signal = {}) =>
      headBlob(transport, name, digest, signal),
    getBlob: (name: RepositoryName, digest: Digest, options: Parameters<typeof getBlob>[3] = {}) =>
      getBlob(transport, name, digest, options),
    pushBlob: (name: RepositoryName, blob: BlobUpload, options: Parameters<typeof pushBlob>[3] = {}) =>
      pushBlob(transport, name, blob, options),
    listTags: (name: RepositoryName, { signal }: Signal = {}) => listTags(transport, name, signal),
    catalog: ({ signal }: Signal = {}) => listCatalog(transport, signal),
    listReferrers: (name: RepositoryName, subject: Digest, options: Parameters<typeof listReferrers>[3] = {}) =>
      listReferrers(transport, name, subject, options),
  }
}
