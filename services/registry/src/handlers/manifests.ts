import {
  deleteManifest,
  deleteTag,
  getManifest,
  headManifest,
  putManifest,
  type ServedManifest,
} from '@haven/artifacts'
import { problems } from '@haven/errors'
import { formatRegistryPath, maxManifestBytes, parseTag, type RegistryPath, type Tag } from '@haven/oci'
import { readBody } from '@haven/runtime'
import { answer, begin, matchesEtag, warn, type Call, type Headers, type RegistryContext } from '../call.ts'
import { requireOwnContent } from '../pull-through.ts'

type At = Extract<RegistryPath, { kind: 'manifest' }>

export async function get(call: Call, at: At, { access, artifacts, pulls, pullLog }: RegistryContext): Promise<void> {
  const grant = access.known(call.req, 'pull', at.name) ?? (await access.require(call.req, 'pull', at.name))
  const manifest = await getManifest(artifacts, grant, at.reference, () => access.allows(call.req, 'push', at.name))
  const headers = headersOf(manifest)
  if (matchesEtag(call.req.headers['if-none-match'], headers.ETag)) return answer(call, 304, unchanged(headers))
  pulls.count(manifest)
  pullLog.note(grant, manifest, at.reference.tag)
  warn(call, manifest.warnings)
  begin(call, 200, headers)
  call.res.end(inOneWrite(manifest.payload), 'latin1')
}

const MAX_JOINED_BYTES = 8 * 1024

/** As text, which leaves in one write with the headers, where two buffers would be a vector of them; large ones as they are. */
export const inOneWrite = (payload: Buffer): string | Buffer =>
  payload.length <= MAX_JOINED_BYTES ? payload.toString('latin1') : payload

export async function head(call: Call, at: At, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = access.known(call.req, 'pull', at.name) ?? (await access.require(call.req, 'pull', at.name))
  const mayPush = () => access.allows(call.req, 'push', at.name)
  const manifest = await headManifest(artifacts, grant, at.reference, mayPush)
  const headers = headersOf(manifest)
  warn(call, manifest.warnings)
  if (matchesEtag(call.req.headers['if-none-match'], headers.ETag)) return answer(call, 304, unchanged(headers))
  answer(call, 200, headers)
}

export async function put(call: Call, at: At, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = await access.require(call.req, 'push', at.name)
  requireOwnContent(grant)
  const body = await readBody(call.req, { limitBytes: maxManifestBytes })
  call.moved.receivedBytes = body.length
  const pushed = await putManifest(artifacts, grant, {
    reference: at.reference,
    tags: readTags(call.query),
    mediaType: call.req.headers['content-type'],
    body,
  })
  const byQuery = call.query.has('tag')
  warn(call, pushed.warnings)
  answer(call, 201, {
    Location: formatRegistryPath({ kind: 'manifest', name: at.name, reference: { digest: pushed.digest } }),
    'Docker-Content-Digest': pushed.digest,
    ...(pushed.subject !== null && { 'OCI-Subject': pushed.subject }),
    ...(byQuery && { 'OCI-Tag': pushed.tags }),
  })
}

export async function remove(call: Call, at: At, { access, artifacts }: RegistryContext): Promise<void> {
  const grant = await access.require(call.req, 'delete', at.name)
  if (at.reference.tag === undefined) await deleteManifest(artifacts, grant, at.reference.digest)
  else await deleteTag(artifacts, grant, at.reference.tag)
  answer(call, 202)
}

/**
 * Whatever `Accept` says: a client that hashes what it gets must get what was pushed, and old clients list types that they never
 * meant (clients.md §1.4).
 */
export const headersOf = ({
  mediaType,
  sizeBytes,
  digest,
}: Pick<ServedManifest, 'mediaType' | 'sizeBytes' | 'digest'>) => ({
  'Content-Type': mediaType,
  'Content-Length': sizeBytes,
  'Docker-Content-Digest': digest,
  ETag: `"${digest}"`,
})

const unchanged = ({ ETag, 'Docker-Content-Digest': digest }: ReturnType<typeof headersOf>): Headers => ({
  ETag,
  'Docker-Content-Digest': digest,
})

/** Each is a row that is locked and an entry of its history. */
const MAX_TAGS = 100

/** OCI Distribution, `?tag=a&tag=b`. */
function readTags(query: URLSearchParams): Tag[] {
  const texts = query.getAll('tag')
  if (texts.length > MAX_TAGS) throw problems.badRequest({ message: `more than ${MAX_TAGS} tags` })
  return texts.map((text) => {
    const tag = parseTag(text)
    if (tag === null) throw problems.tagInvalid({ tag: text })
    return tag
  })
}
