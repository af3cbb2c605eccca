import { problems } from '@haven/errors'

export type CveAllowlistInput = { items: string[]; expiresAt: Date | null }

const MAX_ITEMS = 10_000
const MAX_ID_LENGTH = 128

/**
 * The list of vulnerabilities that a project lets pass.
 * @throws badRequest for an empty, over-long or doubled id.
 */
export function parseAllowlist(input: { items: readonly string[]; expiresAt: Date | null }): CveAllowlistInput {
  if (input.items.length > MAX_ITEMS) {
    throw problems.badRequest({ message: `cve_allowlist.items holds more than ${MAX_ITEMS} entries` })
  }
  const seen = new Set<string>()
  for (const id of input.items) {
    if (id === '' || id.length > MAX_ID_LENGTH) {
      throw problems.badRequest({ message: `invalid cve_id in cve_allowlist: '${id.slice(0, MAX_ID_LENGTH)}'` })
    }
    if (seen.has(id)) throw problems.badRequest({ message: `duplicate cve_id in cve_allowlist: ${id}` })
    seen.add(id)
  }
  return { items: [...input.items], expiresAt: input.expiresAt }
}
