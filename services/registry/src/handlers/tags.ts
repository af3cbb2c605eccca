import { listTagDetails, listTags, type ArtifactDeps, type PullGrant } from '@haven/artifacts'
import { formatLink, formatRegistryPath, type RegistryPath } from '@haven/oci'
import { answerJson, readPage, type Call, type RegistryContext } from '../call.ts'

export async function list(
  call: Call,
  at: Extract<RegistryPath, { kind: 'tags' }>,
  { access, artifacts }: RegistryContext,
): Promise<void> {
  const grant = await access.require(call.req, 'pull', at.name)
  const { limit, last } = readPage(call.query)
  if (call.query.get('details') === 'true') return listDetails(call, at, artifacts, grant, { after: last, limit })
  const { tags, more } = await listTags(artifacts, grant, { after: last, limit })
  const next = more ? { Link: formatLink(formatRegistryPath(at), { last: tags.at(-1)!, n: limit }) } : {}
  answerJson(call, { name: at.name, tags }, next)
}

/** Ours, on request: what readers of a list ask for next, tag by tag (clients.md §2, Argo CD). */
async function listDetails(
  call: Call,
  at: Extract<RegistryPath, { kind: 'tags' }>,
  artifacts: ArtifactDeps,
  grant: PullGrant,
  { after, limit }: { after: string | null; limit: number },
): Promise<void> {
  const { tags, more } = await listTagDetails(artifacts, grant, { after, limit })
  const names = tags.map(({ name }) => name)
  const details = tags.map(({ name, digest, mediaType, sizeBytes, pushedAt, pulledAt }) => ({
    tag: name,
    digest,
    mediaType,
    sizeBytes,
    pushedAt: pushedAt.toISOString(),
    ...(pulledAt && { pulledAt: pulledAt.toISOString() }),
  }))
  const query = { details: 'true', last: names.at(-1) ?? '', n: limit }
  const next = more ? { Link: formatLink(formatRegistryPath(at), query) } : {}
  answerJson(call, { name: at.name, tags: names, details }, next)
}
