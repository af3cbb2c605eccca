import {
  appendToUpload,
  cancelUpload,
  faultPoint,
  finishUpload,
  mountBlob,
  mountSources,
  startUpload,
  uploadStatus,
  type Chunk,
  type PullGrant,
  type PushGrant,
} from '@haven/artifacts'
import { Problem, problems } from '@haven/errors'
import {
  formatRegistryPath,
  formatUploadRange,
  isSupportedAlgorithm,
  isSupportedDigest,
  parseDigest,
  parseRepositoryName,
  parseUploadRange,
  type Digest,
  type RegistryPath,
  type RepositoryName,
  type Scope,
  type SupportedAlgorithm,
  type UploadId,
} from '@haven/oci'
import { bodyChunks, bodyIntake, hasBody } from '@haven/runtime'
import { mountScope } from '../access.ts'
import { answer, type Call, type Headers, type RegistryContext } from '../call.ts'
import { requireOwnContent } from '../pull-through.ts'

type AtAll = Extract<RegistryPath, { kind: 'uploads' }>
type AtOne = Extract<RegistryPath, { kind: 'upload' }>

/** Opens an upload, or mounts a blob, or takes a whole blob at once. A mount that cannot be becomes an upload, never an error. */
export async function start(call: Call, at: AtAll, context: RegistryContext): Promise<void> {
  const { query } = call
  const grant = await context.access.require(call.req, 'push', at.name, sourceScopes(query))
  requireOwnContent(grant)
  const mounted = query.has('mount') ? await mount(call, grant, context) : null
  if (mounted) return created(call, at.name, mounted)

  const digest = query.has('digest') && !query.has('mount') ? readDigest(query) : null
  const { id } = await startUpload(context.artifacts, grant, { algorithm: readAlgorithm(query, digest) })
  if (digest === null) return answer(call, 202, uploadHeaders(at.name, id as UploadId, 0))

  try {
    await finishUpload(context.artifacts, grant, id, { digest, chunk: { ...readChunk(call), offsetBytes: 0 } })
  } catch (error) {
    // The client does not know the id and could not go on.
    await cancelUpload(context.artifacts, grant, id).catch(ignoreGone)
    throw error
  }
  created(call, at.name, digest)
}

export async function status(call: Call, at: AtOne, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = await access.require(call.req, 'push', at.name)
  const { offsetBytes } = await uploadStatus(artifacts, grant, at.upload)
  answer(call, 204, uploadHeaders(at.name, at.upload, offsetBytes))
}

export async function append(call: Call, at: AtOne, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = await access.require(call.req, 'push', at.name)
  const chunk = readChunk(call)
  const { offsetBytes } = await appendToUpload(artifacts, grant, at.upload, chunk).catch(whereItIs(at))
  answer(call, 202, uploadHeaders(at.name, at.upload, offsetBytes))
}

export async function finish(call: Call, at: AtOne, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = await access.require(call.req, 'push', at.name)
  const digest = readDigest(call.query)
  const chunk = hasBody(call.req) ? readChunk(call) : null
  await finishUpload(artifacts, grant, at.upload, { digest, chunk }).catch(whereItIs(at))
  await faultPoint('finish.beforeAnswer')
  created(call, at.name, digest)
}

// Pushing is enough: who may open an upload may give it up again, as clients that only probe for the right to push do.
export async function cancel(call: Call, at: AtOne, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = await access.require(call.req, 'push', at.name)
  await cancelUpload(artifacts, grant, at.upload)
  answer(call, 204, { 'Docker-Upload-UUID': at.upload })
}

async function mount(call: Call, grant: PushGrant, context: RegistryContext): Promise<Digest | null> {
  const digest = parseDigest(call.query.get('mount') ?? '')
  if (digest === null || !isSupportedDigest(digest)) return null
  const from = call.query.has('from') ? await namedSource(call, context) : await anySource(call, digest, context)
  const { artifacts } = context
  const isThere = (blob: { key: string; sizeBytes: number }) => artifacts.seen.holds(artifacts.storage, blob)
  return from && (await mountBlob(artifacts, grant, from, digest, isThere)) ? digest : null
}

/**
 * What a mount needs beside pushing. A token that does not name it is told so, as Distribution does, whatever is there or not; the
 * client gets one that does, and from then on a source that it may not pull from is as good as none (threats.md A39).
 */
function sourceScopes(query: URLSearchParams): readonly Scope[] {
  if (!query.has('mount')) return []
  if (!query.has('from')) return [mountScope]
  const name = parseRepositoryName(query.get('from') ?? '')
  return name === null ? [] : [{ type: 'repository', name, actions: ['pull'] }]
}

