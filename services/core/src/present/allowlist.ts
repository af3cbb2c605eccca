import type { CveAllowlistInput } from '@haven/projects'
import type { HarborSchemas } from '@haven/proto'

type Allowlist = HarborSchemas['CVEAllowlist']

/** A list as a request says it. An expiry of 0 or less is none, as in Harbor. */
export const allowlistOf = ({ items, expires_at: expiresAt }: Allowlist): CveAllowlistInput => ({
  items: (items ?? []).map((item) => item.cve_id ?? ''),
  expiresAt: expiresAt && expiresAt > 0 ? new Date(expiresAt * 1000) : null,
})

/** The items and the expiry, which is left out when there is none. */
export const presentAllowlist = ({ items, expiresAt }: CveAllowlistInput): Pick<Allowlist, 'items' | 'expires_at'> => ({
  ...(expiresAt && { expires_at: Math.floor(expiresAt.getTime() / 1000) }),
  items: items.map((id) => ({ cve_id: id })),
})
