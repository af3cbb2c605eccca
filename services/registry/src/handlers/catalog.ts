import { listRepositories } from '@haven/artifacts'
import { formatLink, type RegistryPath } from '@haven/oci'
import { answerJson, readPage, type Call, type RegistryContext } from '../call.ts'

export async function ping(call: Call, _at: RegistryPath, { access }: RegistryContext): Promise<void> {
  await access.requireSignedIn(call.req)
  answerJson(call, {})
}

/** Unlike Harbor's, for everybody who is signed in: it lists what he may list (clients.md §1.12). */
export async function list(call: Call, _at: RegistryPath, { access, artifacts }: RegistryContext): Promise<void> {
  await access.listable(call.req, [])
  const { limit, last } = readPage(call.query)
  const readable = (projectIds: number[]) => access.listable(call.req, projectIds)
  const { names, more } = await listRepositories(artifacts, readable, { after: last, limit })
  const next = more ? { Link: formatLink('/v2/_catalog', { last: names.at(-1)!, n: limit }) } : {}
  answerJson(call, { repositories: names }, next)
}

/** OCI Distribution, "Extensions": we have none. */
export async function discover(
  call: Call,
  at: Extract<RegistryPath, { kind: 'discover' }>,
  { access }: RegistryContext,
): Promise<void> {
  if (at.name === null) await access.requireSignedIn(call.req)
  else await access.require(call.req, 'pull', at.name)
  answerJson(call, { extensions: [] })
}
