import { listReferrers, referrersIndex } from '@haven/artifacts'
import { problems } from '@haven/errors'
import { formatLink, formatRegistryPath, mediaTypes, type RegistryPath } from '@haven/oci'
import { answerJson, readPage, type Call, type RegistryContext } from '../call.ts'

/** Always an index, also for a digest that nobody has seen: ORAS asks for one of zeros to learn whether we know referrers. */
export async function list(
  call: Call,
  at: Extract<RegistryPath, { kind: 'referrers' }>,
  { access, artifacts }: RegistryContext,
): Promise<void> {
  const grant = await access.require(call.req, 'pull', at.name)
  const { limit, last } = readPage(call.query)
  if (last !== null && !/^\d{1,18}$/.test(last))
    throw problems.badRequest({ message: 'invalid pagination: last is not ours' })
  // A media type has no blank: who did not encode its plus meant a plus (`application/vnd.example.sbom.v1+json`).
  const artifactType = call.query.get('artifactType')?.replaceAll(' ', '+') || null
  const page = { artifactType, after: last, limit: Math.max(1, limit) }
  const { referrers, next, total } = await listReferrers(artifacts, grant, at.digest, page)
  const filter = artifactType === null ? {} : { artifactType }
  answerJson(call, referrersIndex(referrers), {
    // Exactly this text, without a charset: crane and ORAS compare it.
    'Content-Type': mediaTypes.ociIndex,
    // Harbor's; with the first page only, since it must be counted, and not where there are too many.
    ...(total !== null && { 'X-Total-Count': total }),
    ...(artifactType !== null && { 'OCI-Filters-Applied': 'artifactType' }),
    ...(next !== null && { Link: formatLink(formatRegistryPath(at), { ...filter, last: next, n: limit }) }),
  })
}