async function namedSource({ req, query }: Call, { access }: RegistryContext): Promise<PullGrant | null> {
  const name = parseRepositoryName(query.get('from') ?? '')
  return name && access.allows(req, 'pull', name)
}

/** A mount that names no source: from wherever the caller may pull the blob, or it would tell strangers what others have. */
async function anySource({ req }: Call, digest: Digest, { access, artifacts, projectName }: RegistryContext) {
  for (const { projectId, path } of await mountSources(artifacts, digest)) {
    const project = await projectName(projectId)
    const name = project === null ? null : parseRepositoryName(`${project}/${path}`)
    const from = name && (await access.allowsMount(req, name))
    if (from) return from
  }
  return null
}

function created(call: Call, name: RepositoryName, digest: Digest): void {
  answer(call, 201, {
    Location: formatRegistryPath({ kind: 'blob', name, digest }),
    'Docker-Content-Digest': digest,
  })
}

// Relative, so that it is right behind whatever name and scheme the client knows us by (threats.md R7).
const uploadHeaders = (name: RepositoryName, upload: UploadId, offsetBytes: number): Headers => ({
  Location: formatRegistryPath({ kind: 'upload', name, upload }),
  Range: formatUploadRange(offsetBytes),
  'Docker-Upload-UUID': upload,
})

/** OCI 1.1, "Pushing a Blob in Chunks": the answer to a chunk out of order says where the upload is. */
const whereItIs =
  (at: AtOne) =>
  (error: unknown): never => {
    if (problems.rangeInvalid.is(error) && 'offsetBytes' in error) {
      const headers = uploadHeaders(at.name, at.upload, Number(error.offsetBytes)) as Record<string, string>
      throw new Problem(error.kind, [error.entries[0]!], { headers })
    }
    throw error
  }

function readDigest(query: URLSearchParams): Digest {
  const texts = query.getAll('digest')
  const digest = texts.length === 1 ? parseDigest(texts[0]!) : null
  if (digest === null || !isSupportedDigest(digest)) {
    const given = texts.join(', ')
    throw problems.digestInvalid({
      digest: given,
      reason: `not a digest that can be verified: ${JSON.stringify(given)}`,
    })
  }
  return digest
}

/** What to sum in passing: the algorithm of a digest that is known already, or the one the client announces. */
function readAlgorithm(query: URLSearchParams, digest: Digest | null): SupportedAlgorithm {
  const named = digest?.slice(0, digest.indexOf(':')) ?? query.get('digest-algorithm') ?? 'sha256'
  if (!isSupportedAlgorithm(named)) throw problems.digestInvalid({ reason: `unsupported digest algorithm: ${named}` })
  return named
}

function readChunk(call: Call): Chunk {
  const { req } = call
  const length = req.headers['content-length']
  const contentRange = req.headers['content-range']
  const range = contentRange === undefined ? null : parseUploadRange(contentRange)
  if (contentRange !== undefined && range === null) {
    throw problems.blobUploadInvalid({ reason: `Content-Range is malformed: ${JSON.stringify(contentRange)}` })
  }
  const announced = length === undefined ? null : Number(length)
  const ranged = range && range.last - range.first + 1
  if (announced !== null && ranged !== null && announced !== ranged) {
    throw problems.sizeInvalid({ declaredBytes: ranged, receivedBytes: announced })
  }
  return {
    source: bodyOf(call),
    offsetBytes: range?.first ?? null,
    sizeBytes: announced ?? ranged,
  }
}

function bodyOf(call: Call): Chunk['source'] {
  return { [Symbol.asyncIterator]: () => piecesOf(call), intake: () => intakeOf(call) }
}

async function* piecesOf({ req, moved }: Call): AsyncGenerator<Uint8Array, void, void> {
  try {
    for await (const chunk of bodyChunks(req)) {
      moved.receivedBytes += chunk.length
      yield chunk
    }
  } catch (cause) {
    throw endedEarly(cause)
  }
}

async function intakeOf({ req, moved }: Call) {
  const body = await bodyIntake(req)
  return (
    body && {
      async fill(into: Buffer) {
        const bytes = await body.fill(into).catch((cause: unknown) => {
          throw endedEarly(cause)
        })
        moved.receivedBytes += bytes
        return bytes
      },
      close: () => body.close(),
    }
  )
}

// What fails in a body is the client's connection: it left, or was too slow.
const endedEarly = (cause: unknown) => problems.blobUploadInvalid({ reason: 'the body ended early' }, { cause })

function ignoreGone(error: unknown): void {
  if (!problems.blobUploadUnknown.is(error)) throw error
}
