import type { GroupFacts } from '@haven/identity'
import type { HarborSchemas } from '@haven/proto'

/** Harbor's numbers of the kinds of groups. */
const types: Readonly<Record<string, number>> = { ldap: 1, http: 2, oidc: 3 }

/** Harbor takes any number; what it has no name for gets one that tells the number. */
export const providerOf = (type: number): string =>
  Object.keys(types).find((provider) => types[provider] === type) ?? `type-${type}`

const typeOf = (provider: string): number => types[provider] ?? Number(provider.replace('type-', ''))

/** Whose groups there are, by how people sign in; undefined with passwords of our own: then groups of all kinds are only kept. */
export const providerOfMode = (mode: string): string | undefined =>
  ({ ldap_auth: 'ldap', http_auth: 'http', oidc_auth: 'oidc' })[mode]

export const presentGroup = (group: GroupFacts): HarborSchemas['UserGroup'] => ({
  group_name: group.name,
  group_type: typeOf(group.provider),
  ...(group.provider === 'ldap' && { ldap_group_dn: group.externalId }),
})

/** All that any signed-in user may learn of a group. */
export const presentGroupBriefly = (group: GroupFacts): HarborSchemas['UserGroupSearchItem'] => ({
  id: group.id,
  group_name: group.name,
  group_type: typeOf(group.provider),
})
