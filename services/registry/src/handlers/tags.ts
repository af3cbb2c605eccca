import { listTags } from '@haven/artifacts'
import { formatLink, formatRegistryPath, type RegistryPath } from '@haven/oci'
import { answerJson, readPage, type Call, type RegistryContext } from '../call.ts'

export async function list(
  call: Call,
  at: Extract<RegistryPath, { kind: 'tags' }>,
  { access, artifacts }: RegistryContext,
): Promise<void> {
  const grant = await access.require(call.req, 'pull', at.name)
  const { limit, last } = readPage(call.query)
  const { tags, more } = await listTags(artifacts, grant, { after: last, limit })
  const next = more ? { Link: formatLink(formatRegistryPath(at), { last: tags.at(-1)!, n: limit }) } : {}
  answerJson(call, { name: at.name, tags }, next)
}
